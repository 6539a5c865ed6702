"""What is chosen for a folder of images, from facts that are made up."""

import pytest

from byol_jax import config as config_lib
from byol_jax.training import budget, budget_plan
from configs import byol

FACTS = budget_plan.Facts(
    num_images=2000,
    side=100,
    is_in_memory=False,
    is_gray=False,
    brightness=0.5,
    texture=0.1,
    is_accelerator=False,
    devices=1,
)
GPU = {"is_accelerator": True, "side": 500}


def by_pixels(speed):
    """Seconds of an image on a machine so fast; a large encoder takes a hundred times longer."""

    def seconds(config):
        factor = {"micro_resnet": 1, "resnet18": 50}.get(config.model.encoder, 250)
        return factor * config.data.image_size**2 / speed

    return seconds


def choose(speed=1e6, typed=None, start=None, **facts):
    config = byol.get_config("folder")
    config.update_from_flattened_dict(typed or {})
    facts = FACTS._replace(**facts)
    plan = budget.choose(config, facts, seconds_per_image=by_pixels(speed), start=start)
    budget.offer_length(plan, facts, steps=1000)
    return plan


def values(plan, *keys):
    return [plan[key] for key in keys]


def encoder(plan):
    return tuple(values(plan, "model.encoder", "data.image_size", "model.stem"))


def test_nothing_is_left_unset_and_every_choice_has_a_reason():
    plan = choose(typed={"budget_minutes": 10.0})
    assert budget.is_complete(plan.config)
    assert all(plan[key] is not None for key in budget.KEYS)
    assert all(choice.reason for choice in plan.choices.values())


def test_ten_minutes_on_a_cpu_are_for_a_small_encoder_with_heads_of_its_size():
    plan = choose(typed={"budget_minutes": 10.0})
    assert encoder(plan) == ("micro_resnet", 48, "patch")
    assert values(plan, "model.projector_hidden_size", "model.projector_output_size") == [256, 64]
    assert plan["optimizer.warmup_steps"] == 100 and plan["batch_size"] == 64


@pytest.mark.parametrize(
    "minutes, expected",
    [
        (10.0, ("micro_resnet", 48, "patch")),
        (20.0, ("micro_resnet", 64, "patch")),
        (100.0, ("micro_resnet", 96, "patch")),
        (10_000.0, ("resnet18", 96, "imagenet")),
    ],
)
def test_more_time_is_for_larger_images_and_then_for_a_larger_encoder(minutes, expected):
    assert encoder(choose(typed={"budget_minutes": minutes})) == expected


def test_a_value_that_is_typed_wins_and_others_follow_it():
    typed = {"model.encoder": "resnet18", "data.image_size": 40, "batch_size": 16}
    plan = choose(typed=typed | {"total_epochs": 8.0, "optimizer.warmup_steps": 3})
    assert not set(plan.choices) & {*typed, "total_steps", "optimizer.warmup_steps"}
    assert values(plan, *typed) == list(typed.values())
    assert plan["total_steps"] is None and plan["optimizer.warmup_steps"] == 3
    assert plan["model.projector_hidden_size"] == 1024


def test_the_config_that_was_given_stays_as_it_was():
    config = byol.get_config("folder")
    budget.choose(config, FACTS, seconds_per_image=by_pixels(1e6))
    assert config == byol.get_config("folder")


@pytest.mark.parametrize("minutes", [None, 1.0, 60.0])
@pytest.mark.parametrize("num_images", [50, 3000, 1_281_167])
def test_an_accelerator_never_gets_a_small_encoder(minutes, num_images):
    plan = choose(1e9, {"budget_minutes": minutes}, num_images=num_images, **GPU)
    assert plan["model.encoder"] == "resnet18"


def test_without_a_budget_an_accelerator_trains_on_whole_images_for_300_epochs():
    config = byol.get_config("folder")
    facts = FACTS._replace(**GPU)
    plan = budget.choose(config, facts, seconds_per_image=by_pixels(1.0))
    budget.offer_length(plan, facts, steps=None)
    assert encoder(plan) == ("resnet18", 224, "imagenet")
    assert (plan["total_epochs"], plan["total_steps"], plan["batch_size"]) == (300.0, None, 256)


def test_a_large_encoder_takes_its_schedules_from_the_paper():
    typed = {"budget_minutes": 480.0}
    plan = choose(1e14, typed, num_images=1_281_167, is_accelerator=True, side=400, devices=64)
    assert encoder(plan) == ("resnet50", 224, "imagenet")
    assert values(plan, *budget.OF_PAPER) == [None] * 3 and plan["batch_size"] == 4096
    assert plan["optimizer.warmup_steps"] is None and budget.is_complete(plan.config)
    assert plan["augment.crop.min_area"] == 0.08 and plan["model.projector_hidden_size"] == 4096


@pytest.mark.parametrize("side, size", [(8, 32), (33, 32), (50, 48), (5000, 48)])
def test_images_are_not_enlarged_beyond_32_px(side, size):
    assert choose(typed={"budget_minutes": 10.0}, side=side)["data.image_size"] == size


def test_arrays_keep_their_size():
    assert choose(side=37, is_in_memory=True)["data.image_size"] == 37


def test_fine_texture_keeps_larger_images_and_is_not_blurred():
    plan = choose(typed={"budget_minutes": 10.0}, texture=0.5)
    assert plan["data.image_size"] == 96
    assert plan["augment.view1.blur_probability"] == 0
    assert choose(1e9, texture=0.5, **GPU)["augment.view1.blur_probability"] == 0
    assert choose(1e9, **GPU)["augment.view1.blur_probability"] == 1


def test_gray_images_get_no_changes_of_color():
    plan = choose(is_gray=True)
    keys = ("saturation", "hue", "grayscale_probability")
    assert values(plan, *(f"augment.view1.{key}" for key in keys)) == [0, 0, 0]
    assert plan["augment.view2.contrast"] == 0.4


@pytest.mark.parametrize("brightness, most", [(0.5, 0.25), (0.9, 0.05), (0.1, 0.05), (0.0, 0.0)])
def test_brightness_moves_half_way_to_white_or_black_at_most(brightness, most):
    assert choose(brightness=brightness)["augment.view1.brightness"] == pytest.approx(most)


@pytest.mark.parametrize("num_images, devices, batch", [(40, 1, 40), (40, 3, 39), (2000, 3, 63)])
def test_batches_are_no_larger_than_the_set_and_divide_by_devices(num_images, devices, batch):
    assert choose(num_images=num_images, devices=devices)["batch_size"] == batch


def test_what_a_run_continues_from_decides_the_encoder():
    start = {"model.encoder": "resnet18", "model.padding": "torch", "model.stem": "imagenet"}
    plan = choose(typed={"budget_minutes": 10.0}, start=start)
    assert values(plan, *start) == list(start.values())
    assert plan["model.projector_hidden_size"] == 1024
    assert plan.choices["model.encoder"].reason == "that of the checkpoint to continue from"


def test_steps_fill_the_time_but_for_a_reserve():
    steps = budget.steps_within(500.0, step_seconds=0.1, epoch_steps=30.0)
    assert steps == int(5000 * (1 - budget.RESERVE))


def test_few_images_are_not_seen_more_than_so_many_times():
    steps = budget.steps_within(1e6, step_seconds=0.1, epoch_steps=2.0)
    assert steps == 2 * budget.MOST_EPOCHS


@pytest.mark.parametrize("seconds", [-5.0, 1.0])
def test_too_little_time_is_refused_with_what_to_type(seconds):
    with pytest.raises(config_lib.UsageError, match=r"raise --config.budget_minutes"):
        budget.steps_within(seconds, step_seconds=0.1, epoch_steps=30.0)
