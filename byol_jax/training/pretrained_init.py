"""Networks that pretraining starts from, in place of drawn ones."""

from typing import Any

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import orbax_reader, sources, step_folders
from byol_jax.models import encoder_spec
from byol_jax.training import train_step
from byol_jax.workdir import console

UsageError = config_lib.UsageError

_BUILD = ("encoder", "width_multiplier", "resnet_v2", "stem", "padding", "norm", "norm_groups")
_BUILD += ("weight_standardization",)


def load_networks(
    path: str, state: train_step.TrainState, card: encoder_spec.EncoderSpec, *, objective: str = ""
) -> train_step.TrainState:
    """The networks of another run, or whatever of them an export or somebody's file holds.

    Without a target the online network is the target, too. Heads that the file lacks stay as drawn;
    so do those of another method that do not fit, which is said.

    Args:
      path: of the run or file.
      state: as it is drawn.
      card: of the encoder that the config builds.
      objective: name of the method that trains it now.

    Raises:
      UsageError: the file is of another encoder than the config builds, or its heads are others.
    """
    method, networks = _read(path, state, card)
    online = networks.get("online", networks.get("target"))
    target = networks.get("target", online)
    other: set[str] = set()
    if method not in ("", objective):
        other = _unfit_heads(state.online_params, online.params)
        if other:
            console.say(
                f"Note: {path} is of objective {method}: its {' and '.join(sorted(other))} would "
                f"not fit, and what {objective} needs is drawn anew."
            )

    def take(drawn: Any, found: Any) -> Any:
        kept = {m: x for m, x in found.items() if m.split("/")[0] not in other}
        return _take(path, drawn, kept)

    return state._replace(
        online_params=take(state.online_params, online.params),
        target_params=take(state.target_params, target.params),
        online_state=take(state.online_state, online.state),
        target_state=take(state.target_state, target.state),
    )


def _read(
    path: str, state: train_step.TrainState, card: encoder_spec.EncoderSpec
) -> tuple[str, dict[str, sources.Network]]:
    """The method that made a file, empty if it does not say, and the networks in it."""
    if sources.is_foreign(path):
        found = sources.open_weights(path)
        _require_same(found, card)
        networks = {name: sources.load(found, name) for name in found.load}
        return _method(found), networks
    method = ""
    if (step_folders.find(path).absolute().parents[1] / "config.json").exists():
        found = sources.open_weights(path)
        _require_same(found, card)
        method = _method(found)
    built = encoder_spec.encoder_modules(state.online_params)
    return method, orbax_reader.load_networks(path, built)


def _method(found: sources.Weights) -> str:
    return "" if found.config is None else found.config.objective.name


def _unfit_heads(drawn: Any, found: Any) -> set[str]:
    """Heads that both have, of other layers or sizes."""

    def head(tree: Any, name: str) -> dict[str, Any]:
        return {
            f"{module}/{key}": x.shape
            for module, leaves in tree.items()
            if module.split("/")[0] == name
            for key, x in leaves.items()
        }

    names = {module.split("/")[0] for module in drawn} & set(encoder_spec.HEADS)
    both = {name: (head(drawn, name), head(found, name)) for name in names - {"classifier"}}
    return {name for name, (ours, theirs) in both.items() if theirs and ours != theirs}


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
