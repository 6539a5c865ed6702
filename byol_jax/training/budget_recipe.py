"""Heads, optimizer and augmentations for an encoder and its images, as `budget` fills them in."""

import math

from byol_jax.models import resnet
from byol_jax.training import budget_plan, method_settings
from byol_jax.training.budget_plan import Choice, Facts, Plan

LARGE_SET = 100_000  # images, from which on the paper's windows are used
# Saturation, hue and the probability of gray for small encoders.
COLOR_OF_SMALL = (0.8, 0.5, 0.5, "strong, as in the default preset")


def offer_heads(plan: Plan) -> None:
    """Twice the embedding inside, half of it outside; of ResNet-50 these are the paper's sizes.

    Those of a method that has sizes of its own come first.
    """
    origin = method_settings.label(plan["objective.name"])
    for key, (size, note) in method_settings.sizes(plan.config).items():
        plan.offer(f"model.{key}", size, f"{origin}{note and f', {note}'}", origin)
    encoder, width = plan["model.encoder"], plan["model.width_multiplier"]
    size = resnet.embedding_size(encoder, width_multiplier=width)
    hidden, output = min(_power(2 * size), 4096), min(_power(size / 2), 256)
    for key, value, of in (
        ("projector_hidden_size", hidden, "twice"),
        ("projector_output_size", output, "half"),
        ("predictor_hidden_size", hidden, "twice"),
    ):
        plan.offer(f"model.{key}", value, f"about {of} the embedding of {size}")


def _power(size: float) -> int:
    """The least power of two that is not below a size, and 32 at least."""
    return 2 ** max(math.ceil(math.log2(size)), 5)


def offer_optimizer(plan: Plan, facts: Facts) -> None:
    """Batch, LARS and the target; of bottleneck networks the paper's by the length of the run."""
    parts = facts.devices * plan.config.accumulate
    usual = 256 * facts.devices if facts.is_accelerator else 64
    batch = max(min(usual, 4096, facts.num_images) // parts, 1) * parts
    plan.offer("batch_size", batch, "256 a device" if facts.is_accelerator else "usual on a CPU")
    small = plan["model.encoder"] in budget_plan.SMALL_ENCODERS
    trust = (3e-3, "for a small encoder") if small else (1e-3, "the paper's")
    plan.offer("optimizer.lars.trust_coefficient", *trust)
    if resnet.ENCODERS[plan["model.encoder"]].bottleneck:
        return  # what is left unset is filled in by `paper_settings`
    rate = (4.0 if small else 2.0) * min(1.0, math.sqrt(256 / plan["batch_size"]))
    times = method_settings.rate_of_byol(plan.config)
    if times != 1:
        origin = method_settings.label(plan["objective.name"])
        reason = f"{origin}: {times:g} times what BYOL has here"
        key = "optimizer.lars.base_learning_rate"
        plan.offer(key, float(f"{rate * times:.3g}"), reason, origin)
    of = f"for a {'small' if small else 'large'} encoder and a batch of {plan['batch_size']}"
    plan.offer("optimizer.lars.base_learning_rate", float(f"{rate:.3g}"), of)
    plan.offer("optimizer.lars.weight_decay", 1e-6, "the paper's for 300 epochs")
    plan.offer("objective.base_target_ema", 0.99, "the paper's for 300 epochs")


def offer_augmentations(plan: Plan, facts: Facts) -> None:
    """Windows, colors and blur."""
    if plan["model.encoder"] in budget_plan.SMALL_ENCODERS:
        area = 0.4, "a small encoder cannot place small windows"
    elif facts.num_images < LARGE_SET:
        area = 0.2, f"fewer than {LARGE_SET:,} images"
    else:
        area = 0.08, "the paper's"
    plan.offer("augment.crop.min_area", *area)
    for view in ("view1", "view2"):
        for key, choice in _view(plan, facts, is_first=view == "view1").items():
            plan.offer(f"augment.{view}.{key}", *choice)


def _view(plan: Plan, facts: Facts, *, is_first: bool) -> dict[str, Choice]:
    """What one view does to colors.

    Brightness is added, so that what is nearly white or black would become nothing but that: it
    moves by at most half of the distance between the mean and the nearer end.
    """
    room = min(facts.brightness, 1 - facts.brightness)
    saturation, hue, to_gray, why = COLOR_OF_SMALL
    if facts.is_gray:
        saturation, hue, to_gray, why = 0.0, 0.0, 0.0, "the images are gray"
    elif plan["model.encoder"] not in budget_plan.SMALL_ENCODERS:
        saturation, hue, to_gray, why = 0.2, 0.1, 0.2, "the paper's"
    is_sharp = plan["data.image_size"] < 96 or facts.texture >= budget_plan.FINE_TEXTURE
    blur = 0.0 if is_sharp else 1.0 if is_first else 0.1
    return {
        "jitter_probability": Choice(0.8, "the paper's"),
        "brightness": Choice(
            round(min(0.4, room / 2), 2), f"the mean of the pixels is {facts.brightness:.2f}"
        ),
        "contrast": Choice(0.4, "the paper's"),
        "saturation": Choice(saturation, why),
        "hue": Choice(hue, why),
        "grayscale_probability": Choice(to_gray, why),
        "blur_probability": Choice(blur, "small or fine" if is_sharp else "the paper's"),
        "solarize_probability": Choice(0.0 if is_first else 0.2, "the paper's"),
    }
