"""SimCLR (Chen et al. 2020, arXiv:2002.05709)."""

import dataclasses

import jax
import jax.numpy as jnp

from byol_jax.objectives import contract, infonce


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of SimCLR.

    Attributes:
      temperature: of the similarities.
    """

    temperature: float = 0.1


def simclr_loss(
    z: contract.Pair, *, temperature: float, axis: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """NT-Xent of each view: cross-entropy of the other view of an image among 2B - 1 candidates.

    The authors' code adds both, twice what the paper's equation 1 averages over 2B rows.

    Args:
      z: [b, P] projections of view 1 and of view 2.
      temperature: tau of the paper.
      axis: name of the mapped axis over devices, whose rows are candidates with a gradient.

    Returns:
      Two scalars, of this device's rows.
    """
    losses = []
    for anchors, other in (z, z[::-1]):
        positives, log_sums = infonce.candidates(
            anchors, anchors, other, temperature=temperature, axis=axis
        )
        losses.append(jnp.mean(log_sums - positives))
    return losses[0], losses[1]


def _evaluate(inputs: contract.Inputs, settings: Settings) -> contract.Result:
    view1, view2 = simclr_loss(inputs.online, temperature=settings.temperature, axis=inputs.axis)
    return contract.Result(view1 + view2, {"view1_loss": view1, "view2_loss": view2})


SIMCLR = contract.Objective(
    has_predictor=False,
    targets=("none",),
    settings=Settings,
    evaluate=_evaluate,
    compares_images=True,
)
