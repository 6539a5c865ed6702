"""The contract between an objective and the trainer: what it gets, what it gives, what it needs.

Shapes: b images of one device, B of the whole batch, P projection.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from byol_jax import config as config_lib

Pair = tuple[jax.Array, jax.Array]  # of view 1, of view 2
Params = dict[str, dict[str, jax.Array]]
UsageError = config_lib.UsageError

PREFIX = "objective/"  # of the modules that hold an objective's own parameters


class Inputs(NamedTuple):
    """What an objective gets on one device.

    Attributes:
      online: [b, P] predictions of both views; without a predictor, projections.
      target: [b, P] what they are compared with: projections of the target network, or of the
        online network itself, as the kind of target says. No gradient flows into them unless that
        kind is "none".
      projections: [b, P] of the online network, before its predictor.
      params: of the objective's own, as `Own.params`.
      state: of the objective, as `Own.state`; the same on all devices.
      step: updates done.
      key: random key of the step, the same on all devices.
      axis: name of the mapped axis over devices; None outside of a map.
    """

    online: Pair
    target: Pair
    projections: Pair
    params: Params
    state: Any
    step: jax.Array | int
    key: jax.Array | None
    axis: str | None


class Result(NamedTuple):
    """What an objective gives on one device.

    Attributes:
      loss: a scalar; the loss of the whole batch is its mean over devices.
      terms: scalars to be logged, by name; means over devices are, too.
      state: after the step; has to be the same on all devices.
    """

    loss: jax.Array
    terms: Mapping[str, jax.Array]
    state: Any = ()


class Sizes(NamedTuple):
    """What the shapes of an objective's own parameters and state depend on.

    Attributes:
      projection: P.
      batch: B.
    """

    projection: int
    batch: int


class Own(NamedTuple):
    """Parameters and state of an objective, at the start of a run.

    Attributes:
      params: trained with the network; the names of modules begin with `PREFIX`.
      state: such as a queue; saved with each checkpoint.
    """

    params: Params
    state: Any


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """Of an objective without keys of its own."""


# Kinds of target, and whether it is a network of its own.
TARGETS: Mapping[str, bool] = {
    "ema": True,  # moving average of the online network (paper, equation 1)
    "copy": True,  # the online network as it was after the last step: tau = 0
    "frozen": True,  # as drawn: tau = 1
    "stop_gradient": False,  # the online network itself, without a gradient
    "none": False,  # the online network itself, with one
}


class Objective(NamedTuple):
    """What tells one self-supervised method from another.

    Simple ones give `loss` and `terms` of two pairs of arrays. `evaluate` takes their place in
    those that see more than that: the other devices, parameters or a state of their own.

    Attributes:
      loss: scalar of (online view 1, view 2) and (target view 1, view 2), each [b, P].
      terms: scalars that the loss is made of, by name, of the same arguments; to be logged.
      has_predictor: compare predictions with the target, else the online projections.
      predictor_is: "optional" if ``objective.predictor`` may say otherwise than `has_predictor`.
      targets: kinds of target that it can have; the first is its own.
      settings: a frozen dataclass whose fields are the keys of ``objective.<name>``.
      evaluate: (inputs, settings) -> result.
      init: (settings, key, sizes) -> own parameters and state.
      constrain: own parameters as they have to be before each step, such as of unit norm.
      compares_images: the loss of an image depends on the others of the batch, or on a state that
        a step changes, so that micro-batches would be another method.
      check: raises `UsageError` for settings that do not fit the sizes.
    """

    loss: Callable[..., jax.Array] | None = None
    terms: Callable[..., Mapping[str, jax.Array]] | None = None
    has_predictor: bool = True
    predictor_is: Literal["optional", "fixed"] = "fixed"
    targets: tuple[str, ...] = ("ema", "copy", "frozen", "stop_gradient", "none")
    settings: type = NoSettings
    evaluate: Callable[[Inputs, Any], Result] | None = None
    init: Callable[[Any, jax.Array, Sizes], Own] | None = None
    constrain: Callable[[Params], Params] | None = None
    compares_images: bool = False
    check: Callable[[Any, Sizes], None] | None = None


class Bound(NamedTuple):
    """An objective with the settings of a run.

    Attributes:
      objective: the row of the table.
      settings: an instance of its `Objective.settings`.
      has_predictor: whether predictions are compared.
      target: a key of `TARGETS`.
    """

    objective: Objective
    settings: Any
    has_predictor: bool
    target: str

    @property
    def has_target_network(self) -> bool:
        """Whether there is a second network."""
        return TARGETS[self.target]

    def evaluate(self, inputs: Inputs) -> Result:
        """Loss, terms and next state of one step."""
        if self.objective.evaluate is not None:
            return self.objective.evaluate(inputs, self.settings)
        compared = inputs.online, inputs.target
        terms = self.objective.terms(*compared) if self.objective.terms else {}
        return Result(self.objective.loss(*compared), terms, inputs.state)

    def init(self, key: jax.Array, sizes: Sizes) -> Own:
        """Own parameters and state at the start; empty if it has none."""
        if self.objective.init is None:
            return Own({}, ())
        return self.objective.init(self.settings, key, sizes)


def bind(
    objective: Objective,
    settings: Any = None,
    *,
    predictor: bool | None = None,
    target: str | None = None,
) -> Bound:
    """An objective as it is used; what is not given is the method's own.

    Args:
      objective: the row of the table.
      settings: an instance of its `Objective.settings`; None: the defaults.
      predictor: whether predictions are compared with the target.
      target: a key of `TARGETS`.
    """
    return Bound(
        objective,
        objective.settings() if settings is None else settings,
        objective.has_predictor if predictor is None else predictor,
        target or objective.targets[0],
    )


def own_params(params: Params) -> Params:
    """The objective's own among the parameters of the online network."""
    return {module: leaves for module, leaves in params.items() if module.startswith(PREFIX)}


def check_queue(name: str, size: int, batch: int) -> None:
    """Raises `UsageError` unless whole batches fill the queue of an objective."""
    if size % batch:
        below = size - size % batch
        near = f"{below} or {below + batch}" if below else f"{batch}"
        raise UsageError(
            f"--config.objective.{name}.queue_size={size} is no multiple of "
            f"--config.batch_size={batch}: take {near}."
        )


# Of the whole batch.


def gather(x: jax.Array, axis: str | None) -> jax.Array:
    """Rows of all devices, [b, ...] -> [B, ...] in their order; gradients flow back to each.

    The gradient of a device's loss reaches the rows of the others, so that the mean over devices of
    their gradients is that of the mean of their losses.
    """
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def first_row(x: jax.Array, axis: str | None) -> jax.Array | int:
    """The place in the whole batch of a device's first row."""
    return 0 if axis is None else x.shape[0] * jax.lax.axis_index(axis)


def mean_over_devices(x: jax.Array, axis: str | None) -> jax.Array:
    """The mean over devices; gradients flow back to each."""
    return x if axis is None else jax.lax.pmean(x, axis)


def product(x: jax.Array, y: jax.Array) -> jax.Array:
    """A matrix product in full precision on every device: small temperatures magnify its errors."""
    return jnp.matmul(x, y, precision="highest")
