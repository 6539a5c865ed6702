"""SimSiam (Chen and He 2020, arXiv:2011.10566)."""

import jax

from byol_jax.objectives import byol, contract


def simsiam_loss(online: contract.Pair, target: contract.Pair) -> jax.Array:
    """The negative mean cosine of predictions and the other view's projections (equation 2).

    It is `byol_loss` / 4 - 1. The stop-gradient is the caller's: without it the method collapses.

    Args:
      online: [b, P] predictions of view 1 and of view 2.
      target: [b, P] projections of view 1 and of view 2.

    Returns:
      A scalar between -1 and 1.
    """
    return -byol.mean_cosine(online, target)


SIMSIAM = contract.Objective(
    simsiam_loss,
    has_predictor=True,
    targets=("stop_gradient", "none"),
)
