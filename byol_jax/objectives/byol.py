"""Self-supervised losses on plain arrays, and a table of them.

Shapes: b images of one device, P projection, C classes. A mean over a batch is a mean over b.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax


def l2_normalize(x: jax.Array, *, epsilon: float = 1e-12) -> jax.Array:
    """Scales the last axis to unit length; rows shorter than sqrt(epsilon) shrink towards 0."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), epsilon))


def regression_loss(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Squared distance of the normalized rows, 2 - 2 cos (paper, equation 2).

    Args:
      prediction: [..., P] what the online network predicts.
      target: [..., P] what the target network makes of the other view.

    Returns:
      [...] values between 0 (same direction) and 4 (opposite).
    """
    difference = l2_normalize(prediction) - l2_normalize(target)
    return jnp.sum(jnp.square(difference), axis=-1)


def byol_loss(
    online: tuple[jax.Array, jax.Array], target: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """BYOL's symmetric loss (paper, section 3.1): a sum over both views, a mean over the batch.

    Args:
      online: [b, P] online predictions of view 1 and of view 2.
      target: [b, P] target projections of view 1 and of view 2; no gradient flows into them.

    Returns:
      A scalar between 0 and 8.
    """
    chex.assert_equal_shape([*online, *target])
    target1, target2 = jax.lax.stop_gradient(target)
    online1, online2 = online
    return jnp.mean(regression_loss(online1, target2) + regression_loss(online2, target1))


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
    online: tuple[jax.Array, jax.Array], target: tuple[jax.Array, jax.Array]
) -> dict[str, jax.Array]:
    """The two terms of `byol_loss`, each between 0 and 4: the view that predicts gives the name."""
    terms = zip(("view1_loss", "view2_loss"), online, reversed(target), strict=True)
    return {name: jnp.mean(regression_loss(*pair)) for name, *pair in terms}


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy [b] of logits [b, C] and integer labels [b], in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


class Objective(NamedTuple):
    """What tells one self-supervised method from another.

    Attributes:
      loss: scalar loss of (online view 1, view 2) and (target view 1, view 2), each [b, P].
      terms: scalars that the loss is made of, by name, of the same arguments; to be logged.
      has_predictor: compare predictions with the target, else the online projections.
    """

    loss: Callable[..., jax.Array]
    terms: Callable[..., dict[str, jax.Array]]
    has_predictor: bool


OBJECTIVES = {
    "byol": Objective(byol_loss, byol_terms, has_predictor=True),
    "byol_no_predictor": Objective(
        byol_loss, byol_terms, has_predictor=False
    ),  # the paper's ablation
}
