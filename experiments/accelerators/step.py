"""The project's own training step, with abstract arrays to compile it with."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax.training import build, objective_setup, train_step
from byol_jax.training import settings as settings_lib
from byol_jax.workdir import run_folder
from configs import byol

IMAGENET = run_folder.DataCard(1_281_167, 1000, "", byol.IMAGENET_MEAN, byol.IMAGENET_STD)
CIFAR = run_folder.DataCard(50_000, 10, "", (0.491, 0.482, 0.447), (0.247, 0.243, 0.262))


class Model(NamedTuple):
    """A network and its data.

    Attributes:
      preset: of configs/byol.py.
      overrides: of its values.
      card: of the data.
      is_streamed: whether the host cuts the views.
    """

    preset: str
    overrides: dict[str, Any]
    card: run_folder.DataCard
    is_streamed: bool


MODELS = {
    "micro_resnet": Model("cifar10", {}, CIFAR, False),
    "resnet18": Model(
        "cifar10", {"model.encoder": "resnet18", "model.stem": "cifar"}, CIFAR, False
    ),
    "resnet50": Model("imagenet-300", {}, IMAGENET, True),
}


class Step(NamedTuple):
    """An update and what it is called with: shapes of a state and of a batch [D, b, ...]."""

    settings: settings_lib.PretrainSettings
    update: Any
    state: train_step.TrainState
    batch: dict[str, jax.ShapeDtypeStruct]


def make(model: str, dtype: str, *, images: int, devices: int) -> Step:
    """One step of so many images a device; this process needs as many (simulated) devices."""
    found = MODELS[model]
    config = byol.get_config(found.preset)
    config.update_from_flattened_dict(found.overrides)
    config.batch_size, config.model.dtype = images * devices, dtype
    settings = settings_lib.resolve(config, num_images=found.card.num_images)
    objective = objective_setup.make_objective(settings.objective, predictor_head="mlp")
    optimizer, learning_rate = build.make_optimizer(settings)
    update = build.make_update(settings, found.card, objective, optimizer, learning_rate)
    draw = functools.partial(
        train_step.init_state,
        build.make_forward(settings, found.card),
        optimizer,
        seed=0,
        image_size=settings.data.image_size,
        objective=objective,
        batch_size=settings.batch_size,
    )
    shape = (devices, images, settings.data.image_size, settings.data.image_size, 3)
    names = ("view1", "view2") if found.is_streamed else ("images",)
    batch = {name: jax.ShapeDtypeStruct(shape, np.uint8) for name in names}
    for name in ("labels", "place"):
        batch[name] = jax.ShapeDtypeStruct((devices, images), np.int32)
    return Step(settings, update, jax.eval_shape(draw), batch)
