"""Memory and computation of a training step, as the compiled program tells, for ways to save both.

    python -m experiments.scale.memory --config=configs/byol.py:imagenette [--config.KEY=VALUE]

Nothing is trained and no image is read.
"""

import functools

import jax
import numpy as np
from absl import app
from ml_collections import config_flags

from byol_jax.objectives import byol
from byol_jax.training import build, optimizers, resource_estimate, train_step
from byol_jax.training import settings as settings_lib
from byol_jax.workdir import run_folder

WAYS = {
    "as it is": {},
    "remat": {"model.remat": True},
    "bfloat16": {"model.dtype": "bfloat16"},
    "bfloat16, remat": {"model.dtype": "bfloat16", "model.remat": True},
    "accumulate=4": {"accumulate": 4},
    "accumulate=4, remat": {"accumulate": 4, "model.remat": True},
    "accumulate=4, exact": {"accumulate": 4, "accumulate_statistics": "exact"},
}
CARD = run_folder.DataCard(1_281_167, 1000, "", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CONFIG = config_flags.DEFINE_config_file("config", "configs/byol.py:imagenet-100")


def abstract_state(forward, optimizer, size):
    """Shapes of what training keeps."""
    images = jax.ShapeDtypeStruct((2, size, size, 3), np.float32)
    online, target = (
        jax.eval_shape(
            functools.partial(forward.init, is_training=True, part=part), jax.random.key(0), images
        )
        for part in ("online", "target")
    )
    step = jax.ShapeDtypeStruct((), np.int32)
    opt_state = jax.eval_shape(optimizer.init, online[0])
    return train_step.TrainState(step, online[0], target[0], online[1], target[1], opt_state)


def make(settings):
    """Loss and update of a run on one device, with abstract arrays to call them with."""
    size = settings.data.image_size
    loss = train_step.make_loss(
        build.make_train_forward(settings, CARD, axis=None),
        byol.OBJECTIVES[settings.objective.name],
    )
    optimizer = optimizers.lars(
        lambda step: 0.1, weight_decay=1e-6, momentum=0.9, trust_coefficient=1e-3
    )
    update = train_step.make_update(
        loss,
        optimizer,
        build.make_views(settings.augment, image_size=size),
        seed=0,
        learning_rate=lambda step: 0.1,
        target_ema=lambda step: 0.99,
        axis=None,
        parts=settings.micro_batches,
    )
    state = abstract_state(build.make_forward(settings, CARD), optimizer, size)
    return loss, update, state


def compiled_bytes(settings, update, state):
    """Temporary buffers of the compiled step."""
    view, labels = abstract_view(settings, settings.batch_size, np.uint8)
    batch = {"view1": view, "view2": view, "labels": labels}
    compiled = jax.jit(update, donate_argnums=0).lower(state, batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def kept_bytes(settings, loss, state):
    """What differentiation keeps from the forward for the backward pass, but for parameters."""

    def backward(params, state, views, labels):
        return jax.vjp(lambda p: loss(p, state, views, labels), params, has_aux=True)[1]

    view, labels = abstract_view(
        settings, settings.batch_size // settings.micro_batches, np.float32
    )
    kept = jax.eval_shape(backward, state.online_params, state, (view, view), labels)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.online_params)]
    arrays = [leaf for leaf in jax.tree.leaves(kept) if leaf.shape not in shapes]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in arrays)


def abstract_view(settings, count, dtype):
    """Images and labels of so many examples."""
    size = settings.data.image_size
    images = jax.ShapeDtypeStruct((count, size, size, 3), dtype)
    return images, jax.ShapeDtypeStruct((count,), np.int32)


def main(_):
    """Prints a table, a row as soon as it is known."""
    print("| way | kept for the gradient, MB | compiled for this device, MB | GFLOP by formula |")
    print("|---|---|---|---|")
    first = None
    for name, overrides in WAYS.items():
        config = with_values(CONFIG.value, overrides)
        settings = settings_lib.resolve(config, num_images=CARD.num_images)
        loss, update, state = make(settings)
        found = (
            kept_bytes(settings, loss, state) / 1e6,
            compiled_bytes(settings, update, state) / 1e6,
            settings.batch_size * resource_estimate.flops_of_an_image(settings) / 1e9,
        )
        first = first or found
        cells = [f"{x:,.0f} ({x / y:.0%})" for x, y in zip(found, first, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def with_values(config, overrides):
    """The config with other values."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(overrides)
    return copy


if __name__ == "__main__":
    app.run(main)
