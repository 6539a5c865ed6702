"""Classifiers of images: a linear layer on an encoder, kept in a folder with all that it needs.

The folder holds the encoder as an export does (``model.json``, ``model.safetensors``), the linear
layer (``classifier.safetensors``) and ``classifier.json``, the card, which says what the classes
are called, what was chosen on which images, and how often it was right.

Shapes: N images, S the encoder's image size, F embedding size, C classes.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import checksums, encoders, export_contents, safe_pickle, torch_checkpoint
from byol_jax.metrics import calibration
from byol_jax.workdir import files, run_folder

UsageError = config_lib.UsageError

FORMAT = "byol_jax classifier 1"
FOLDER = "classifier"  # in the folder of a result
CARD, WEIGHTS = "classifier.json", "classifier.safetensors"
FILES = (CARD, WEIGHTS, export_contents.MODEL, export_contents.WEIGHTS)


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """An encoder with a linear layer, ready to classify images.

    Attributes:
      encoder: frozen.
      classes: their names, in the order of the columns.
      weights: float32 [F, C].
      biases: float32 [C].
      temperature: that logits are divided by; fitted on images that were held out.
      card: what ``classifier.json`` holds.
    """

    encoder: encoders.Encoder
    classes: tuple[str, ...]
    weights: np.ndarray
    biases: np.ndarray
    temperature: float
    card: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """What tells one classifier from another: encoder, linear layer, temperature, classes."""
        linear = checksums.digest_arrays({"weights": self.weights, "biases": self.biases})
        parts = [self.encoder.identity["sha256"], linear, self.temperature, self.classes]
        return checksums.digest_json(parts)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Calibrated logits [N, C] of features [N, F]: their softmax are the probabilities."""
        return (features @ self.weights + self.biases) / np.float32(self.temperature)

    def predict_proba(
        self, images: Any, batch_size: int = 256, progress: bool = False
    ) -> np.ndarray:
        """Probabilities of the classes.

        Args:
          images: [N, H, W, 3], as `Encoder.embed` takes them.
          batch_size: images at a time.
          progress: whether to show a bar on standard error.

        Returns:
          float32 [N, C]; columns are in the order of ``classes``.

        Raises:
          ValueError: other images; says how to convert them.

        >>> images = np.zeros((3, 32, 32, 3), np.uint8)
        >>> probabilities = classifier.predict_proba(images)
        >>> probabilities.shape == (3, len(classifier.classes))
        True
        """
        features = self.encoder.embed(images, batch_size, progress)
        return calibration.softmax(self.logits(features)).astype(np.float32)

    def predict(self, images: Any, batch_size: int = 256, progress: bool = False) -> np.ndarray:
        """The most probable class of each image.

        Args:
          images: as for `predict_proba`.
          batch_size: images at a time.
          progress: whether to show a bar on standard error.

        Returns:
          Names of classes, an array of str [N].

        >>> classifier.predict(np.zeros((1, 32, 32, 3), np.uint8))[0] in classifier.classes
        True
        """
        best = self.predict_proba(images, batch_size, progress).argmax(axis=1)
        return np.array(self.classes)[best]


def find(path: str) -> pathlib.Path | None:
    """The folder of the classifier at a path: a result's folder, or its own; None if none is."""
    folder = pathlib.Path(path).expanduser()
    places = (folder, folder / FOLDER, folder.parent)
    return next((place for place in places if path and (place / CARD).is_file()), None)


def is_ours(folder: pathlib.Path) -> bool:
    """Whether a folder holds the card of a classifier, in whatever state."""
    return folder.is_dir() and not folder.is_symlink() and (folder / CARD).is_file()


def load_classifier(path: str) -> Classifier:
    """Loads the classifier that an evaluation has kept.

    Args:
      path: the folder of its result, of the classifier itself, or of an export of it.

    Raises:
      UsageError: there is none, a file is missing or damaged, its encoder is another one than it
        was fitted on, or its classes were renamed.
    """
    folder = find(path)
    if folder is None:
        raise UsageError(
            f"No classifier at '{path}': give the folder of a result of configs/linear_eval.py, "
            f"transfer.py or semi_supervised.py, in which there is '{FOLDER}/{CARD}'."
        )
    card = _read_card(folder / CARD)
    weights, biases, stored = _read_weights(folder / WEIGHTS)
    classes = tuple(card["classes"])
    if list(classes) != stored:
        raise UsageError(
            f"{folder / CARD} names other classes ({_some(classes)}) than {WEIGHTS} was fitted to "
            f"({_some(stored)}): put these back, and rename classes in the predictions."
        )
    encoder = encoders.load_encoder(str(folder), network=_network(folder))
    if encoder.identity["sha256"] != card["encoder"]["sha256"]:
        raise UsageError(
            f"The encoder in {folder} (sha256 {encoder.identity['sha256'][:12]}) is not the one "
            f"that the classifier was fitted on ({card['encoder']['sha256'][:12]}): put back its "
            "own, or evaluate again."
        )
    shape = (encoder.embedding_size, len(classes))
    if weights.shape != shape or biases.shape != shape[1:]:
        raise UsageError(f"{folder / WEIGHTS} holds weights {weights.shape}, not {shape}.")
    temperature = float(card["calibration"]["temperature"])
    return Classifier(encoder, classes, weights, biases, temperature, card)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _network(folder: pathlib.Path) -> str:
    return export_contents.read_model(folder)["network"]


def _read_card(path: pathlib.Path) -> dict[str, Any]:
    try:
        card = json.loads(files.read_bytes(path))
        if card["format"] != FORMAT:
            raise ValueError(f"it is of format {card['format']!r}, not {FORMAT!r}")
        if not card["classes"] or not all(isinstance(name, str) for name in card["classes"]):
            raise ValueError("its 'classes' are no list of names")
        numbers = [card["calibration"]["temperature"], card["crop_fraction"]]
        if not run_folder.is_numbers(numbers, 2) or min(numbers) <= 0:
            raise ValueError("its temperature or crop_fraction is no number above 0")
        str(card["encoder"]["sha256"]), bool(card["is_reduced"])  # or an error
        return card
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise UsageError(f"Cannot read {path}: {reason}. Evaluate again.") from None


def _read_weights(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Weights, biases, and the names of the classes that they were fitted to."""
    try:
        tensors = torch_checkpoint.open_tensors(path)
        weights, biases = (tensors[name].load() for name in ("weights", "biases"))
        names = bytes(tensors["classes"].load()).decode()
        return weights.astype(np.float32), biases.astype(np.float32), json.loads(names)
    except (safe_pickle.UnsupportedPickle, OSError) as error:
        raise UsageError(f"Cannot read {error}. Evaluate again.") from None
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path} is no classifier of this program: {error}.") from None


def save_linear(
    folder: pathlib.Path, weights: np.ndarray, biases: np.ndarray, card: Mapping[str, Any]
) -> None:
    """Writes the linear layer, with the names of its classes, and the card.

    Raises:
      files.WriteError: no space, or the folder cannot be written to.
    """
    tensors = {
        "weights": np.asarray(weights, np.float32),
        "biases": np.asarray(biases, np.float32),
        "classes": np.frombuffer(json.dumps(list(card["classes"])).encode(), np.uint8),
    }
    torch_checkpoint.save_safetensors(folder / WEIGHTS, tensors, metadata={"format": FORMAT})
    files.write_text(folder / CARD, json.dumps(card, indent=2) + "\n")
