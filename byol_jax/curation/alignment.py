"""How alike two pictures are once one is moved and scaled onto the other.

A near-duplicate that was cropped shows the same things some pixels further on. So one picture is
moved and scaled to fit the other by a few steps of Gauss and Newton (Lucas and Kanade 1981), in
both directions, of which the better counts.

Shapes: n pairs, T side of a picture.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.workdir import console

SIDE = 32  # T
STEPS = 4
MOST_SHIFT = 0.1  # of a side
MOST_SCALE = 0.15  # by which one may be larger
NOISE = (2 / 255) ** 2  # variance of a value below which pictures do not differ
BLOCK = 256  # pairs compared at once


def shrink(pixels: np.ndarray) -> np.ndarray:
    """One picture, uint8 [H, W, 3], as float32 [T, T, 3] in [-0.5, 0.5]."""
    rows, columns = (_area_weights(size) for size in pixels.shape[:2])
    small = np.tensordot(rows, pixels.astype(np.float32), (1, 0))
    return np.tensordot(small, columns, (1, 1)).transpose(0, 2, 1) / np.float32(255) - np.float32(
        0.5
    )


@functools.lru_cache(maxsize=64)
def _area_weights(size: int) -> np.ndarray:
    """[T, size]: each of T equal parts of a side is the mean of the pixels that it covers."""
    edges = np.arange(SIDE + 1) * size / SIDE
    pixels = np.arange(size)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    weights = np.maximum(high - low, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def pool(pictures: np.ndarray, side: int) -> np.ndarray:
    """Pictures float32 [N, T, T, 3] as smaller ones, of a side that divides T."""
    count, factor = len(pictures), pictures.shape[1] // side
    return pictures.reshape(count, side, factor, side, factor, 3).mean(axis=(2, 4))


def similarity(pictures: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """How alike pairs of pictures are: 1 if they are equal, 0 or less if they are unrelated.

    It is 1 less their squared difference over the sum of their own variances.

    Args:
      pictures: float32 [N, T, T, 3], as `shrink` and `pool` give them.
      pairs: int [n, 2], which to compare.

    Returns:
      float32 [n].
    """
    found = np.empty(len(pairs), np.float32)
    bar = console.progress_bar(total=len(pairs), unit="pair", title="comparing", delay=2)
    for start in console.shown(bar, range(0, len(pairs), BLOCK), BLOCK):
        part = pairs[start : start + BLOCK]
        padded = np.pad(part, [(0, BLOCK - len(part)), (0, 0)])
        found[start : start + BLOCK] = _compare(*pictures[padded.T])[: len(part)]
    return found


@jax.jit
def _compare(first: jax.Array, second: jax.Array) -> jax.Array:
    aligned = jax.vmap(_aligned)
    return jnp.maximum(aligned(first, second), aligned(second, first))


def _aligned(moved: jax.Array, fixed: jax.Array) -> jax.Array:
    """The best similarity of two pictures [T, T, 3] while one is moved and scaled."""
    side = len(fixed)
    place = (jnp.arange(side) + 0.5) / side - 0.5
    limit = jnp.array([MOST_SHIFT, MOST_SHIFT, MOST_SCALE, MOST_SCALE])

    def step(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        where, best = state
        warped = _warp(moved, where, place)
        best = jnp.maximum(best, _similarity(warped, fixed))
        down, right = jnp.gradient(warped, 1 / side, axis=(0, 1))
        slopes = (down, right, down * place[:, None, None], right * place[None, :, None])
        jacobian = jnp.stack(slopes).reshape(4, -1)
        matrix = jacobian @ jacobian.T
        ridge = 1e-3 * jnp.diag(jnp.diag(matrix)) + 1e-6 * jnp.eye(4)
        change = jnp.linalg.solve(matrix + ridge, jacobian @ (fixed - warped).ravel())
        return jnp.clip(where + change, -limit, limit), best

    start = (jnp.zeros(4), jnp.float32(-jnp.inf))
    where, best = jax.lax.fori_loop(0, STEPS, step, start)
    return jnp.maximum(best, _similarity(_warp(moved, where, place), fixed))


def _warp(picture: jax.Array, where: jax.Array, place: jax.Array) -> jax.Array:
    """What is at (1 + scale) * place + shift, linear between pixels; beyond an edge its value.

    Args:
      picture: [T, T, 3].
      where: shifts down and right in sides, then scales.
      place: [T] of the pixels, from -0.5 to 0.5.
    """

    side = len(picture)

    def weights(shift: jax.Array, scale: jax.Array) -> jax.Array:
        wanted = ((1 + scale) * place + shift + 0.5) * side - 0.5
        distance = jnp.clip(wanted, 0, side - 1)[:, None] - jnp.arange(side)
        return jnp.maximum(1 - jnp.abs(distance), 0)

    rows, columns = weights(where[0], where[2]), weights(where[1], where[3])
    return jnp.einsum("yh,hwc,xw->yxc", rows, picture, columns)


def _similarity(first: jax.Array, second: jax.Array) -> jax.Array:
    own = first.var(axis=(0, 1)).sum() + second.var(axis=(0, 1)).sum() + 6 * NOISE
    return 1 - ((first - second) ** 2).mean(axis=(0, 1)).sum() / own
