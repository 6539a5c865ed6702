"""DINO (Caron et al. 2021, arXiv:2104.14294), of two views: a projection is scores of classes."""

import dataclasses

import jax
import jax.numpy as jnp

from byol_jax.objectives import contract


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of DINO.

    Attributes:
      student_temperature: of the online network's scores.
      teacher_temperature: of the target's.
      center_momentum: of the mean of the target's scores, which is subtracted from them.
    """

    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    center_momentum: float = 0.9


def dino_loss(
    student: contract.Pair,
    teacher: contract.Pair,
    center: jax.Array,
    *,
    student_temperature: float,
    teacher_temperature: float,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of each view's classes, as the teacher sees the other view; halved.

    Args:
      student: [b, P] online projections of view 1 and of view 2.
      teacher: [b, P] target projections of view 1 and of view 2; no gradient flows into them.
      center: [P] of the steps before.
      student_temperature: tau_s of the paper.
      teacher_temperature: tau_t of the paper.

    Returns:
      Two scalars, of this device's rows; their sum is the loss.
    """
    losses = []
    for scores, other in zip(student, reversed(jax.lax.stop_gradient(teacher)), strict=True):
        classes = jax.nn.softmax((other - center) / teacher_temperature)
        logs = jax.nn.log_softmax(scores / student_temperature)
        losses.append(-jnp.mean(jnp.sum(classes * logs, axis=1)) / 2)
    return losses[0], losses[1]


def next_center(
    center: jax.Array, teacher: contract.Pair, *, momentum: float, axis: str | None = None
) -> jax.Array:
    """The running mean [P] of the teacher's scores of both views and all devices."""
    rows = jax.lax.stop_gradient(jnp.concatenate(teacher))
    mean = contract.mean_over_devices(jnp.mean(rows, axis=0), axis)
    return momentum * center + (1 - momentum) * mean


def _evaluate(inputs: contract.Inputs, settings: Settings) -> contract.Result:
    view1, view2 = dino_loss(
        inputs.online,
        inputs.target,
        inputs.state,
        student_temperature=settings.student_temperature,
        teacher_temperature=settings.teacher_temperature,
    )
    center = next_center(
        inputs.state, inputs.target, momentum=settings.center_momentum, axis=inputs.axis
    )
    return contract.Result(view1 + view2, {"view1_loss": view1, "view2_loss": view2}, center)


def _init(settings: Settings, key: jax.Array, sizes: contract.Sizes) -> contract.Own:
    del settings, key
    return contract.Own({}, jnp.zeros(sizes.projection))


DINO = contract.Objective(
    has_predictor=False,
    targets=("ema", "copy", "frozen"),
    settings=Settings,
    evaluate=_evaluate,
    init=_init,
    compares_images=True,
)
