"""What a run on a folder should be: values for keys that the config leaves unset, with reasons.

Rules only: facts about images, machine and time go in, values come out. Those for small encoders
were measured (experiments/folder); those for large ones follow the presets of ImageNet and
Imagenette.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from byol_jax import config as config_lib
from byol_jax.training import budget_plan, budget_recipe
from byol_jax.training import settings as settings_lib
from byol_jax.training.budget_plan import Facts, Plan

DEFAULT_EPOCHS = 300.0
DEFAULT_CPU_MINUTES = 60.0
MOST_EPOCHS = 5000
FEWEST_STEPS = 50
RESERVE = 0.08  # of the time, for probes, checkpoints and pictures

LENGTH = ("total_steps", "total_epochs")
WARMUP = ("optimizer.warmup_steps", "optimizer.warmup_epochs")


class Rung(NamedTuple):
    """An encoder and a size of its images.

    Attributes:
      encoder: a key of `resnet.ENCODERS`.
      image_size: in pixels.
      passes: images that a run has to see for this to be worth it; every repetition counts.
      num_images: that the set needs.
    """

    encoder: str
    image_size: int
    passes: int
    num_images: int = 0


# From large to small; the first one that there is time for is taken, or else the last.
LADDER = (
    Rung("resnet50", 224, 20_000_000, num_images=50_000),
    Rung("resnet18", 224, 500_000),
    Rung("resnet18", 128, 300_000),
    Rung("resnet18", 96, 200_000),
    Rung("micro_resnet", 96, 400_000),
    Rung("micro_resnet", 64, 250_000),
    Rung("micro_resnet", 48, 0),
)
# The same for an encoder that was typed.
SMALL_SIZES = ((96, 400_000), (64, 250_000), (48, 0))
LARGE_SIZES = ((224, 500_000), (128, 300_000), (96, 200_000), (64, 0))
STARTED = 0.1  # of these images a run needs that goes on from a trained encoder

# Keys that may be unset, besides those of the length of run and warm-up.
_OF_VIEWS = (
    "jitter_probability brightness contrast saturation hue grayscale_probability "
    "blur_probability solarize_probability"
).split()
OF_PAPER = (  # which may stay unset: they follow from the length of the run
    "objective.base_target_ema",
    "optimizer.lars.base_learning_rate",
    "optimizer.lars.weight_decay",
)
KEYS = (
    "data.image_size",
    "batch_size",
    "model.encoder",
    "model.width_multiplier",
    "model.resnet_v2",
    "model.stem",
    "model.padding",
    "model.projector_hidden_size",
    "model.projector_output_size",
    "model.predictor_hidden_size",
    *OF_PAPER,
    "optimizer.lars.trust_coefficient",
    "augment.crop.min_area",
    *(f"augment.{view}.{key}" for view in ("view1", "view2") for key in _OF_VIEWS),
)


def is_complete(config: Any) -> bool:
    """Whether a config leaves nothing to these rules; other presets have no length by them."""
    needed = [key for key in KEYS if key not in OF_PAPER]
    is_settled = has_length(config) or config.preset != "folder"
    return is_settled and all(config_lib.get(config, key) is not None for key in needed)


def has_length(config: Any) -> bool:
    """Whether a config says how long the run is."""
    return any(config[key] is not None for key in LENGTH)


def minutes(config: Any, facts: Facts) -> tuple[float, str] | None:
    """The time that a run has, and whose choice that is; None if time is no object."""
    if config.budget_minutes is not None:
        return config.budget_minutes, "budget_minutes"
    if facts.is_accelerator:
        return None
    return DEFAULT_CPU_MINUTES, "what a run on a CPU gets while budget_minutes is unset"


def choose(
    config: Any,
    facts: Facts,
    *,
    seconds_per_image: Callable[[Any], float],
    start: Mapping[str, Any] | None = None,
) -> Plan:
    """Fills in all keys of `KEYS` that a config leaves unset; the length comes later.

    Args:
      config: of the run, which is left as it is.
      facts: about images and machine.
      seconds_per_image: the time of a training step for each of its images, by estimate, of a
        config that has an encoder and heads.
      start: keys and values of what the run continues from.
    """
    plan = Plan(config)
    for key, value in (start or {}).items():
        plan.offer(key, value, "that of the checkpoint to continue from")
    for key, value in (("width_multiplier", 1), ("resnet_v2", False), ("padding", "same")):
        plan.offer(f"model.{key}", value, "the usual one")
    _offer_encoder(plan, facts, seconds_per_image, is_started=bool(start))
    budget_recipe.offer_heads(plan)
    budget_recipe.offer_optimizer(plan, facts)
    budget_recipe.offer_augmentations(plan, facts)
    return plan


def _rungs(plan: Plan, facts: Facts) -> list[Rung]:
    """What may be trained, as far as it is typed or given by the images."""
    encoder, size = plan["model.encoder"], plan["data.image_size"]
    if encoder is not None:
        sizes = SMALL_SIZES if encoder in budget_plan.SMALL_ENCODERS else LARGE_SIZES
        rungs = [Rung(encoder, size, passes) for size, passes in sizes]
    else:
        rungs = [
            rung
            for rung in LADDER
            if facts.num_images >= rung.num_images
            and not (facts.is_accelerator and rung.encoder in budget_plan.SMALL_ENCODERS)
            and (plan.config.budget_minutes is not None or not rung.num_images)
        ]
    if size is not None:
        return [rung._replace(image_size=size) for rung in rungs]
    return [rung._replace(image_size=_fit(rung, facts)) for rung in rungs]


def _fit(rung: Rung, facts: Facts) -> int:
    """The image size of a rung, no larger than the images are."""
    if facts.is_in_memory:
        return facts.side
    size = 96 if facts.texture >= budget_plan.FINE_TEXTURE else 0
    return min(max(rung.image_size, size), max(facts.side // 16 * 16, 32))


def _offer_encoder(
    plan: Plan, facts: Facts, seconds_per_image: Callable[[Any], float], *, is_started: bool
) -> None:
    allowed = minutes(plan.config, facts)
    for rung in _rungs(plan, facts):
        needed = int(rung.passes * (STARTED if is_started else 1))
        trial = Plan(plan.config)
        trial.offer("model.encoder", rung.encoder, "")
        trial.offer("data.image_size", rung.image_size, "")
        trial.offer("model.stem", _stem(trial, facts), "")
        budget_recipe.offer_heads(trial)
        passes = math.inf if allowed is None else 60 * allowed[0] / seconds_per_image(trial.config)
        if passes >= needed:
            break
    encoder = trial["model.encoder"]
    time = "no limit of time" if allowed is None else f"{allowed[0]:g} minutes ({allowed[1]})"
    plan.offer("model.encoder", encoder, _why_encoder(needed, passes, time, facts))
    plan.offer("data.image_size", rung.image_size, _why_size(rung, facts))
    plan.offer("model.stem", trial["model.stem"], f"for {encoder} at {rung.image_size} px")


def _why_encoder(needed: int, passes: float, time: str, facts: Facts) -> str:
    if math.isinf(passes):
        return f"no limit of time for {facts.num_images:,} images"
    enough = f"it takes {needed:,}" if needed else "too few for more than this"
    return f"about {passes:,.0f} images can be seen in {time}: {enough}"


def _why_size(rung: Rung, facts: Facts) -> str:
    if facts.is_in_memory:
        return "that of the images"
    texture = f", {facts.texture:.0%} of whose contrast is lost at {budget_plan.TEXTURE_SIZE} px"
    fine = texture if facts.texture >= budget_plan.FINE_TEXTURE else ""
    return f"for images of about {facts.side} px{fine}"


def _stem(plan: Plan, facts: Facts) -> str:
    if plan["model.encoder"] in budget_plan.SMALL_ENCODERS:
        return "patch"
    largest = 64 if facts.is_accelerator else 32  # it keeps every pixel, and takes the longer
    return "cifar" if plan["data.image_size"] <= largest else "imagenet"


def offer_length(plan: Plan, facts: Facts, *, steps: int | None) -> None:
    """Fills in the length of run and warm-up.

    Args:
      plan: otherwise filled in.
      facts: about images and machine.
      steps: that there is time for; None if it is no object.
    """
    if not has_length(plan.config):
        if steps is None:
            plan.offer("total_epochs", DEFAULT_EPOCHS, "time is no object")
        else:
            reason = f"what there is time for, {MOST_EPOCHS:,} epochs at most"
            plan.offer("total_steps", steps, reason)
    is_by_paper = plan["objective.base_target_ema"] is None
    if all(plan[key] is None for key in WARMUP) and not is_by_paper:
        length = plan["total_steps"], plan["total_epochs"], plan["batch_size"]
        total = settings_lib.steps_of(*length, facts.num_images, key="total")
        plan.offer("optimizer.warmup_steps", total // 10, "a tenth of the run")


def steps_within(seconds: float, *, step_seconds: float, epoch_steps: float) -> int:
    """How many steps fit into the time that is left, but no more than `MOST_EPOCHS`.

    Args:
      seconds: from now to the end of the run.
      step_seconds: of one step.
      epoch_steps: steps of an epoch.

    Raises:
      UsageError: too few to learn anything.
    """
    steps = int(seconds * (1 - RESERVE) / step_seconds)
    if steps < FEWEST_STEPS:
        raise config_lib.UsageError(
            f"In the time that is left only {max(steps, 0)} steps of {step_seconds:.2g} seconds "
            f"fit, and {FEWEST_STEPS} are the least: raise --config.budget_minutes, or lower "
            "--config.batch_size or --config.data.image_size."
        )
    return min(steps, max(int(MOST_EPOCHS * epoch_steps), FEWEST_STEPS))
