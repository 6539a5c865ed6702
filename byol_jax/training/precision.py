"""In how many bits a run computes: what its config leaves to the device, and what is said of it."""

import pathlib
from typing import Any

import jax

from byol_jax.checkpoints import run_facts

# Of float32 numbers, by the platform, unless JAX is told otherwise.
_PRODUCTS = {
    "gpu": "in TF32 where the GPU has it, which keeps 10 bits",
    "tpu": "in one pass of bfloat16, which keeps 7 bits",
    "cpu": "in float32",
}


def default() -> str:
    """The type of convolutions and linear layers where a config leaves it to the device."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def dtype_of(config: Any, workdir: pathlib.Path) -> str:
    """``model.dtype``, or where the config leaves it open, that of the run in the workdir.

    Without a run the device decides. A run keeps what it began with on whatever it goes on.
    """
    if config.model.dtype is not None:
        return config.model.dtype
    stored = run_facts.read(workdir, run_facts.CONFIG, warn=lambda _: None)  # who compares warns
    return stored.get("model", {}).get("dtype", "float32") if stored else default()


def describe(dtype: str) -> str:
    """What a person should know who compares numbers of two machines; one line."""
    products = jax.config.jax_default_matmul_precision
    how = f"by JAX_DEFAULT_MATMUL_PRECISION={products}" if products else ""
    how = how or _PRODUCTS.get(jax.default_backend(), "as the device does it by default")
    return (
        f"Training computes convolutions and linear layers in {dtype} (model.dtype); products of "
        f"float32 numbers are computed {how}."
    )
