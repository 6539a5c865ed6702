"""Pretraining: its state and one update, whatever the objective.

Shapes: D local devices, b images of a device, B of the global batch, P projection.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from byol_jax.augment import two_views
from byol_jax.distributed import pmap
from byol_jax.objectives import contract
from byol_jax.training import optimizers

# Which of the two drawn networks the target starts as.
TARGET_INITS = {"online": 0, "drawn": 1}
_OBJECTIVE = 2**31 - 1  # folded into a step's key for the objective


class TrainState(NamedTuple):
    """All that training changes, as arrays without a device axis."""

    step: jax.Array  # int32: updates done
    online_params: Any  # of the objective's own, too
    target_params: Any  # encoder and projector only; empty without a target network
    online_state: Any  # running batch-norm statistics
    target_state: Any
    opt_state: Any
    objective_state: Any = ()  # such as a queue


def init_state(
    forward: hk.TransformedWithState,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    image_size: int,
    target_init: str = "drawn",
    objective: contract.Bound | None = None,
    batch_size: int = 0,
) -> TrainState:
    """Draws online and target network from different keys, as the reference does.

    Args:
      forward: as `byol_network.make_forward` gives it.
      optimizer: of the online network.
      seed: of the parameters.
      image_size: of the views.
      target_init: a key of `TARGET_INITS`: equal to the online network, or drawn by itself.
      objective: draws parameters and state of its own; None: BYOL's, which has none.
      batch_size: of all devices together, for those.
    """
    images = jnp.zeros((2, image_size, image_size, 3))
    # Runs twice in its life, so compiling it without optimizations is what saves time.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = functools.partial(forward.init, is_training=True)
    draw = jax.jit(lambda key: init(key, images), compiler_options=options)
    keys = jax.random.split(jax.random.key(seed))
    online_params, online_state = draw(keys[0])
    own = contract.Own({}, ())
    if objective is not None:
        outputs, _ = jax.eval_shape(
            lambda: forward.apply(online_params, online_state, None, images, is_training=True)
        )
        sizes = contract.Sizes(outputs.projection.shape[-1], batch_size)
        own = objective.init(jax.random.fold_in(keys[0], 1), sizes)
        online_params = online_params | own.params
    target_params, target_state = {}, {}
    if objective is None or objective.has_target_network:
        target_params, target_state = (
            {module: drawn[module] for module in kept}
            for drawn, kept in zip(
                draw(keys[TARGET_INITS[target_init]]),
                jax.eval_shape(lambda: init(keys[1], images, part="target")),
                strict=True,
            )
        )
    return TrainState(
        jnp.zeros((), jnp.int32),
        online_params,
        target_params,
        online_state,
        target_state,
        optimizer.init(online_params),
        own.state,
    )


def label_weights(labels: jax.Array, *, axis: str | None) -> tuple[jax.Array, jax.Array]:
    """Weights [b] with which a mean over all images becomes one over those that have labels.

    That is a mean over the labeled images of the whole batch, however it is spread over devices and
    micro-batches; exactly 1 each if all have labels, and 0 if none has.

    Args:
      labels: [b] of this device; -1 without.
      axis: name of the mapped axis over devices; None outside of a map.

    Returns:
      The weights, and the fraction of the whole batch that has labels.
    """
    # Every device and part then takes a plain mean over all its images; the mean of these means,
    # which is all that is computed across devices, comes out weighted by labels.
    is_labeled = (labels >= 0).astype(jnp.float32)
    count, size = jnp.sum(is_labeled), labels.shape[0]
    if axis:
        count, size = jax.lax.psum((count, size), axis)
    return is_labeled * (size / jnp.maximum(count, 1)), count / size


def make_update(
    loss_fn: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    make_views: Callable[[jax.Array, two_views.Batch], two_views.Views],
    *,
    seed: int,
    learning_rate: optax.Schedule,
    target_ema: optax.Schedule | None,
    axis: str | None,
    parts: int = 1,
    average_state: bool = False,
    constrain: Callable[[contract.Params], contract.Params] | None = None,
) -> Callable[[TrainState, two_views.Batch], tuple[TrainState, dict[str, jax.Array], jax.Array]]:
    """Builds one step of training (paper, algorithm 1).

    Args:
      loss_fn: what `step_loss.make_loss` gives.
      optimizer: updates the online parameters, the probe's among them.
      make_views: (key, batch) -> two views, float [b, H, W, 3] in [0, 1]. It is called with each
        micro-batch, so that what it draws for an image may depend on its ``place`` alone.
      seed: of the augmentations; the key of a step depends on seed and step alone.
      learning_rate: for the metrics; the optimizer has its own.
      target_ema: tau of every step; None without a target network.
      axis: name of the mapped axis to average over; None outside of a map.
      parts: micro-batches, one after the other, whose gradients are averaged; each is normalized by
        itself and moves the running statistics. Optimizer and target move once, after the last.
      average_state: devices normalize apart from each other, so average what they remember of it.
      constrain: of the objective's own parameters, before each step.

    Returns:
      update(state, batch) -> (state, scalar metrics, projection [b, P] of view 1). Of a batch
      without labels, whose ``labeled_share`` is 0, the metrics of the classifier are 0 and say
      nothing.
    """

    grad_of_views = jax.grad(loss_fn, has_aux=True)

    def grad_of_images(online_params, state, key, batch, weights):
        views = make_views(key, batch)
        own_key = jax.random.fold_in(key, _OBJECTIVE)  # one that no view has
        return grad_of_views(online_params, state, views, batch["labels"], weights, key=own_key)

    grad = _in_micro_batches(grad_of_images, parts)

    def update(state: TrainState, batch: two_views.Batch):
        key = pmap.step_key(seed, state.step)
        weights, labeled_share = label_weights(batch["labels"], axis=axis)
        if constrain is not None:
            own = constrain(contract.own_params(state.online_params))
            state = state._replace(online_params=state.online_params | own)
        grads, (scalars, online_state, target_state, objective_state, projection) = grad(
            state.online_params, state, key, batch, weights
        )
        if axis:
            grads, scalars = jax.lax.pmean((grads, scalars), axis)
        if axis and average_state:
            online_state, target_state = _mean_state((online_state, target_state), axis)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.online_params)
        online_params = optax.apply_updates(state.online_params, updates)
        scalars |= {
            "labeled_share": labeled_share,
            "learning_rate": learning_rate(state.step),
            "gradient_norm": optax.tree.norm(grads),
        }
        target_params = state.target_params
        if target_ema is not None:
            scalars["tau"] = target_ema(state.step)
            target_params = optimizers.ema(target_params, online_params, scalars["tau"])
        state = TrainState(
            state.step + 1,
            online_params,
            target_params,
            online_state,
            target_state,
            opt_state,
            objective_state,
        )
        return state, scalars, projection

    return update


def _in_micro_batches(grad: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """The same function of a batch, computed a part of it at a time: means over the parts.

    Views are made of a part at a time, too: as floats, those of a whole batch take many times the
    memory of its images. Objectives that compare images, or have a state, are not computed so.
    """
    if parts == 1:
        return grad

    def accumulated(online_params: Any, state: TrainState, key: jax.Array, *batch: Any):
        def one(carry: Any, part: Any):
            total, online_state, target_state = carry
            state_now = state._replace(online_state=online_state, target_state=target_state)
            grads, (scalars, online_state, target_state, _, projection) = grad(
                online_params, state_now, key, *part
            )
            total = jax.tree.map(jnp.add, total, grads)
            return (total, online_state, target_state), (scalars, projection)

        # A scan, so that the next part begins when the one before has left nothing but its sums:
        # unrolled, XLA may run parts side by side, with the memory of all of them.
        split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
        start = jax.tree.map(jnp.zeros_like, online_params), state.online_state, state.target_state
        (total, online_state, target_state), (scalars, projection) = jax.lax.scan(one, start, split)
        grads = jax.tree.map(lambda x: x / parts, total)
        scalars = jax.tree.map(lambda x: jnp.mean(x, axis=0), scalars)
        projection = projection.reshape(-1, projection.shape[-1])  # [N, b / N, P] -> [b, P]
        aux = scalars, online_state, target_state, state.objective_state, projection
        return grads, aux

    return accumulated


def _mean_state(state: Any, axis: str) -> Any:
    """Running statistics averaged over devices; counters, which agree, are left."""
    return jax.tree.map(
        lambda x: jax.lax.pmean(x, axis) if jnp.issubdtype(x.dtype, jnp.floating) else x, state
    )
