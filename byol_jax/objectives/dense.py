"""Losses of every pixel: cross-entropy with ignored labels, and the reverse Huber loss.

On several devices each loss is such that its mean over the devices is the loss of the whole batch,
however the counted pixels are spread over them.

Shapes: b images of one device, h x w pixels, C classes.
"""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(
    logits: jax.Array, labels: jax.Array, *, ignored: int, axis: str | None = None
) -> jax.Array:
    """Mean cross-entropy over the pixels of the batch that are not ignored, in nats.

    Args:
      logits: [b, h, w, C].
      labels: [b, h, w] integers below C, or ``ignored``.
      ignored: label of pixels that do not count.
      axis: name of the mapped axis whose devices share the batch.

    Returns:
      A scalar; 0, with zero gradient, if all pixels are ignored.
    """
    counted = labels != ignored
    safe = jnp.where(counted, labels, 0).astype(jnp.int32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, safe)
    return _mean(losses, counted, axis)


def reverse_huber(predicted: jax.Array, truth: jax.Array, *, axis: str | None = None) -> jax.Array:
    """Mean reverse Huber loss over the pixels of known depth (Laina et al. 2016, equation 2).

    |x| up to c, (x^2 + c^2) / 2c above it; c is a fifth of the largest |x| of the batch and
    constant for the gradient.

    Args:
      predicted: [b, h, w], in meters.
      truth: [b, h, w], in meters; 0 where it is unknown.
      axis: name of the mapped axis whose devices share the batch.

    Returns:
      A scalar; 0, with zero gradient, if no depth is known or all are met.
    """
    counted = truth > 0
    # JAX's slope of |x| at 0 is 1; a constant in its place has none.
    distance = jnp.abs(jnp.where(counted & (predicted != truth), predicted - truth, 0))
    largest = jax.lax.stop_gradient(jnp.max(distance))
    limit = 0.2 * (jax.lax.pmax(largest, axis) if axis else largest)
    divisor = jnp.where(limit > 0, limit, 1)
    squared = (jnp.square(distance) + jnp.square(limit)) / (2 * divisor)
    return _mean(jnp.where(distance <= limit, distance, squared), counted, axis)


def _mean(losses: jax.Array, counted: jax.Array, axis: str | None) -> jax.Array:
    total, count = jnp.sum(jnp.where(counted, losses, 0)), jnp.sum(counted)
    if axis:
        count = jax.lax.pmean(count.astype(losses.dtype), axis)
    return total / jnp.where(count > 0, count, 1)
