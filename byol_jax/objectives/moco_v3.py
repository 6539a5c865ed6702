"""MoCo v3 (Chen et al. 2021, arXiv:2104.02057)."""

import dataclasses

import jax
import jax.numpy as jnp

from byol_jax.objectives import contract, infonce


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of MoCo v3.

    Attributes:
      temperature: of the similarities; 1 for ResNets, 0.2 for transformers.
    """

    temperature: float = 1.0


def moco_v3_loss(
    queries: contract.Pair, keys: contract.Pair, *, temperature: float, axis: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of each view's queries against the other view's keys of the whole batch.

    Each is multiplied by 2 x temperature, as in the authors' code, which makes it equation 8 of the
    BYOL paper at weight 1 without negatives of the same view.

    Args:
      queries: [b, P] predictions of view 1 and of view 2.
      keys: [b, P] target projections of view 1 and of view 2; no gradient flows into them.
      temperature: tau of the paper.
      axis: name of the mapped axis over devices, whose keys are candidates.

    Returns:
      Two scalars, of this device's rows.
    """
    keys = jax.lax.stop_gradient(keys)
    losses = []
    for anchors, other in zip(queries, reversed(keys), strict=True):
        positives, log_sums = infonce.candidates(
            anchors, None, other, temperature=temperature, axis=axis
        )
        losses.append(2 * temperature * jnp.mean(log_sums - positives))
    return losses[0], losses[1]


def _evaluate(inputs: contract.Inputs, settings: Settings) -> contract.Result:
    view1, view2 = moco_v3_loss(
        inputs.online, inputs.target, temperature=settings.temperature, axis=inputs.axis
    )
    return contract.Result(view1 + view2, {"view1_loss": view1, "view2_loss": view2})


MOCO_V3 = contract.Objective(
    has_predictor=True,
    predictor_is="optional",
    targets=("ema", "copy", "frozen", "stop_gradient"),
    settings=Settings,
    evaluate=_evaluate,
    compares_images=True,
)
