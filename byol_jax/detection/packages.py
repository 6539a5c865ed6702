"""Whether PyTorch and torchvision are there, which only detection needs; imports neither."""

from byol_jax import config as config_lib
from byol_jax.export import torch_export

UsageError = config_lib.UsageError


def require() -> None:
    """Raises unless torch and torchvision are installed, and work together.

    Raises:
      UsageError: naming the command that installs them.
    """
    if not torch_export.has("torch", "torchvision"):
        raise UsageError(
            "Detection is trained by torchvision, which is not installed: pip install "
            "'byol_jax[detection]', or in a copy of the sources: pip install '.[detection]'."
        )


def versions() -> dict[str, str]:
    """Of both, by name."""
    names = ("torch", "torchvision")
    return {name: torch_export.version(name).partition(" ")[2] for name in names}
