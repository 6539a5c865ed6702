"""Networks that pretraining starts from, in place of drawn ones."""

from typing import Any

import numpy as np

from byol_jax import cards, checkpoint, pretrain, weights
from byol_jax import config as config_lib

UsageError = config_lib.UsageError


def load_networks(path: str, state: pretrain.TrainState) -> pretrain.TrainState:
    """The networks of another run, or whatever of them an export or somebody's file holds.

    Without a target the online network is the target, too; heads that the file lacks stay as drawn.

    Raises:
      UsageError: the file is of another encoder than the config builds, or its heads are others.
    """
    if not weights.is_foreign(path):
        return checkpoint.load_networks(path, state)
    found = weights.open_weights(path)
    online = weights.load(found, "online" if "online" in found.load else "target")
    target = weights.load(found, "target") if "target" in found.load else online
    return state._replace(
        online_params=_take(path, state.online_params, online.params),
        target_params=_take(path, state.target_params, target.params),
        online_state=_take(path, state.online_state, online.state),
        target_state=_take(path, state.target_state, target.state),
    )


def _take(path: str, drawn: Any, found: Any) -> Any:
    """A tree in which modules of a file replace those of their names; classifiers must fit."""
    taken = dict(drawn)
    for module, leaves in drawn.items():
        head = module.split("/")[0]
        if module not in found:
            if head not in cards.HEADS:
                raise UsageError(f"{path} is of another encoder: it lacks {module}.")
            continue
        shapes = [{name: x.shape for name, x in tree[module].items()} for tree in (drawn, found)]
        if shapes[0] == shapes[1]:
            taken[module] = {name: np.asarray(found[module][name]) for name in leaves}
        elif head != "classifier":  # of other classes
            raise UsageError(
                f"{path} holds {module} of {shapes[1]}, the config builds {shapes[0]}: set "
                "--config.model.* as in the file."
            )
    return taken
