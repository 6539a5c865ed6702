"""Features of a data set by a frozen encoder: which set, and every image of it once.

Shapes: b images of a batch, N of a split, F embedding size.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import datasets, eval_loader, host_crops, label_table, train_loader
from byol_jax.distributed import multihost, pmap
from byol_jax.evaluation import train_input
from byol_jax.metrics import representation
from byol_jax.training import build
from byol_jax.workdir import console

UsageError = config_lib.UsageError

VIEW_IMAGES = 1000  # of which two views are compared
USUAL_SPLITS = {"train_split": "train", "eval_split": "test"}
RANK_IMAGES = 25_600  # that the effective rank is measured on, as many as its authors take


class Source(NamedTuple):
    """Where images come from.

    Attributes:
      name: of the set, as in `datasets.load`.
      dir: folder of images or of prepared sets; may be empty.
      labels: of a folder, as in `datasets.load`; may be empty where it is given.
    """

    name: str
    dir: str
    labels: str = ""


class Features(NamedTuple):
    """Some or all images of a split, as the encoder sees them.

    Attributes:
      features: float32 [N, F].
      labels: int32 [N]; -1 without labels.
      indices: int64 [N], where in the split each image is.
    """

    features: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    def at(self, positions: np.ndarray) -> "Features":
        """Those at these positions, or where a mask is true."""
        return Features(*(values[positions] for values in self))


def find_source(given: Source, encoder: encoders.Encoder) -> Source:
    """The set that a task is about: that of its config, or else the one the encoder was trained on.

    Args:
      given: ``data.name``, ``.dir`` and ``.labels`` of the task, which may be empty.
      encoder: whose run's set is taken then.

    Raises:
      UsageError: a folder is given for a set that has none; or no set, and the encoder comes from
        a file that does not say what it was trained on.
    """
    if encoder.config is None and not given.name:
        raise UsageError(
            f"{encoder.identity['path']} does not say what it was trained on: say on what to "
            "measure it, as --config.data.name=patterns, or folder with --config.data.dir=FOLDER."
        )
    trained = None
    if encoder.config:
        data = encoder.config.data
        trained = Source(data.name, data.dir, data.labels)
    name = given.name or trained.name
    directory = given.dir or (trained.dir if trained and name == trained.name else "")
    if given.dir and name == "patterns":
        raise UsageError(
            f"--config.data.dir={given.dir} is given, but the set '{name}' has no folder: "
            "add --config.data.name=folder, or the name of a TFDS set."
        )
    is_same = trained is not None and (name, directory) == (trained.name, trained.dir)
    labels = given.labels or (trained.labels if is_same else label_table.FOLDERS)
    return Source(name, directory, labels)


def find_split(name: str, given: Source, encoder: encoders.Encoder, key: str) -> str:
    """The name of a split: the task's, or else that of the encoder's run, or else the usual one.

    Args:
      name: ``data.<key>`` of the task, which may be empty.
      given: ``data.name`` and ``data.dir`` of the task, likewise.
      encoder: whose run's split is taken then, if it has a run and that was of the same set.
      key: ``train_split`` or ``eval_split``.
    """
    trained = encoder.config.data if encoder.config else None
    is_same = trained is not None and given.name in ("", trained.name)
    return name or (trained[key] if is_same else USUAL_SPLITS[key])


def chunks(
    encoder: encoders.Encoder,
    data: datasets.Dataset,
    *,
    batch_size: int,
    bad: eval_loader.BadLimit,
    title: str,
    fraction: float = host_crops.CENTER_SHARE,
) -> Iterator[Features]:
    """Encodes every image once, in order, b at a time, with a progress line on standard error.

    Args:
      encoder: in inference mode.
      data: the split.
      batch_size: b.
      bad: notes images that cannot be used, which are left out.
      title: of the progress line.
      fraction: of the shorter side that is cropped from encoded images.

    Raises:
      UsageError: more images cannot be used than may be; names some of them.
    """
    batches = eval_loader.eval_batches(
        data,
        batch_size=pmap.round_up(min(batch_size, data.num_images)),
        image_size=encoder.image_size,
        bad=bad,
        fraction=fraction,
    )
    with console.progress_bar(total=data.num_images, done=0, unit="img", title=title) as bar:
        for batch in batches:
            features = encoder.encode(batch.images)[batch.mask]
            yield Features(features, batch.labels[batch.mask], batch.indices[batch.mask])
            bar.update(len(features))


def extract(
    encoder: encoders.Encoder,
    data: datasets.Dataset,
    *,
    batch_size: int,
    bad: eval_loader.BadLimit,
    title: str,
    fraction: float = host_crops.CENTER_SHARE,
) -> Features:
    """All of `chunks` together, in order; processes share the images and all get all features.

    Raises:
      UsageError: more images cannot be used than may be, or none of them can; on all processes.
    """
    mine = np.arange(jax.process_index(), data.num_images, jax.process_count())
    part = data if jax.process_count() == 1 else data.select(mine)
    found = Features(
        np.empty((len(mine), encoder.embedding_size), np.float32),
        np.empty(len(mine), np.int32),
        np.empty(len(mine), np.int64),
    )
    options = {"batch_size": batch_size, "bad": bad, "title": title, "fraction": fraction}

    def fill() -> int:
        count = 0
        for chunk in chunks(encoder, part, **options):
            rows = (chunk.features, chunk.labels, mine[chunk.indices])
            for all_rows, new in zip(found, rows, strict=True):
                all_rows[count : count + len(new)] = new
            count += len(chunk.labels)
        return count

    count = multihost.together(fill, what=f"encoding images ({title})")
    bad.share()
    features, labels, indices = (rows[:count] for rows in found)
    indices, features, labels = multihost.gather_sorted(
        indices, features, labels, what=f"gathering features ({title})"
    )
    found = Features(features, labels, indices)
    if not len(found.labels):
        raise UsageError(f"None of the {data.num_images:,} images can be used ({title}).")
    return found


def quality(
    encoder: encoders.Encoder,
    found: Features,
    data: datasets.Dataset,
    *,
    batch_size: int,
    seed: int,
) -> dict[str, float]:
    """What can be said without labels: spread and rank of features, and how two views agree.

    Args:
      encoder: brings its run's augmentations along.
      found: the features of ``data``.
      data: the split.
      batch_size: b.
      seed: of the views.

    Raises:
      UsageError: less than two images.
    """
    if len(found.labels) < 2:
        raise UsageError("The split has one usable image; to measure features takes two.")
    views = two_views(encoder, data, num_images=VIEW_IMAGES, batch_size=batch_size, seed=seed)
    return {
        "effective_rank": representation.effective_rank(found.features[:RANK_IMAGES]),
        "effective_rank_images": min(RANK_IMAGES, len(found.labels)),
        "feature_std": representation.feature_std(found.features),
        "alignment": representation.alignment(*views),
        "uniformity": float(np.mean([representation.uniformity(view) for view in views])),
        "view_images": len(views[0]),
    }


def two_views(
    encoder: encoders.Encoder,
    data: datasets.Dataset,
    *,
    num_images: int,
    batch_size: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, F] of two augmented views, as the run drew them, of the split's first images.

    Views are rounded to 8 bits, as images are. A bad image is replaced by another one.

    Args:
      encoder: brings its run's augmentations along.
      data: the split.
      num_images: n, at most; fewer if the split has fewer.
      batch_size: b.
      seed: of the views.
    """
    data = data.take(num_images)
    drawn = _view_batches(encoder, data, batch_size=min(batch_size, data.num_images), seed=seed)
    pairs = []
    count = min(batch_size, data.num_images)
    bar = console.progress_bar(total=data.num_images, unit="img", title="two views", delay=2)
    for batch in console.shown(bar, drawn, count):
        pairs.append([encoder.encode(view) for view in batch])
    first, second = (np.concatenate(views)[: data.num_images] for views in zip(*pairs, strict=True))
    return first, second


def _view_batches(
    encoder: encoders.Encoder, data: datasets.Dataset, *, batch_size: int, seed: int
) -> Iterator[list[np.ndarray]]:
    """One epoch of pairs of uint8 views [b, S, S, 3], the last batch filled up from the next."""
    augment, size = train_input.augment_of(encoder), encoder.image_size
    make_views = jax.jit(build.make_views(augment, image_size=size))
    batches = train_loader.TrainBatches(
        data,
        batch_size=batch_size,
        seed=seed,
        crop=build.make_crop(augment.crop, image_size=size),
        max_bad_share=1.0,
    )
    try:
        for number in range(-(-data.num_images // batch_size)):
            key = jax.random.fold_in(jax.random.key(seed), number)
            views = make_views(key, next(batches))
            yield [np.rint(np.asarray(view) * 255).astype(np.uint8) for view in views]
    finally:
        batches.close()


def names(source: Source, data: datasets.Dataset, indices: np.ndarray) -> list[str]:
    """What images are called: files of a folder by their path below it, others by number.

    Bytes of a file name that are not UTF-8 are written as ``\\xNN``.
    """
    if isinstance(data, datasets.ArrayDataset):
        return [str(index) for index in indices]
    name = data.records.file_name if source.name == "folder" else data.records.name
    return [
        name(int(index)).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        for index in indices
    ]
