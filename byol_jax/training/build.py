"""From a config to the parts of a run: networks, optimizer, augmentations, data.

Only here is a config read; what it builds takes plain arguments.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import optax

from byol_jax import config as config_lib
from byol_jax.augment import image_ops, two_views
from byol_jax.data import agreement, data_cards, datasets, eval_loader, train_loader
from byol_jax.distributed import pmap
from byol_jax.models import byol_network, encoder_spec, inference, microbatch
from byol_jax.objectives import byol
from byol_jax.training import (
    config_checks,
    online_eval,
    optimizers,
    paper_settings,
    precision,
    pretrained_init,
    train_step,
)
from byol_jax.workdir import run_folder

UsageError = config_lib.UsageError
lookup = config_lib.lookup


class Job(NamedTuple):
    """Everything that a run is made of; building it writes nothing."""

    train: datasets.Dataset
    test: datasets.Dataset
    data_card: run_folder.DataCard
    forward: hk.TransformedWithState
    optimizer: optax.GradientTransformation
    update: Callable[..., Any]
    state: train_step.TrainState
    total_steps: int
    warmup_steps: int
    settings: paper_settings.Settings
    settings_source: str  # where those are from that the config leaves unset


def build(
    config: Any,
    data_card: run_folder.DataCard | None = None,
    *,
    train: datasets.Dataset | None = None,
    test: datasets.Dataset | None = None,
) -> Job:
    """Builds and checks all parts of a run.

    Args:
      config: of the run.
      data_card: what an earlier part of the same run found out about its data.
      train: images to train on; None: those of ``data.train_split``.
      test: images that probes measure; None: those of ``data.eval_split``.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    config_checks.check(config)
    objective = lookup(byol.OBJECTIVES, config.objective.name, key="objective.name")
    train = _open(config, config.data.train_split, train)
    test = _open(config, config.data.eval_split, test)
    config_checks.check_sizes(config, train)
    data_card = data_cards.describe(config, train, data_card)
    train, test = (datasets.with_grey_ranges(d, data_card.grey_ranges) for d in (train, test))
    total_steps = config_lib.total_steps(config, num_images=train.num_images)
    if total_steps < 1:
        raise UsageError(
            f"The run would have {total_steps} steps: set total_steps or total_epochs higher."
        )
    settings, source = make_settings(config, total_steps, train.num_images)
    warmup_steps = config_lib.warmup_steps(
        config,
        num_images=train.num_images,
        total_steps=total_steps,
        warmup_epochs=settings.warmup_epochs,
    )
    forward = make_forward(config, data_card)
    optimizer, learning_rate = make_optimizer(config, settings, total_steps, warmup_steps)
    make_target_ema = lookup(
        optimizers.TARGET_EMA_SCHEDULES,
        config.objective.target_ema_schedule,
        key="objective.target_ema_schedule",
    )
    axis = pmap.reduction_axis()
    is_exact = config.accumulate_statistics == "exact"
    update = train_step.make_update(
        train_step.make_loss(make_train_forward(config, data_card, axis=axis), objective),
        optimizer,
        make_views(config, batch_size=config.batch_size),
        seed=config.seed,
        learning_rate=learning_rate,
        target_ema=make_target_ema(settings.base_target_ema, total_steps=total_steps),
        axis=axis,
        parts=1 if is_exact else config.accumulate,
        average_state=pmap.groups(config.model.bn_group_size) is not None,
    )
    state = train_step.init_state(
        forward, optimizer, seed=config.seed, image_size=config.data.image_size
    )
    if config.checkpoint:
        card = encoder_spec.of_run(config, data_card.mean, data_card.std)
        state = pretrained_init.load_networks(config.checkpoint, state, card)
    return Job(
        train,
        test,
        data_card,
        forward,
        optimizer,
        update,
        state,
        total_steps,
        warmup_steps,
        settings,
        source,
    )


def _open(config: Any, split: str, given: datasets.Dataset | None) -> datasets.Dataset:
    """A split of the config's set, or what was given in its place, known by its content."""
    if given is None:
        return datasets.load(config.data.name, split, data_dir=config.data.dir)
    if isinstance(given, datasets.ArrayDataset):
        return given.replace(fingerprint=agreement.digest(given))
    return given


def make_forward(
    config: Any, data_card: run_folder.DataCard, **training: Any
) -> hk.TransformedWithState:
    """The network of a config, to draw its parameters or to use it once it is trained.

    Args:
      config: of the run.
      data_card: of its data.
      training: what `byol_network.make_forward` takes besides, and changes no parameter.
    """
    model = config.model
    return byol_network.make_forward(
        model.encoder,
        num_classes=data_card.num_classes,
        width_multiplier=model.width_multiplier,
        resnet_v2=model.resnet_v2,
        stem=model.stem,
        zero_init_residual=model.zero_init_residual,
        padding=model.padding,
        projector_hidden_size=model.projector_hidden_size,
        projector_output_size=model.projector_output_size,
        predictor_hidden_size=model.predictor_hidden_size,
        bn_decay_rate=model.bn_decay_rate,
        bn_eps=model.bn_eps,
        mean=data_card.mean,
        std=data_card.std,
        **training,
    )


def make_train_forward(
    config: Any, data_card: run_folder.DataCard, *, axis: str | None
) -> hk.TransformedWithState:
    """The same as training runs it: over devices, in fewer bits, or in less memory."""
    is_exact = config.accumulate_statistics == "exact"
    return make_forward(
        config,
        data_card,
        axis=axis,
        bn_groups=pmap.groups(config.model.bn_group_size),
        dtype=config_checks.DTYPES[config.model.dtype or precision.default()],
        plan=microbatch.Plan(config.model.remat, config.accumulate if is_exact else 1),
    )


def make_settings(
    config: Any, total_steps: int, num_images: int
) -> tuple[paper_settings.Settings, str]:
    """What the config says about the schedules, and where it is from what it leaves unset."""
    epochs = config.total_epochs
    if config.total_steps is not None:
        epochs = total_steps * config.batch_size / num_images
    unset, source = paper_settings.settings(
        epochs=epochs, batch_size=config.batch_size, num_images=num_images
    )
    section = config.optimizer[config.optimizer.name]
    given = paper_settings.Settings(
        section.base_learning_rate,
        section.weight_decay,
        config.objective.base_target_ema,
        config.optimizer.warmup_epochs,
    )
    filled = {
        name: unset._asdict()[name] for name, value in given._asdict().items() if value is None
    }
    listed = ", ".join(f"{name} {value:.6g}" for name, value in filled.items())
    return given._replace(**filled), f"{listed}; {source}" if filled else ""


def make_optimizer(
    config: Any, settings: paper_settings.Settings, total_steps: int, warmup_steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a config and its learning rate; each optimizer has settings of its own."""
    name = config.optimizer.name
    recipe = optimizers.OPTIMIZERS[name]
    learning_rate = optimizers.learning_rate_schedule(
        settings.base_learning_rate,
        batch_size=config.batch_size,
        total_steps=total_steps,
        warmup_steps=warmup_steps,
    )
    arguments = {argument: config.optimizer[name][argument] for argument in recipe.arguments}
    arguments["weight_decay"] = settings.weight_decay
    return recipe.make(learning_rate, **arguments), learning_rate


def make_probe(
    config: Any, job: Job
) -> Callable[[int, train_step.TrainState], online_eval.Measured]:
    """Builds probe(step, state): what the online encoder makes of ``data.eval_split``.

    The untrained network of step 0 has no running batch-norm statistics to be judged with: a few
    batches of plain training images give it some. Step 0 also scores raw pixels for comparison;
    there and at the last step a linear probe is trained too.
    """
    train, test = (data.take(config.probe.max_images) for data in (job.train, job.test))
    batch_size = min(256, train.num_images)
    size = config.data.image_size
    calibrate = inference.make_calibrate(job.forward, image_size=size)
    scores = online_eval.Probe(
        train,
        test,
        inference.make_encode(job.forward, image_size=size),
        batch_size=batch_size,
        image_size=size,
        k=config.probe.k,
        temperature=config.probe.temperature,
        bad=eval_loader.BadLimit([job.train, job.test], config.data.max_bad_share),
    )

    def probe(step: int, state: train_step.TrainState) -> online_eval.Measured:
        params, bn_state = jax.device_get((state.online_params, state.online_state))
        if step == 0:
            update = functools.partial(calibrate, params)
            bn_state = scores.calibrate(update, bn_state)
        linear = step in (0, job.total_steps)
        raw = scores.score_raw_pixels() if step == 0 else {}
        found = scores.measure(params, bn_state, linear=linear)
        return found._replace(scalars=found.scalars | raw)

    return probe


def make_crop(config: Any) -> train_loader.Crop:
    """How the host cuts views of encoded images."""
    section = config.augment.crop
    return train_loader.Crop(config.data.image_size, (section.min_area, section.max_area))


def make_train_batches(config: Any, data: datasets.Dataset) -> train_loader.TrainBatches:
    """The training batches of this process."""
    return train_loader.TrainBatches(
        data,
        batch_size=config.batch_size // jax.process_count(),
        seed=config.seed,
        crop=make_crop(config),
        reading=train_loader.Reading(config.data.threads, config.data.workers),
        max_bad_share=config.data.max_bad_share,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def make_views(config: Any, *, batch_size: int | None = None) -> Callable[..., Any]:
    """The augmentations of a config, of whole batches or of parts of them."""
    view1, view2 = (
        image_ops.View(**{field: section[field] for field in image_ops.View._fields})
        for section in (config.augment.view1, config.augment.view2)
    )
    section = config.augment.crop
    return two_views.make_views(
        view1,
        view2,
        image_size=config.data.image_size,
        area_range=(section.min_area, section.max_area),
        method=section.method,
        batch_size=batch_size,
    )
