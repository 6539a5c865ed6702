"""The loss of one training step: the objective, and a classifier that only measures.

Shapes: b images of a device, P projection, C classes.
"""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax.augment import two_views
from byol_jax.metrics import accuracy
from byol_jax.models import byol_network
from byol_jax.objectives import byol, contract
from byol_jax.training import train_step


def make_loss(
    forward: hk.TransformedWithState,
    objective: contract.Objective | contract.Bound,
    *,
    axis: str | None = None,
) -> Callable[..., Any]:
    """Builds the loss of one step: the objective plus, with a classifier, its cross-entropy.

    Args:
      forward: as `byol_network.make_forward` gives it.
      objective: of the run; a row of the table stands for its defaults.
      axis: name of the mapped axis over devices, for objectives that compare all images.

    Returns:
      loss(online_params, state, views, labels, weights, key) -> (scalar, (metrics, online_state,
      target_state, objective_state, projection [b, P] of view 1)). Every view has its own pass, so
      that batch statistics are those of one view and running ones move twice. The target runs in
      training mode. ``weights`` [b] are those of `label_weights`; without them each label counts
      once. ``key`` is for objectives that draw.
    """
    bound = contract.bind(objective) if isinstance(objective, contract.Objective) else objective

    def loss_fn(
        online_params: Any,
        state: train_step.TrainState,
        views: two_views.Views,
        labels: jax.Array,
        weights: jax.Array | None = None,
        key: jax.Array | None = None,
    ):
        online, online_state = _both_views(forward, online_params, state.online_state, views)
        target, target_state = _target_projections(forward, bound, online, state, views)
        projections = tuple(o.projection for o in online)
        inputs = contract.Inputs(
            online=tuple(o.prediction for o in online) if bound.has_predictor else projections,
            target=target,
            projections=projections,
            params=contract.own_params(online_params),
            state=state.objective_state,
            step=state.step,
            key=key,
            axis=axis,
        )
        result = bound.evaluate(inputs)
        scalars = {
            "loss": result.loss,
            "repr_loss": result.loss,
            "target_cosine": byol.mean_cosine(inputs.online, target),
            **result.terms,
        }
        logits = online[0].logits  # of a stop-gradient embedding
        if logits is not None:
            scalars |= _probe_scalars(logits, labels, weights)
            scalars["loss"] = result.loss + scalars["online_loss"]
        aux = scalars, online_state, target_state, result.state, projections[0]
        return scalars["loss"], aux

    return loss_fn


def _target_projections(
    forward: hk.TransformedWithState,
    objective: contract.Bound,
    online: list[byol_network.Outputs],
    state: train_step.TrainState,
    views: two_views.Views,
) -> tuple[contract.Pair, Any]:
    """What the online outputs of both views are compared with, and the target's new state."""
    if objective.has_target_network:
        target, target_state = _both_views(
            forward, state.target_params, state.target_state, views, part="target"
        )
        return tuple(t.projection for t in target), target_state
    projections = tuple(o.projection for o in online)
    if objective.target == "stop_gradient":
        projections = jax.lax.stop_gradient(projections)
    return projections, state.target_state


def _probe_scalars(
    logits: jax.Array, labels: jax.Array, weights: jax.Array | None
) -> dict[str, jax.Array]:
    """Loss and accuracies of the classifier."""
    weights = jnp.ones(labels.shape) if weights is None else weights
    labels = jnp.maximum(labels, 0)  # those of -1 weigh nothing
    correct = accuracy.correct(logits, labels)
    return {
        "online_loss": jnp.mean(weights * byol.cross_entropy(logits, labels)),
        "online_top1": jnp.mean(weights * correct["top1"]),
        "online_top5": jnp.mean(weights * correct["top5"]),
    }


def _both_views(
    forward: hk.TransformedWithState,
    params: Any,
    state: Any,
    views: two_views.Views,
    **options: Any,
) -> tuple[list[byol_network.Outputs], Any]:
    outputs = []
    for view in views:
        output, state = forward.apply(params, state, None, view, is_training=True, **options)
        outputs.append(output)
    return outputs, state
