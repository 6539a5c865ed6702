"""A step of this package, on views that are in memory."""

import functools
import time
from collections.abc import Callable

import jax
import numpy as np

from byol_jax.models import byol_network, convolution, cpu_conv
from byol_jax.objectives import table
from byol_jax.training import optimizers, step_loss, train_step
from experiments.speed import cases


def without_forms() -> None:
    """Has XLA compute everything as it comes."""
    cpu_conv.is_special = lambda *_: False
    convolution._cpu_max_pool = convolution._plain_max_pool


def make(case: cases.Case) -> tuple[Callable[[], object], float]:
    """A function that does the work once, and how many seconds compiling took."""
    forward = byol_network.make_forward(
        case.encoder,
        num_classes=0,
        stem=case.stem,
        padding="torch",  # projects where torchvision does
        projector_hidden_size=cases.HIDDEN,
        projector_output_size=cases.OUTPUT,
        predictor_hidden_size=cases.HIDDEN,
    )
    optimizer = optimizers.lars(
        lambda step: cases.LEARNING_RATE,
        weight_decay=cases.WEIGHT_DECAY,
        momentum=cases.MOMENTUM,
        trust_coefficient=cases.TRUST,
    )
    state = train_step.init_state(forward, optimizer, seed=0, image_size=case.size)
    shape = (2, case.batch_size, case.size, case.size, 3)
    views = np.random.default_rng(0).random(shape, np.float32)
    return (_train if case.trains else _extract)(forward, optimizer, state, views)


def _train(forward, optimizer, state, views):
    update = train_step.make_update(
        step_loss.make_loss(forward, table.OBJECTIVES["byol"]),
        optimizer,
        lambda key, batch: (batch["view1"], batch["view2"]),
        seed=0,
        learning_rate=lambda step: cases.LEARNING_RATE,
        target_ema=lambda step: cases.TAU,
        axis=None,
    )
    labels = np.full(views.shape[1], -1, np.int32)
    batch = jax.device_put({"view1": views[0], "view2": views[1], "labels": labels})
    began = time.perf_counter()
    run = jax.jit(update, donate_argnums=0).lower(state, batch).compile()
    seconds = time.perf_counter() - began

    def step():
        nonlocal state
        state, metrics, _ = run(state, batch)
        return jax.block_until_ready((state, metrics))

    return step, seconds


def _extract(forward, optimizer, state, views):
    images = jax.device_put(views[0])
    encode = functools.partial(forward.apply, is_training=False, part="encoder")
    arguments = (state.online_params, state.online_state, None, images)
    began = time.perf_counter()
    run = jax.jit(encode).lower(*arguments).compile()
    seconds = time.perf_counter() - began
    return lambda: jax.block_until_ready(run(*arguments)), seconds
