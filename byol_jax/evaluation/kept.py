"""What an evaluation keeps of the classifier that it chose: see `checkpoints.classifiers`.

Shapes: F embedding size, C classes.
"""

import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax.checkpoints import classifiers, encoders, export_contents
from byol_jax.evaluation import protocol, sweep
from byol_jax.workdir import files, run_folder

_PART = f".{classifiers.FOLDER}.part"
_OLD = f".{classifiers.FOLDER}.old"
FILE = export_contents.WEIGHTS  # of `remember`
_HEAD = "classifier"  # among the modules of a network that is being kept


class Fitted(NamedTuple):
    """A linear layer, and the encoder if that was trained with it.

    Attributes:
      weights: [F, C].
      biases: [C]; minus infinity for a class that no image had.
      params: of the encoder; empty: as it was loaded.
      state: its running batch-norm statistics; likewise.
    """

    weights: np.ndarray
    biases: np.ndarray
    params: Any = {}
    state: Any = {}


def calibration(choice: sweep.Choice, temperature: float | None) -> dict[str, Any]:
    """What a result says of its temperature.

    Args:
      choice: whose held-out images it was fitted on.
      temperature: None if there were none.
    """
    if temperature is None:
        return {"temperature": 1.0, "images": 0, "on": "nothing: no image was held out"}
    return {"temperature": temperature, "images": choice.num_validation, "on": choice.on}


def remember(folder: pathlib.Path, fitted: Fitted) -> None:
    """Writes what was fitted for a later attempt at the same evaluation."""
    head = {"w": np.asarray(fitted.weights), "b": np.asarray(fitted.biases)}
    files.make_folder(folder)
    params, state = jax.device_get((dict(fitted.params), dict(fitted.state)))
    export_contents.save_weights(folder, params | {_HEAD: head}, state)


def recall(folder: pathlib.Path) -> Fitted:
    """Reads what `remember` wrote."""
    params, state = (
        jax.tree.map(lambda leaf: leaf.load(), tree, is_leaf=lambda x: hasattr(x, "load"))
        for tree in export_contents.open_weights(folder)
    )
    head = params.pop(_HEAD)
    return Fitted(head["w"], head["b"], params, state)


def write(
    workdir: pathlib.Path,
    setup: protocol.EvalSetup,
    fitted: Fitted,
    result: Mapping[str, Any],
    *,
    crop_fraction: float,
) -> pathlib.Path:
    """Writes the folder of a classifier beside its place; see `put`.

    Args:
      workdir: of the evaluation.
      setup: what was measured.
      fitted: what is kept.
      result: what ``result.json`` says.
      crop_fraction: of the shorter side of images that is seen.

    Returns:
      The folder.
    """
    folder = workdir / _PART
    with files.writing(workdir / classifiers.FOLDER):
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
        folder.mkdir()
        encoder = _encoder(setup, fitted)
        _write_encoder(folder, encoder)
        has_images = np.isfinite(fitted.biases)
        card = _card(setup, encoder, result, crop_fraction)
        card["classes"] = _some(result["classes"], has_images)
        weights, biases = fitted.weights[:, has_images], fitted.biases[has_images]
        classifiers.save_linear(folder, weights, biases, card)
        for path in (*folder.iterdir(), folder):
            files.sync(path)
    return folder


def _some(values: Sequence[str], mask: np.ndarray) -> list[str]:
    return [value for value, is_kept in zip(values, mask, strict=True) if is_kept]


def _encoder(setup: protocol.EvalSetup, fitted: Fitted) -> encoders.Encoder:
    """As it was loaded, or as it has become; sees gray as the training images were read."""
    ranges = getattr(setup.train, "grey_ranges", setup.encoder.card.grey_ranges)
    encoder = setup.encoder._replace(card=setup.encoder.card._replace(grey_ranges=ranges))
    if not fitted.params:
        return encoder
    params, state = jax.device_get((fitted.params, fitted.state))
    identity = encoder.identity | {
        "path": f"{encoder.identity['path']}, trained further with labels",
        "sha256": encoders.fingerprint(params, state),
    }
    return encoder._replace(params=params, state=state, identity=identity)


def _write_encoder(folder: pathlib.Path, encoder: encoders.Encoder) -> None:
    identity = encoder.identity
    source = {"format": "classifier"} | {key: identity[key] for key in ("path", "step", "sha256")}
    export_contents.save_weights(folder, encoder.params, encoder.state)
    model = export_contents.describe(
        encoder.card,
        network=encoder.network,
        source=source,
        config=encoder.config,
        notes=encoder.notes,
        licence=encoder.licence,
    )
    export_contents.write_model(folder, model)


def _card(
    setup: protocol.EvalSetup,
    encoder: encoders.Encoder,
    result: Mapping[str, Any],
    crop_fraction: float,
) -> dict[str, Any]:
    """All but the names of the classes; of several seeds the first one's."""
    mine = result.get("per_seed", [result])[0]
    names = ("accuracy", "interval_95", "selected", "num_images", "calibration", "seed")
    return {
        "format": classifiers.FORMAT,
        "classes": [],
        "task": result["task"],
        "protocol": result["protocol"],
        "data": result["data"],
        **{name: mine[name] for name in names},
        "encoder": encoder.identity,
        "crop_fraction": crop_fraction,
        "is_reduced": bool(getattr(setup.train, "is_reduced", False)),
        "preprocessing": f"the square in the middle, {crop_fraction:g} of the shorter side, "
        f"resized to {encoder.image_size} px; divided by 255, normalized by mean and std",
        "licence": encoder.licence,
        "versions": run_folder.versions(),
    }


def put(workdir: pathlib.Path, part: pathlib.Path) -> None:
    """Gives the folder of `write` its name; what a person has put into the older one stays."""
    folder, old = workdir / classifiers.FOLDER, workdir / _OLD
    with files.writing(folder):
        if folder.exists():
            os.rename(folder, old)
        os.rename(part, folder)
        if not old.exists():
            return
        for path in old.iterdir():
            if path.name in classifiers.FILES:
                path.unlink()
            else:
                os.rename(path, folder / path.name)
        old.rmdir()


def require_ours(workdir: pathlib.Path) -> None:
    """Checks that nothing else has the name of the classifier that will be kept.

    Raises:
      UsageError: there is something that no evaluation wrote.
    """
    folder = workdir / classifiers.FOLDER
    if os.path.lexists(folder) and not classifiers.is_ours(folder):
        raise classifiers.UsageError(
            f"{folder} is no classifier of this program and is left as it is: move it away, or "
            "give another --workdir."
        )
