"""From a config to the parts of a run: networks, optimizer, augmentations, data.

`resolve` alone reads a config; what follows takes the settings that it gives, or sections of them.
"""

import functools
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import haiku as hk
import jax
import optax

from byol_jax import config as config_lib
from byol_jax.augment import two_views
from byol_jax.data import agreement, data_cards, datasets, eval_loader, train_loader
from byol_jax.distributed import pmap
from byol_jax.models import encoder_spec, inference, microbatch
from byol_jax.objectives import contract, directpred
from byol_jax.training import (
    config_checks,
    objective_setup,
    online_eval,
    optimizers,
    pretrained_init,
    step_loss,
    train_step,
)
from byol_jax.training import settings as settings_lib
from byol_jax.workdir import run_folder

PretrainSettings = settings_lib.PretrainSettings


class Images(NamedTuple):
    """The data of a run.

    Attributes:
      train: images to train on.
      test: images that probes measure.
      card: what has to stay the same about them.
    """

    train: datasets.Dataset
    test: datasets.Dataset
    card: run_folder.DataCard


class Job(NamedTuple):
    """Everything that a run is made of; building it writes nothing."""

    settings: PretrainSettings
    images: Images
    forward: hk.TransformedWithState
    update: Callable[..., Any]
    state: train_step.TrainState


def resolve(
    config: Any,
    data_card: run_folder.DataCard | None = None,
    *,
    train: datasets.Dataset | None = None,
    test: datasets.Dataset | None = None,
    typed: Collection[str] = (),
    chosen: Mapping[str, str] = types.MappingProxyType({}),
) -> tuple[PretrainSettings, Images]:
    """Checks a config, opens its data, and settles all that the config leaves open.

    Args:
      config: of the run.
      data_card: what an earlier part of the same run found out about its data.
      train: images to train on; None: those of ``data.train_split``.
      test: images that probes measure; None: those of ``data.eval_split``.
      typed: dotted keys whose values a person gave on top of the preset.
      chosen: who chose what neither a person nor the preset did, by dotted key.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    config_checks.check(config)
    data = config_lib.freeze(settings_lib.Data, config.data, prefix="data.")
    train = _open(data, data.train_split, train)
    test = _open(data, data.eval_split, test)
    config_checks.check_sizes(config, train)
    found = settings_lib.resolve(config, num_images=train.num_images, typed=typed, chosen=chosen)
    card = data_cards.describe(
        train, data_card, name=data.name, mean=data.mean, std=data.std, image_size=data.image_size
    )
    train, test = (datasets.with_grey_ranges(d, card.grey_ranges) for d in (train, test))
    return found, Images(train, test, card)


def _open(data: settings_lib.Data, split: str, given: datasets.Dataset | None) -> datasets.Dataset:
    """A split of the config's set, or what was given in its place, known by its content."""
    if given is None:
        return datasets.load(data.name, split, data_dir=data.dir, labels=data.labels)
    if isinstance(given, datasets.ArrayDataset):
        return given.replace(fingerprint=agreement.digest(given))
    return given


def build(config: Any, data_card: run_folder.DataCard | None = None, **given: Any) -> Job:
    """Builds all parts of a run; arguments and errors are those of `resolve`."""
    return assemble(*resolve(config, data_card, **given))


def assemble(settings: PretrainSettings, images: Images) -> Job:
    """The parts of a run whose settings and data are known.

    Raises:
      UsageError: ``checkpoint`` holds no networks, or others than the settings build.
    """
    forward = make_forward(settings, images.card)
    objective = objective_setup.make_objective(
        settings.objective, predictor_head=settings.model.predictor
    )
    optimizer, learning_rate = make_optimizer(settings)
    state = train_step.init_state(
        forward,
        optimizer,
        seed=settings.seed,
        image_size=settings.data.image_size,
        target_init=settings.objective.target_init,
        objective=objective,
        batch_size=settings.batch_size,
    )
    if settings.checkpoint:
        spec = encoder_of(settings, images.card)
        state = pretrained_init.load_networks(
            settings.checkpoint, state, spec, objective=settings.objective.name
        )
    update = make_update(settings, images.card, objective, optimizer, learning_rate)
    return Job(settings, images, forward, update, state)


def make_update(
    settings: PretrainSettings,
    card: run_folder.DataCard,
    objective: contract.Bound,
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
) -> Callable[..., Any]:
    """One step of training, as `train_step.make_update` describes it."""
    axis = pmap.reduction_axis()
    forward = make_train_forward(settings, card, axis=axis)
    return train_step.make_update(
        step_loss.make_loss(forward, objective, axis=axis),
        optimizer,
        make_views(
            settings.augment, image_size=settings.data.image_size, batch_size=settings.batch_size
        ),
        seed=settings.seed,
        learning_rate=learning_rate,
        target_ema=objective_setup.make_target_ema(
            settings.objective, objective, total_steps=settings.total_steps
        ),
        axis=axis,
        parts=settings.micro_batches,
        average_state=pmap.groups(settings.model.bn_group_size) is not None,
        constrain=objective.objective.constrain,
    )


def make_forward(
    settings: PretrainSettings, card: run_folder.DataCard, **training: Any
) -> hk.TransformedWithState:
    """The network of a run, to draw its parameters or to use it once it is trained.

    Args:
      settings: of the run.
      card: of its data.
      training: what `byol_network.make_forward` takes besides, and changes no parameter.
    """
    model = settings.model
    return encoder_spec.make_forward(
        encoder_of(settings, card),
        projector=encoder_spec.projector_of_run(model),
        predictor="none" if model.predictor in directpred.PREDICTORS else model.predictor,
        predictor_hidden_size=model.predictor_hidden_size,
        predictor_hidden_layers=model.predictor_hidden_layers,
        num_classes=card.num_classes,
        **training,
    )


def encoder_of(settings: PretrainSettings, card: run_folder.DataCard) -> encoder_spec.EncoderSpec:
    """The encoder of a run."""
    return encoder_spec.of_run(settings.model, settings.data.image_size, card.mean, card.std)


def make_train_forward(
    settings: PretrainSettings, card: run_folder.DataCard, *, axis: str | None
) -> hk.TransformedWithState:
    """The same as training runs it: over devices, in fewer bits, or in less memory."""
    return make_forward(
        settings,
        card,
        axis=axis,
        bn_groups=pmap.groups(settings.model.bn_group_size),
        dtype=config_checks.DTYPES[settings.model.dtype],
        plan=microbatch.Plan(settings.model.remat, settings.parts_of_a_pass),
    )


def make_optimizer(
    settings: PretrainSettings,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a run and its learning rate."""
    section = settings.optimizer
    recipe = optimizers.OPTIMIZERS[section.name]
    learning_rate = optimizers.learning_rate_schedule(
        section.base_learning_rate,
        batch_size=settings.batch_size,
        total_steps=settings.total_steps,
        warmup_steps=section.warmup_steps,
    )
    arguments = {**section.arguments, "weight_decay": section.weight_decay}
    optimizer = recipe.make(learning_rate, **{a: arguments[a] for a in recipe.arguments})
    return optimizers.with_multipliers(optimizer, section.multipliers), learning_rate


def make_probe(job: Job) -> Callable[[int, train_step.TrainState], online_eval.Measured]:
    """Builds probe(step, state): what the online encoder makes of ``data.eval_split``.

    The untrained network of step 0 has no running batch-norm statistics to be judged with: a few
    batches of plain training images give it some. Step 0 also scores raw pixels for comparison;
    there and at the last step a linear probe is trained too.
    """
    section, size = job.settings.probe, job.settings.data.image_size
    splits = job.images.train, job.images.test
    train, test = (data.take(section.max_images) for data in splits)
    calibrate = inference.make_calibrate(job.forward, image_size=size)
    scores = online_eval.Probe(
        train,
        test,
        inference.make_encode(job.forward, image_size=size),
        batch_size=min(256, train.num_images),
        image_size=size,
        k=section.k,
        temperature=section.temperature,
        bad=eval_loader.BadLimit(splits, job.settings.data.max_bad_share),
    )

    def probe(step: int, state: train_step.TrainState) -> online_eval.Measured:
        params, bn_state = jax.device_get((state.online_params, state.online_state))
        if step == 0:
            update = functools.partial(calibrate, params)
            bn_state = scores.calibrate(update, bn_state)
        linear = step in (0, job.settings.total_steps)
        raw = scores.score_raw_pixels() if step == 0 else {}
        found = scores.measure(params, bn_state, linear=linear)
        return found._replace(scalars=found.scalars | raw)

    return probe


def make_crop(crop: settings_lib.Crop, *, image_size: int) -> train_loader.Crop:
    """How the host cuts views of encoded images."""
    return train_loader.Crop(image_size, crop.area_range)


def make_train_batches(
    settings: PretrainSettings, train: datasets.Dataset
) -> train_loader.TrainBatches:
    """The training batches of this process."""
    return make_batches(
        train,
        settings.data,
        settings.augment.crop,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )


def make_batches(
    train: datasets.Dataset,
    data: settings_lib.Data,
    crop: settings_lib.Crop,
    *,
    batch_size: int,
    seed: int,
) -> train_loader.TrainBatches:
    """The same of the sections that they need; ``batch_size`` is that of all processes."""
    return train_loader.TrainBatches(
        train,
        batch_size=batch_size // jax.process_count(),
        seed=seed,
        crop=make_crop(crop, image_size=data.image_size),
        reading=train_loader.Reading(data.threads, data.workers),
        max_bad_share=data.max_bad_share,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def make_views(
    augment: settings_lib.Augment, *, image_size: int, batch_size: int | None = None
) -> Callable[..., Any]:
    """The augmentations of a run, of whole batches or of parts of them."""
    crop = augment.crop
    return two_views.make_views(
        augment.view1,
        augment.view2,
        image_size=image_size,
        area_range=crop.area_range,
        method=crop.method,
        batch_size=batch_size,
    )
