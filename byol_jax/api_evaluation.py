"""The evaluations of the Python API, on arrays or prepared sets."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.cli import conclusion
from byol_jax.cli import overrides as overrides_lib
from byol_jax.data import datasets
from byol_jax.evaluation import protocol, result_folder
from byol_jax.host import signals
from byol_jax.tasks import knn, linear_eval

Dataset = datasets.Dataset
Encoder = encoders.Encoder
Path = str | os.PathLike[str]


@overrides_lib.named_as_keys()
def evaluate_knn(
    encoder: Encoder | Path,
    train: Dataset,
    test: Dataset | None = None,
    *,
    k: Sequence[int] = (10, 20, 200),
    overrides: Mapping[str, Any] | None = None,
    workdir: Path | None = None,
) -> dict[str, Any]:
    """Classifies images by their nearest neighbors, as configs/knn.py does.

    Args:
      encoder: or the path of one.
      train: labeled images that vote.
      test: images that are classified; None: each of ``train``, by all others.
      k: numbers of neighbors; the best on held-out training images is measured.
      overrides: values of keys of configs/knn.py, such as ``{"knn.temperature": 0.1}``.
      workdir: for result.json; None: nothing is kept.

    Returns:
      What result.json holds: ``accuracy`` (fractions, of "top1" and "top5"), their
      ``interval_95``, ``selected``, ``table``, ``label_free`` measures, and more.

    Raises:
      UsageError: a wrong key or value, or images without labels.

    >>> train, test = load_dataset("patterns", "train"), load_dataset("patterns", "test")
    >>> result = evaluate_knn(encoder, train, test, k=[5])
    >>> 0 <= result["accuracy"]["top1"] <= 1
    True
    """
    changes = {"knn.k": tuple(k), **(overrides or {})}
    name = knn.LEAVE_ONE_OUT if test is None else "test"
    config = _of_arrays("knn", {"train_split": "train", "eval_split": name}, changes)
    return _evaluate(knn.run, config, encoder, train, test, workdir)


@overrides_lib.named_as_keys()
def evaluate_linear(
    encoder: Encoder | Path,
    train: Dataset,
    test: Dataset,
    *,
    features: str = "cached",
    overrides: Mapping[str, Any] | None = None,
    workdir: Path | None = None,
) -> dict[str, Any]:
    """Trains a linear classifier on a frozen encoder, as configs/linear_eval.py does.

    Args:
      encoder: or the path of one.
      train: labeled images.
      test: labeled images that are evaluated, once.
      features: "cached": each image is encoded once, which takes seconds; "augmented": random
        crops and flips in every epoch, as the paper does.
      overrides: values of keys of configs/linear_eval.py, such as ``{"total_epochs": 20}``.
      workdir: for result.json; None: nothing is kept.

    Returns:
      What result.json holds: ``accuracy`` (fractions, of "top1" and "top5"), ``selected``, and
      more.

    Raises:
      UsageError: a wrong key or value, or images without labels.

    >>> train, test = load_dataset("patterns", "train"), load_dataset("patterns", "test")
    >>> result = evaluate_linear(encoder, train, test, overrides={"total_epochs": 1})
    >>> 0 <= result["accuracy"]["top1"] <= 1
    True
    """
    changes = {"features": features, **(overrides or {})}
    config = _of_arrays("linear_eval", {"train_split": "train", "eval_split": "test"}, changes)
    return _evaluate(linear_eval.run, config, encoder, train, test, workdir)


class evaluate:  # a namespace, written as evaluate.knn(...)
    """Evaluations by their short names."""

    knn = staticmethod(evaluate_knn)
    linear = staticmethod(evaluate_linear)


def _of_arrays(task: str, splits: Mapping[str, str], changes: Mapping[str, Any]) -> Any:
    """The config of an evaluation whose images are handed over."""
    config = overrides_lib.load(f"configs/{task}.py", task)
    config.data.name = datasets.ARRAYS
    config.data.update(splits)
    overrides_lib.settle(config, changes)
    return config


def _evaluate(
    run: Callable[..., None],
    config: Any,
    encoder: Encoder | Path,
    train: Dataset,
    test: Dataset | None,
    workdir: Path | None,
) -> dict[str, Any]:
    """The result of a task that is handed its encoder and its images."""
    encoder = encoder if isinstance(encoder, Encoder) else encoders.load_encoder(os.fspath(encoder))
    config.checkpoint = encoder.identity["path"]
    splits = {"train": train} if test is None else {"train": train, "test": test}
    with contextlib.ExitStack() as stack:
        folder = local_folder(workdir or stack.enter_context(tempfile.TemporaryDirectory()))
        with conclusion.concluded(folder) if workdir else signals.in_a_program():
            run(config, folder, given=protocol.Given(encoder, splits))
        return json.loads((folder / result_folder.FILE).read_text())


def local_folder(workdir: Path) -> pathlib.Path:
    """The folder of a path; raises `UsageError` for one of a bucket."""
    config_lib.require_local(workdir, flag="workdir")
    return pathlib.Path(workdir).expanduser()
