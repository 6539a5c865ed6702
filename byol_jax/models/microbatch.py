"""Works through a batch in parts, so that it need not fit into memory as a whole.

Batch norm makes this a choice. Either every part is normalized with moments of its own, and the
parts are independent (`train_step.make_update`). Or all are normalized with those of the whole
batch, as if there were no parts: then no layer can begin before all parts have passed the norm
below it, and the parts have to advance through the network side by side (`advance`).

Letters in shapes: N parts, b images of the whole batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax.models.batch_norm import BatchNorm, Moments

Normalize = Callable[[BatchNorm, jax.Array], jax.Array]
Unit = Callable[[jax.Array, Normalize], jax.Array]


class Plan(NamedTuple):
    """How to get through a unit of a network, such as a residual block, in training.

    Attributes:
      remat: keep the input of a unit only and compute its inside again for the gradient.
      parts: number of parts N that advance side by side; above 1 this implies `remat`.
    """

    remat: bool = False
    parts: int = 1


PLAIN = Plan()


def advance(
    unit: Unit,
    x: jax.Array,
    passes: Sequence[Sequence[BatchNorm]],
    *,
    is_training: bool,
    plan: Plan,
) -> jax.Array:
    """Runs ``unit(x, normalize)``, which gives every batch norm to ``normalize`` with its input.

    In parts, the batch's moments are found norm by norm: all parts run up to the first norm, whose
    moments are then known; again from the start up to the second, and so on. A unit with n passes
    is run n + 1 times, at most, and never holds more than its input and output for the whole batch.

    Args:
      unit: a function of images [b, ...], each of which depends on itself alone but for the norms.
      x: [b, ...]; N divides b.
      passes: all norms of the unit, in groups whose inputs depend on norms of groups before alone.
      is_training: running statistics are used if not, and nothing is saved by parts.
      plan: what to save.
    """

    def whole(x: jax.Array) -> jax.Array:
        return unit(x, lambda norm, y: norm(y, is_training))

    # Without training nothing is kept for a gradient; in init parameters are made, which must not
    # happen in the body of a loop.
    if not is_training or hk.running_init() or plan == PLAIN:
        return whole(x)
    if plan.parts == 1:
        return hk.remat(whole)(x)
    return _in_parts(unit, x, passes, plan.parts)


def _in_parts(
    unit: Unit, x: jax.Array, passes: Sequence[Sequence[BatchNorm]], parts: int
) -> jax.Array:
    split = x.reshape(parts, -1, *x.shape[1:])  # [b, ...] -> [N, b / N, ...]
    known: dict[BatchNorm, Moments] = {}
    for norms in passes:
        for norm, moments in zip(norms, _measure(unit, split, norms, dict(known)), strict=True):
            known[norm] = norm.synchronize(moments)
            norm.remember(known[norm])
    y = _for_each(lambda part: unit(part, lambda norm, z: norm.normalize(z, known[norm])), split)
    return y.reshape(-1, *y.shape[2:])


def _measure(
    unit: Unit, split: jax.Array, norms: Sequence[BatchNorm], known: dict[BatchNorm, Moments]
) -> list[Moments]:
    """The moments of all parts together at some norms; those of all norms before are known."""

    def of_a_part(part: jax.Array) -> list[Moments]:
        found: dict[BatchNorm, Moments] = {}

        def normalize(norm: BatchNorm, y: jax.Array) -> jax.Array:
            if norm in known:
                return norm.normalize(y, known[norm])
            found[norm] = norm.measure(y)
            return y  # nothing that comes after is used, so the compiler leaves it out

        unit(part, normalize)
        return [found[norm] for norm in norms]

    # Parts are equally large, and means of squares instead of variances are kept, so that the mean
    # over parts is that of the whole batch.
    return jax.tree.map(lambda m: jnp.mean(m, axis=0), _for_each(of_a_part, split))


def _for_each(run: Callable[[jax.Array], Any], split: jax.Array) -> Any:
    """Results [N, ...] of one part after the other; only the parts are kept for the gradient."""
    # In a loop nothing can be merged with the forward pass: no barriers against it are needed.
    return jax.lax.map(jax.checkpoint(run, prevent_cse=False), split)
