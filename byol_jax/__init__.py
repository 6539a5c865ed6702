"""Bootstrap Your Own Latent (Grill et al., 2020, arXiv:2006.07733) in JAX and Haiku.

The names below are those of `byol_jax.api` and `byol_jax.registry`, imported when one of them is
used: importing this package alone starts neither JAX nor NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byol_jax.api import (
        ArrayDataset,
        Classifier,
        Encoder,
        Index,
        Run,
        UsageError,
        evaluate,
        evaluate_knn,
        evaluate_linear,
        export,
        load_classifier,
        load_dataset,
        load_encoder,
        pretrain,
    )
    from byol_jax.registry import (
        register_augmentation,
        register_dataset,
        register_encoder,
        register_objective,
    )

__version__ = "0.1.0"

__all__ = [
    "ArrayDataset",
    "Classifier",
    "Encoder",
    "Index",
    "Run",
    "UsageError",
    "__version__",
    "evaluate",
    "evaluate_knn",
    "evaluate_linear",
    "export",
    "load_classifier",
    "load_dataset",
    "load_encoder",
    "pretrain",
    "register_augmentation",
    "register_dataset",
    "register_encoder",
    "register_objective",
]


def __getattr__(name: str) -> Any:
    """A public name, at its first use (PEP 562)."""
    if name == "export":  # the subpackage, which can be called
        return importlib.import_module("byol_jax.export")
    if name not in __all__:
        raise AttributeError(f"module 'byol_jax' has no attribute '{name}'")
    module = "registry" if name.startswith("register_") else "api"
    found = getattr(importlib.import_module(f"byol_jax.{module}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
