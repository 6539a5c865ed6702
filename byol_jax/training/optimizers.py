"""Optimizers and schedules as optax recipes.

Learning rates follow the linear scaling rule (paper, section 3.2): base rate x batch size / 256.
"""

import fnmatch
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from byol_jax import config as config_lib

Params = dict[str, dict[str, Any]]


def learning_rate_schedule(
    base_learning_rate: float, *, batch_size: int, total_steps: int, warmup_steps: int
) -> optax.Schedule:
    """Linear warm-up from 0 to base x batch / 256, then a cosine to 0 at ``total_steps``."""
    peak = base_learning_rate * batch_size / 256
    if not warmup_steps:
        return optax.cosine_decay_schedule(peak, total_steps)
    decay = optax.cosine_decay_schedule(peak, max(total_steps - warmup_steps, 1))
    return optax.join_schedules(
        [optax.linear_schedule(0.0, peak, warmup_steps), decay], [warmup_steps]
    )


def cosine(step: jax.Array, total_steps: jax.Array) -> jax.Array:
    """From 1 at step 0 to 0 at ``total_steps``, which may be an array."""
    return 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / total_steps, 1.0)))


def cosine_target_ema_schedule(base: float, *, total_steps: int) -> optax.Schedule:
    """tau from ``base`` to 1 by a cosine: 1 - (1 - base)(cos(pi k / K) + 1) / 2 (paper, 3.2)."""
    decay = optax.cosine_decay_schedule(1.0 - base, total_steps)
    return lambda step: 1.0 - decay(step)


def constant_target_ema_schedule(base: float, *, total_steps: int) -> optax.Schedule:
    """tau that stays at ``base``, as in the paper's ablation of the target network (table 5a)."""
    del total_steps
    return optax.constant_schedule(base)


TARGET_EMA_SCHEDULES = {
    "cosine": cosine_target_ema_schedule,
    "constant": constant_target_ema_schedule,
}


def is_adapted(params: Params) -> dict[str, dict[str, bool]]:
    """Marks the tensors that weight decay and the trust ratio apply to.

    Biases (named ``b``) and everything below a module with "norm" in its path are left out, as in
    the reference (paper, section 3.2: "excluded from both the LARS adaptation and weight decay").
    """
    return {
        module: {name: name != "b" and "norm" not in module for name in leaves}
        for module, leaves in params.items()
    }


def lars(
    learning_rate: optax.Schedule, *, weight_decay: float, momentum: float, trust_coefficient: float
) -> optax.GradientTransformation:
    """LARS (You et al., 2017) in the reference's order, with momentum before the learning rate.

    ``optax.lars`` multiplies by the learning rate first, so that its momentum remembers the rates
    of earlier steps: the two agree only while the rate is constant.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=is_adapted),
        optax.masked(optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient), is_adapted),
        optax.trace(decay=momentum),
        optax.scale_by_learning_rate(learning_rate),
    )


def sgd(
    learning_rate: optax.Schedule, *, weight_decay: float, momentum: float
) -> optax.GradientTransformation:
    """Momentum SGD with L2 regularization on all but biases and norm parameters."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=is_adapted),
        optax.trace(decay=momentum),
        optax.scale_by_learning_rate(learning_rate),
    )


def adamw(
    learning_rate: optax.Schedule, *, weight_decay: float, b1: float, b2: float
) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter, 2019); decay on all but biases and norm parameters."""
    return optax.adamw(learning_rate, b1=b1, b2=b2, weight_decay=weight_decay, mask=is_adapted)


class Recipe(NamedTuple):
    """An optimizer and the keys that it reads from ``config.optimizer[<its name>]``."""

    make: Any
    arguments: tuple[str, ...]


OPTIMIZERS = {
    "lars": Recipe(lars, ("weight_decay", "momentum", "trust_coefficient")),
    "sgd": Recipe(sgd, ("weight_decay", "momentum")),
    "adamw": Recipe(adamw, ("weight_decay", "b1", "b2")),
}


def parse_multipliers(text: str) -> dict[str, float]:
    """Factors of the learning rate by patterns of module names, such as ``predictor=10``.

    Args:
      text: several are separated by commas; the first pattern that fits a module counts.

    Raises:
      UsageError: it cannot be read.
    """
    found: dict[str, float] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        pattern, _, factor = (part.strip() for part in item.partition("="))
        try:
            found[pattern] = float(factor)
        except ValueError:
            found[pattern] = math.nan
        if not pattern or not 0 <= found[pattern] < math.inf:
            raise config_lib.UsageError(
                f"--config.optimizer.multipliers: '{item}' is not a module and a number from 0, "
                "such as predictor=10 or predictor=10,projector=2."
            )
    return found


def with_multipliers(
    optimizer: optax.GradientTransformation, multipliers: Mapping[str, float]
) -> optax.GradientTransformation:
    """The optimizer with other learning rates for some modules (paper, tables 21 and 22).

    Args:
      optimizer: whose last step is to multiply by the learning rate.
      multipliers: factor by pattern: a module's name, the beginning of one up to a slash, with
        stars, as in ``predictor`` or ``*/linear_1``. The first that fits counts; without any, it
        is 1.
    """
    if not multipliers:
        return optimizer

    def init(params: Params) -> optax.EmptyState:
        for pattern in multipliers:
            if not any(_fits(module, pattern) for module in params):
                raise config_lib.UsageError(
                    f"--config.optimizer.multipliers: no module fits '{pattern}'. Modules: "
                    f"{', '.join(_roots(params))}, and their parts, such as {list(params)[-1]}."
                )
        return optax.EmptyState()

    def update(updates: Params, state: optax.EmptyState, params: Any = None) -> Any:
        del params
        scaled = {
            module: {name: x * _factor(module, multipliers) for name, x in leaves.items()}
            for module, leaves in updates.items()
        }
        return scaled, state

    return optax.chain(optimizer, optax.GradientTransformation(init, update))


def _factor(module: str, multipliers: Mapping[str, float]) -> float:
    return next((f for pattern, f in multipliers.items() if _fits(module, pattern)), 1.0)


def _fits(module: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(module, name) for name in (pattern, f"{pattern}/*"))


def _roots(params: Params) -> list[str]:
    return sorted({module.split("/")[0] for module in params})


def ema(average: Params, new: Params, decay: jax.Array) -> Params:
    """decay x average + (1 - decay) x new (paper, equation 1) for every tensor of ``average``.

    ``new`` may hold more modules, such as a predictor, which the average does not keep.
    """
    return {
        module: {
            name: value + (1.0 - decay) * (new[module][name] - value)
            for name, value in leaves.items()
        }
        for module, leaves in average.items()
    }
