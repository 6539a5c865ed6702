"""CPU seconds to compile a training step, without anything kept from before.

python -m experiments.speed.compiling
"""

import time

import jax
import jax.numpy as jnp

from byol_jax.training import build
from configs import byol

CASES = {
    "default job": {},
    "tiny_resnet, 64 px": {
        "model.encoder": "tiny_resnet",
        "model.stem": "imagenet",
        "data.image_size": 64,
    },
}


def main() -> None:
    """Traces and compiles the step of each case."""
    for name, keys in CASES.items():
        config = byol.get_config()
        config.update_from_flattened_dict(keys)
        job = build.build(config)
        size = job.settings.batch_size
        images = jax.ShapeDtypeStruct((size, *job.images.train.images.shape[1:]), jnp.uint8)
        numbers = jax.ShapeDtypeStruct((size,), jnp.int32)
        batch = {"images": images, "labels": numbers, "place": numbers}
        lowered = jax.jit(job.update, donate_argnums=0).lower(job.state, batch)
        began, start = time.monotonic(), time.process_time()
        lowered.compile()
        used, passed = time.process_time() - start, time.monotonic() - began
        print(f"{name}: {used:.1f} CPU seconds, {passed:.1f} by the clock", flush=True)


if __name__ == "__main__":
    main()
