"""Networks that pretraining starts from, in place of drawn ones."""

from typing import Any

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import orbax_reader, sources, step_folders
from byol_jax.models import encoder_spec
from byol_jax.training import train_step

UsageError = config_lib.UsageError

_BUILD = ("encoder", "width_multiplier", "resnet_v2", "stem", "padding")


def load_networks(
    path: str, state: train_step.TrainState, card: encoder_spec.EncoderSpec
) -> train_step.TrainState:
    """The networks of another run, or whatever of them an export or somebody's file holds.

    Without a target the online network is the target, too; heads that the file lacks stay as drawn.

    Args:
      path: of the run or file.
      state: as it is drawn.
      card: of the encoder that the config builds.

    Raises:
      UsageError: the file is of another encoder than the config builds, or its heads are others.
    """
    if not sources.is_foreign(path):
        loaded = orbax_reader.load_networks(path, state)
        if (step_folders.find(path).absolute().parents[1] / "config.json").exists():
            _require_same(sources.open_weights(path), card)
        return loaded
    found = sources.open_weights(path)
    _require_same(found, card)
    online = sources.load(found, "online" if "online" in found.load else "target")
    target = sources.load(found, "target") if "target" in found.load else online
    return state._replace(
        online_params=_take(path, state.online_params, online.params),
        target_params=_take(path, state.target_params, target.params),
        online_state=_take(path, state.online_state, online.state),
        target_state=_take(path, state.target_state, target.state),
    )


def _require_same(found: sources.Weights, card: encoder_spec.EncoderSpec) -> None:
    """Another padding, for one, has the same shapes and gives other embeddings."""
    theirs, ours = ([getattr(c, key) for key in _BUILD] for c in (found.card, card))
    if theirs != ours:
        differing = [
            f"--config.model.{key}={value}"
            for key, value, built in zip(_BUILD, theirs, ours, strict=True)
            if value != built
        ]
        raise UsageError(
            f"{found.path} is of another encoder than the config builds: set {' '.join(differing)}."
        )


def _take(path: str, drawn: Any, found: Any) -> Any:
    """A tree in which modules of a file replace those of their names; classifiers must fit."""
    taken = dict(drawn)
    for module, leaves in drawn.items():
        head = module.split("/")[0]
        if module not in found:
            continue  # a head: the encoder was compared before
        shapes = [{name: x.shape for name, x in tree[module].items()} for tree in (drawn, found)]
        if shapes[0] == shapes[1]:
            taken[module] = {name: np.asarray(found[module][name]) for name in leaves}
        elif head != "classifier":  # of other classes
            raise UsageError(
                f"{path} holds {module} of {shapes[1]}, the config builds {shapes[0]}: set "
                "--config.model.* as in the file."
            )
    return taken
