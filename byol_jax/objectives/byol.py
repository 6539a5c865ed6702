"""BYOL's losses on plain arrays (Grill et al. 2020, arXiv:2006.07733).

Shapes: b images of one device, P projection, C classes. A mean over a batch is a mean over b.
"""

import dataclasses
import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import optax

from byol_jax import config as config_lib
from byol_jax.objectives import contract, normalization
from byol_jax.objectives.normalization import l2_normalize


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of BYOL.

    Attributes:
      normalization: a key of `normalization.NORMALIZATIONS` (paper, table 20).
    """

    normalization: str = "l2"


def regression_loss(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Squared distance of the normalized rows, 2 - 2 cos (paper, equation 2).

    Args:
      prediction: [..., P] what the online network predicts.
      target: [..., P] what the target network makes of the other view.

    Returns:
      [...] values between 0 (same direction) and 4 (opposite).
    """
    return normalization.distance(prediction, target)


def byol_loss(
    online: tuple[jax.Array, jax.Array],
    target: tuple[jax.Array, jax.Array],
    distance: Callable[..., jax.Array] = regression_loss,
) -> jax.Array:
    """BYOL's symmetric loss (paper, section 3.1): a sum over both views, a mean over the batch.

    Args:
      online: [b, P] online predictions of view 1 and of view 2.
      target: [b, P] target projections of view 1 and of view 2; no gradient flows into them.
      distance: [b] of two of these; the default is the paper's.

    Returns:
      A scalar, between 0 and 8 by default.
    """
    chex.assert_equal_shape([*online, *target])
    target1, target2 = jax.lax.stop_gradient(target)
    online1, online2 = online
    return jnp.mean(distance(online1, target2) + distance(online2, target1))


def mean_cosine(
    online: tuple[jax.Array, jax.Array], target: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """Mean cosine, in [-1, 1], between what `byol_loss` compares: its loss is 4 - 4 cosines."""
    (online1, online2), (target1, target2) = online, target
    pairs = ((online1, target2), (online2, target1))
    return jnp.mean(
        jnp.stack([jnp.sum(l2_normalize(o) * l2_normalize(t), axis=-1) for o, t in pairs])
    )


def byol_terms(
    online: tuple[jax.Array, jax.Array],
    target: tuple[jax.Array, jax.Array],
    distance: Callable[..., jax.Array] = regression_loss,
) -> dict[str, jax.Array]:
    """The two terms of `byol_loss`, by default from 0 to 4, named by the view that predicts."""
    terms = zip(("view1_loss", "view2_loss"), online, reversed(target), strict=True)
    return {name: jnp.mean(distance(*pair)) for name, *pair in terms}


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy [b] of logits [b, C] and integer labels [b], in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


NETWORKS = ("ema", "copy", "frozen", "stop_gradient")  # `byol_loss` lets no gradient through


def _evaluate(inputs: contract.Inputs, settings: Settings) -> contract.Result:
    options = {"normalization": settings.normalization, "axis": inputs.axis}
    distance = functools.partial(normalization.distance, **options)
    pairs = inputs.online, inputs.target
    return contract.Result(byol_loss(*pairs, distance), byol_terms(*pairs, distance), inputs.state)


def _check(settings: Settings, sizes: contract.Sizes) -> None:
    del sizes
    table = normalization.NORMALIZATIONS
    config_lib.lookup(table, settings.normalization, key="objective.byol.normalization")


BYOL = contract.Objective(
    byol_loss,
    byol_terms,
    settings=Settings,
    evaluate=_evaluate,
    check=_check,
    has_predictor=True,
    predictor_is="optional",
    targets=NETWORKS,
)
BYOL_NO_PREDICTOR = contract.Objective(  # the paper's ablation
    byol_loss, byol_terms, has_predictor=False, targets=NETWORKS
)
