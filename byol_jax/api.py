"""The Python API: what the command line does, as functions of arrays, paths and dictionaries.

Each function calls the task that the command line calls. Mistakes raise `UsageError` (a ValueError
that says what to change); nothing here ends the process, parses flags, or listens to a signal but
Ctrl-C in the main thread. One process; several are started from the command line.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from byol_jax import api_evaluation
from byol_jax import config as config_lib
from byol_jax.checkpoints import classifiers, encoders
from byol_jax.cli import conclusion
from byol_jax.cli import overrides as overrides_lib
from byol_jax.curation import index as index_lib
from byol_jax.data import datasets
from byol_jax.host import signals
from byol_jax.tasks import export as export_task
from byol_jax.tasks import pretrain as pretrain_task
from byol_jax.training import completion, run_writer
from byol_jax.workdir import metrics_log

ArrayDataset = datasets.ArrayDataset
Classifier = classifiers.Classifier
Dataset = datasets.Dataset
Encoder = encoders.Encoder
Index = index_lib.Index
UsageError = config_lib.UsageError
Path = str | os.PathLike[str]
evaluate = api_evaluation.evaluate
evaluate_knn = api_evaluation.evaluate_knn
evaluate_linear = api_evaluation.evaluate_linear


@overrides_lib.named_as_keys()
def load_encoder(path: Path, network: str = "online") -> Encoder:
    """Loads an encoder to embed images with; see `Encoder.embed`.

    Args:
      path: a run's workdir (its newest checkpoint), one of its ``checkpoints/<step>``, an export,
        DeepMind's .pkl, or a file by torchvision's names.
      network: "online" or "target".

    Raises:
      UsageError: there is no encoder at the path; says why.

    >>> encoder = load_encoder(workdir)
    >>> encoder.image_size, encoder.embedding_size
    (32, 96)
    """
    return encoders.load_encoder(os.fspath(path), network=network)


@overrides_lib.named_as_keys()
def load_classifier(path: Path) -> Classifier:
    """Loads the classifier that an evaluation has kept; see `Classifier.predict`.

    Args:
      path: the folder of a result of `evaluate_linear`, configs/linear_eval.py, transfer.py or
        semi_supervised.py, or of an export of its classifier.

    Raises:
      UsageError: there is no classifier at the path, or it is damaged; says why.

    >>> train, test = load_dataset("patterns", "train"), load_dataset("patterns", "test")
    >>> result = evaluate_linear(encoder, train, test, overrides={"total_epochs": 1},
    ...                          workdir=empty_folder)
    >>> classifier = load_classifier(empty_folder)
    >>> classifier.predict(test.images[:3]).shape, len(classifier.classes)
    ((3,), 10)
    """
    return classifiers.load_classifier(os.fspath(path))


@overrides_lib.named_as_keys()
def load_dataset(name: str, split: str, data_dir: Path = "", labels: str = "folders") -> Dataset:
    """Opens a split of a set, as ``data.name``, a split and ``data.dir`` on the command line.

    Args:
      name: "patterns" (embedded), "folder", or a prepared set of TFDS.
      split: such as "train", "test", or of TFDS ``train[:90%]``.
      data_dir: folder of the images, or of prepared TFDS sets.
      labels: of a folder: "folders", "none", or a CSV file with the columns file and label.

    Raises:
      UsageError: no such set or split.

    >>> data = load_dataset("patterns", "test")
    >>> data.images.shape[1:], data.num_classes
    ((32, 32, 3), 10)
    """
    return datasets.load(name, split, data_dir=os.fspath(data_dir), labels=labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A pretraining run that has come to its end.

    Attributes:
      workdir: its folder.
      config: what it was made with.
      step: number of updates.
    """

    workdir: pathlib.Path
    config: ml_collections.ConfigDict
    step: int

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, each with its ``step``, in order; no key is in all of them."""
        return list(metrics_log.rows(self.workdir))

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The online encoder of the newest checkpoint."""
        return load_encoder(self.workdir)


@overrides_lib.named_as_keys()
def pretrain(
    config: str | ml_collections.ConfigDict,
    *,
    train: Dataset | None = None,
    test: Dataset | None = None,
    overrides: Mapping[str, Any] | None = None,
    workdir: Path | None = None,
    callbacks: Sequence[run_writer.Callback] = (),
) -> Run:
    """Pretrains an encoder, or resumes the run in the workdir if it is one of the same arguments.

    Args:
      config: a file and its preset, such as "configs/byol.py:folder", or a config.
      train: images to train on, in place of those of ``data.name``.
      test: images that probes measure; None: every tenth of ``train`` is held out for it.
      overrides: values of keys, such as ``{"total_epochs": 20, "data.image_size": 64}``.
      workdir: for checkpoints, metrics and the report; None: ``runs/pretrain-<preset>``.
      callbacks: each is called as ``callback(step, row)`` after a row of metrics is written; an
        exception in it ends the run, whose last checkpoint is kept.

    Raises:
      UsageError: a wrong key or value, with the nearest valid ones; images that are not those the
        run began with; nothing is written then.
      KeyboardInterrupt: after Ctrl-C, when the run is saved; the same call resumes it.

    >>> images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
    >>> run = pretrain("configs/byol.py", train=ArrayDataset(images), workdir=empty_folder,
    ...                overrides={"total_steps": 2, "batch_size": 8, "log_every_steps": 1})
    >>> run.step, run.metrics[-1]["step"], run.encoder.embed(images).shape
    (2, 2, (40, 96))
    """
    config = overrides_lib.load(config, "pretrain")
    if train is not None:
        config.data.name, config.data.dir = datasets.ARRAYS, ""
        train, test = datasets.hold_out(train) if test is None else (train, test)
    elif test is not None:
        raise UsageError("test is given without train: give both.")
    overrides_lib.settle(config, overrides)
    folder = api_evaluation.local_folder(workdir or f"runs/pretrain-{config.preset}")
    with conclusion.concluded(folder):
        images = {"train": train, "test": test}
        filled = completion.complete(config, folder, **images, typed=overrides or ())
        is_over = pretrain_task.train_as(
            filled, folder, **images, callbacks=callbacks, typed=overrides or ()
        )
    if not is_over:
        raise KeyboardInterrupt(f"Saved in {folder}: make the same call to resume.")
    found = Run(folder, filled.config, 0)
    return dataclasses.replace(found, step=max(row["step"] for row in found.metrics))


@overrides_lib.named_as_keys()
def export(
    encoder: Encoder | Path,
    workdir: Path,
    *,
    formats: Sequence[str] = ("safetensors", "torch", "stablehlo"),
    overrides: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes an encoder for other programs, checked by reading it back, as configs/export.py does.

    Args:
      encoder: or the path of one.
      workdir: that is written, whole or not at all.
      formats: some of "safetensors", "torch", "stablehlo" and "onnx".
      overrides: values of keys of configs/export.py.

    Returns:
      The folder; its model.json says what is in it.

    Raises:
      UsageError: a wrong key or format, a folder that holds something else, or an encoder that is
        in no file.

    >>> sorted(path.name for path in export(encoder, empty_folder, formats=["stablehlo"]).iterdir())
    ['encoder.stablehlo', 'model.json', 'model.safetensors', 'test_batch.safetensors']
    """
    config = overrides_lib.load("configs/export.py", "export")
    if isinstance(encoder, Encoder):
        config.checkpoint, config.network = encoder.identity["path"], encoder.network
    else:
        config.checkpoint = os.fspath(encoder)
    overrides_lib.settle(config, {"formats": ",".join(formats), **(overrides or {})})
    folder = api_evaluation.local_folder(workdir)
    with signals.in_a_program():
        export_task.run(config, folder)
    return folder
