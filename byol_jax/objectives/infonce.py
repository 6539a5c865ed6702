"""The bridge between BYOL and contrastive learning: InfoNCE with a weight on its negatives."""

import dataclasses

import jax
import jax.numpy as jnp

from byol_jax.objectives import contract
from byol_jax.objectives.byol import l2_normalize


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of equation 8.

    Attributes:
      temperature: alpha, of the similarities.
      weight: beta, of the negatives: 0 leaves BYOL's attraction, 1 is InfoNCE.
    """

    temperature: float = 0.1
    weight: float = 1.0


def candidates(
    anchors: jax.Array,
    same: jax.Array | None,
    other: jax.Array,
    *,
    temperature: float,
    axis: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Scores the positive of each anchor among the candidates of the whole batch.

    Args:
      anchors: [b, P] of one view.
      same: [b, P] of the same view, of which the anchor's own image is no candidate; None: no
        candidates of that view.
      other: [b, P] of the other view, whose row of the same image is the positive.
      temperature: divides the cosines.
      axis: name of the mapped axis over devices, whose rows are candidates, too.

    Returns:
      [b] scores of the positives, [b] logarithms of the summed exponentials of all candidates.
    """
    anchors, other = l2_normalize(anchors), l2_normalize(other)
    positives = jnp.sum(anchors * other, axis=-1) / temperature
    scores = contract.product(anchors, contract.gather(other, axis).T) / temperature  # [b, B]
    if same is not None:
        everyone = contract.gather(l2_normalize(same), axis)
        others = contract.product(anchors, everyone.T) / temperature
        own = contract.first_row(anchors, axis) + jnp.arange(anchors.shape[0])
        is_own = own[:, None] == jnp.arange(everyone.shape[0])
        scores = jnp.concatenate([jnp.where(is_own, -jnp.inf, others), scores], axis=1)
    return positives, jax.nn.logsumexp(scores, axis=1)


def infonce_loss(
    online: contract.Pair,
    target: contract.Pair,
    *,
    temperature: float,
    weight: float,
    axis: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The negative of the paper's equation 8 for each view as the one that predicts.

    Their sum is 2 cosines less than 0 at weight 0, which is `byol_loss` - 4; at weight 1 with the
    same arrays for both, 2 x temperature x `simclr_loss`.

    Args:
      online: [b, P] phi of view 1 and of view 2.
      target: [b, P] psi of view 1 and of view 2.
      temperature: alpha.
      weight: beta.
      axis: name of the mapped axis over devices.

    Returns:
      Two scalars, of this device's rows.
    """
    losses = []
    for anchors, same, other in ((online[0], *target), (online[1], *reversed(target))):
        positives, log_sums = candidates(anchors, same, other, temperature=temperature, axis=axis)
        losses.append(2 * temperature * jnp.mean(weight * log_sums - positives))
    return losses[0], losses[1]


def _evaluate(inputs: contract.Inputs, settings: Settings) -> contract.Result:
    view1, view2 = infonce_loss(
        inputs.online,
        inputs.target,
        temperature=settings.temperature,
        weight=settings.weight,
        axis=inputs.axis,
    )
    return contract.Result(view1 + view2, {"view1_loss": view1, "view2_loss": view2})


INFONCE = contract.Objective(
    has_predictor=True,
    predictor_is="optional",
    settings=Settings,
    evaluate=_evaluate,
    compares_images=True,
)
