"""Run Away From your Teacher (Shi et al. 2020, arXiv:2011.10944)."""

import dataclasses

import jax
import jax.numpy as jnp

from byol_jax.objectives import byol, contract


@dataclasses.dataclass(frozen=True)
class Settings:
    """Weights of the two terms; a negative second one is the paper's BYOL'."""

    alignment_weight: float = 1.0
    escape_weight: float = 1.0


def raft_terms(online: contract.Pair, target: contract.Pair) -> tuple[jax.Array, jax.Array]:
    """How far both views are apart, and how far each is from its mean teacher.

    By the triangle inequality BYOL's loss is at most 4 x the sum of both: what BYOL minimizes is
    bounded by alignment *plus* the distance from the teacher, of which RAFT takes the difference.

    Args:
      online: [b, P] predictions of view 1 and of view 2.
      target: [b, P] target projections of view 1 and of view 2; no gradient flows into them.

    Returns:
      Two scalars between 0 and 4: squared distances of the normalized rows.
    """
    target = jax.lax.stop_gradient(target)
    alignment = jnp.mean(byol.regression_loss(*online))
    distances = [byol.regression_loss(o, t) for o, t in zip(online, target, strict=True)]
    return alignment, jnp.mean(jnp.stack(distances))


def _evaluate(inputs: contract.Inputs, settings: Settings) -> contract.Result:
    alignment, distance = raft_terms(inputs.online, inputs.target)
    loss = settings.alignment_weight * alignment - settings.escape_weight * distance
    return contract.Result(loss, {"alignment_loss": alignment, "teacher_distance": distance})


RAFT = contract.Objective(
    has_predictor=True,
    targets=("ema", "copy", "frozen"),
    settings=Settings,
    evaluate=_evaluate,
)
