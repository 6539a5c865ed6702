"""Keeps the gallery of a run while it trains, and never stops it.

Shapes: B images of a process' batch, b of them on one device, S image size.
"""

import contextlib
import pathlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.data import datasets, train_loader
from byol_jax.distributed import multihost, pmap
from byol_jax.evaluation import features as features_lib
from byol_jax.training import build, online_eval
from byol_jax.training import settings as settings_lib
from byol_jax.visualize import gallery
from byol_jax.workdir import metric_writer

FOLDER = "gallery"


class Curator:
    """Makes the pictures of one run, in the process that writes its files.

    Args:
      job: the run.
      workdir: its folder.
      logger: shows the pictures to whoever tracks the run.
      say: prints a line.
    """

    def __init__(
        self,
        job: build.Job,
        workdir: pathlib.Path,
        logger: metric_writer.Logger,
        say: Callable[[str], None],
    ):
        self._settings, self._images, self._workdir = job.settings, job.images, workdir
        self._logger, self._say = logger, say
        self._is_active = multihost.is_writer() and job.settings.gallery.max_images > 0

    def see_batch(self, step: int, batch: Mapping[str, np.ndarray], bad: Mapping[int, str]) -> None:
        """Keeps the views of the first step: images and views of the batch [B, ...] it is fed."""
        if step == 1 and self._is_active:
            with self._harmless():
                folder = self._workdir / FOLDER
                grid = make_pairs(self._settings, self._images.train, batch, bad, folder)
                self._logger.write_image(step, "pairs", grid)

    def see_probe(self, step: int, measured: online_eval.Measured) -> None:
        """Keeps what the encoder makes of the evaluation split before and after training."""
        if not self._is_active:
            return
        most, folder = self._settings.gallery.max_images, self._workdir / FOLDER
        with self._harmless():
            if step == 0:
                begin = self._settings.checkpoint
                title = f"the networks of {begin}" if begin else "random weights"
                gallery.write_start(folder, measured, most=most, title=title)
            if step == self._settings.total_steps:
                subject = make_subject(self._settings.data, self._images.test)
                grid = gallery.write_end(folder, subject, measured, step=step, most=most)
                self._logger.write_image(step, "neighbours", grid)

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # no picture is worth a run
            self._say(
                f"Warning: pictures could not be made ({type(error).__name__}: {error}). To make "
                "them later: python -m byol_jax.main_loop --config=configs/gallery.py "
                f"--config.checkpoint={shlex.quote(str(self._workdir))}"
            )


def make_subject(data: settings_lib.Data, test: datasets.Dataset) -> gallery.GalleryData:
    """The images of a run's evaluation split, with their names and those of their classes."""
    source = features_lib.Source(data.name, data.dir)
    classes = datasets.class_names(test, data.name, data.dir)
    return gallery.GalleryData(test, data.eval_split, _Names(source, test), classes)


class _Names(Mapping):
    """Names of images by index, found when asked for; none for images in memory."""

    def __init__(self, source: features_lib.Source, data: datasets.Dataset):
        self._source, self._data = source, data

    def __len__(self) -> int:
        return 0 if isinstance(self._data, datasets.ArrayDataset) else self._data.num_images

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __getitem__(self, index: int) -> str:
        if index >= len(self):
            raise KeyError(index)
        return features_lib.names(self._source, self._data, np.array([index]))[0]


def make_pairs(
    settings: settings_lib.PretrainSettings,
    train: datasets.Dataset,
    batch: Mapping[str, np.ndarray],
    bad: Mapping[int, str],
    folder: pathlib.Path,
) -> np.ndarray:
    """Writes images beside the two views that the first step makes of them; returns a picture.

    Args:
      settings: of the run.
      train: the split.
      batch: the first one of this process, [B, ...].
      bad: images that were found to be bad so far, which are not in the batch.
      folder: of the gallery.
    """
    views = first_views(settings, batch)
    count = min(gallery.PAIRS, len(views[0]))
    found = find_rows(train, count, bad, seed=settings.seed)
    subject = make_subject(settings.data, train)
    pairs = [
        (gallery.load(train, index, 2 * gallery.LARGE), views[0][row], views[1][row])
        for row, index in found
    ]
    captions = [gallery.caption(subject, index, int(batch["labels"][row])) for row, index in found]
    return gallery.write_pairs(folder, pairs, captions)


def find_rows(
    train: datasets.Dataset, count: int, bad: Mapping[int, str], *, seed: int
) -> list[tuple[int, int]]:
    """The first rows of the first batch, and which images they are; no bad ones."""
    indices = train_loader.first_indices(
        train.num_images, seed=seed, count=count, process_count=jax.process_count()
    )
    return [(row, index) for row, index in enumerate(indices) if index not in bad]


def first_views(
    settings: settings_lib.PretrainSettings, batch: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Two views, uint8 [b, S, S, 3], of the first device's part of the first batch [B, ...].

    The key is that of step 0, so that these are the views that the network is trained on.
    """
    key = pmap.step_key(settings.seed, jnp.int32(0))
    count = len(batch["labels"]) // jax.local_device_count()
    part = {name: rows[:count] for name, rows in batch.items()}
    make_views = build.make_views(
        settings.augment, image_size=settings.data.image_size, batch_size=settings.batch_size
    )
    return draw_views(make_views, key, part)


def draw_views(
    make_views: Callable[..., Any], key: jax.Array, batch: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Two views, uint8 [b, S, S, 3], of a batch [b, ...], as `build.make_views` makes them."""
    # Runs once, so compiling it without optimizations is what saves time.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    made = jax.jit(make_views, compiler_options=options)(key, dict(batch))
    return tuple(np.rint(np.asarray(view) * 255).astype(np.uint8) for view in made)
