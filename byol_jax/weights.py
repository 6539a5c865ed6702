"""What a file or folder of weights holds, whoever wrote it, without reading its arrays yet.

A run and its checkpoints are the project's own; DeepMind's ``.pkl`` files are read by `deepmind`.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections

from byol_jax import cards, checkpoint, deepmind, workdir
from byol_jax import config as config_lib

UsageError = config_lib.UsageError

DEEPMIND_LICENCE = (
    "DeepMind's released weights are under CC BY-NC 4.0 (no commercial use), and so is what is "
    "made from them."
)


class Network(NamedTuple):
    """A network by Haiku's names, on the host.

    Attributes:
      params: of the encoder and of those heads that there are.
      state: running batch-norm statistics.
    """

    params: Any
    state: Any


class Weights(NamedTuple):
    """What can be loaded from a path.

    Attributes:
      path: of the very checkpoint or file.
      format: a word for the kind of file.
      step: updates that made it; None if the file does not say.
      card: of the encoder.
      load: network by its name ("online", perhaps "target") and a function that reads it.
      config: of the run that made it; None if there is none.
      notes: what was assumed, since the file does not say it, and its licence.
    """

    path: str
    format: str
    step: int | None
    card: cards.Card
    load: dict[str, Callable[[], Network]]
    config: Any = None
    notes: tuple[str, ...] = ()


def open_weights(path: str) -> Weights:
    """Finds out what a path holds.

    Args:
      path: a run's workdir (its newest checkpoint), one of its ``checkpoints/<step>``, or a
        ``.pkl`` file of DeepMind's.

    Raises:
      UsageError: no such path, or nothing at it that can be used; says what is wrong.
    """
    file = pathlib.Path(path).expanduser()
    if path and file.is_file():
        return _open_pickle(file)
    return _open_run(path)


def load(found: Weights, network: str) -> Network:
    """Reads one of the networks.

    Args:
      found: where.
      network: "online" or "target".

    Raises:
      UsageError: there is no such network, or it is damaged.
    """
    if network not in found.load:
        raise UsageError(
            f"{found.path} has no {network} network. Valid: {', '.join(sorted(found.load))}."
        )
    return found.load[network]()


def _open_run(path: str) -> Weights:
    folder = checkpoint.find(path)
    run = folder.absolute().parent.parent
    config, data = _read_config(run / "config.json"), _read_data_card(run)
    try:
        card = cards.of_run(config, data.mean, data.std)
    except (AttributeError, KeyError) as error:
        text = " ".join(str(error.args[0]).split())
        raise UsageError(f"{run / 'config.json'} lacks a key of this version: {text}") from None

    def load(name: str) -> Network:
        return Network(*checkpoint.load_network(folder, cards.shapes(card)[0], name))

    loaders = {name: lambda name=name: load(name) for name in ("online", "target")}
    return Weights(str(folder), "run", int(folder.name), card, loaders, config)


def _read_data_card(run: pathlib.Path) -> workdir.DataCard:
    card = workdir.read_data_card(run)
    if card is None:
        raise UsageError(
            f"{run / 'data.json'} is missing, which says how the images of the checkpoint were "
            "normalised: copy it from the run's workdir, next to config.json."
        )
    return card


def _read_config(path: pathlib.Path) -> Any:
    try:
        config = ml_collections.ConfigDict(json.loads(path.read_text()))
        task = config.get("task")
    except FileNotFoundError:
        raise UsageError(
            f"{path} is missing, which says what network the checkpoint is of: copy it from the "
            "run's workdir, next to its folder 'checkpoints'."
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"Cannot read {path}: {error}. Copy it from the run's workdir.") from None
    if task != "pretrain":
        raise UsageError(f"{path} is of the task '{task}': give the workdir of a pretraining run.")
    return config


def _open_pickle(path: pathlib.Path) -> Weights:
    try:
        found = deepmind.load_pickle(path)
    except deepmind.UnsupportedPickle as error:
        raise UsageError(f"Cannot read {error}.") from None
    try:
        card = cards.recognise(found.online_params, padding="same")
        cards.require_encoder(card, found.online_params, found.online_state)
    except UsageError as error:
        raise UsageError(f"{path} {error}") from None
    notes = (
        f"image size {card.image_size} px is the custom, the file does not say it",
        "normalised by ImageNet's mean and deviation, as DeepMind's code does",
        DEEPMIND_LICENCE,
    )
    loaders = {
        "online": lambda: Network(found.online_params, found.online_state),
        "target": lambda: Network(found.target_params, found.target_state),
    }
    return Weights(str(path), "deepmind", found.step, card, loaders, None, notes)
