"""What named accelerators can do, as their makers say, and how long a run takes on one by that.

Peaks are of dense products in bfloat16 (float16 on Volta and Turing), from the data sheets of one
GPU, or of one TPU chip. What a training step reaches of them is `resource_estimate.USUAL_SHARE`.
"""

from typing import NamedTuple

from byol_jax.training import resource_estimate


class Accelerator(NamedTuple):
    """One chip.

    Attributes:
      flops: operations a second.
      bandwidth: bytes a second that its memory reads and writes.
      memory: bytes.
    """

    flops: float
    bandwidth: float
    memory: float


ACCELERATORS = {
    "NVIDIA T4": Accelerator(65e12, 320e9, 16e9),
    "NVIDIA L4": Accelerator(121e12, 300e9, 24e9),
    "NVIDIA RTX 4090": Accelerator(165e12, 1008e9, 24e9),
    "NVIDIA V100": Accelerator(125e12, 900e9, 32e9),
    "NVIDIA A100 80 GB": Accelerator(312e12, 2039e9, 80e9),
    "NVIDIA H100": Accelerator(989e12, 3350e9, 80e9),
    "TPU v3": Accelerator(123e12, 900e9, 32e9),
    "TPU v4": Accelerator(275e12, 1228e9, 32e9),
    "TPU v5e": Accelerator(197e12, 819e9, 16e9),
    "TPU v5p": Accelerator(459e12, 2765e9, 95e9),
    "TPU v6e": Accelerator(918e12, 1640e9, 32e9),
}


class Bounds(NamedTuple):
    """Seconds of a step on one chip, which takes the larger of both at least.

    Attributes:
      computing: at the usual fraction of the peak.
      memory: at the full bandwidth; None where nobody knows what is read and written.
      fits: whether the whole batch finds room.
    """

    computing: float
    memory: float | None
    fits: bool

    @property
    def seconds(self) -> float:
        """The larger bound."""
        return max(self.computing, self.memory or 0.0)


def bounds(chip: Accelerator, *, flops: float, moved: float | None, kept: float | None) -> Bounds:
    """What a step takes on one chip.

    Args:
      chip: where.
      flops: of the step.
      moved: bytes that it reads and writes.
      kept: bytes that it needs at once.
    """
    computing = flops / (resource_estimate.USUAL_SHARE * chip.flops)
    memory = None if moved is None else moved / chip.bandwidth
    return Bounds(computing, memory, kept is None or kept <= chip.memory)
