"""From a config to the objective of a run, and what can be wrong with it."""

from typing import Any

import optax

from byol_jax import config as config_lib
from byol_jax.objectives import contract, directpred, table
from byol_jax.training import optimizers
from byol_jax.training import settings as settings_lib

UsageError = config_lib.UsageError


def make_objective(
    chosen: settings_lib.Objective, *, predictor_head: str = "mlp"
) -> contract.Bound:
    """The objective of a run with its settings; what is unset is the method's.

    Args:
      chosen: the settings of the run.
      predictor_head: ``model.predictor``; "none" is an objective without a predictor.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    name = chosen.name
    objective = config_lib.lookup(table.OBJECTIVES, name, key="objective.name")
    target = chosen.target
    if predictor_head == "none" and chosen.predictor:
        raise UsageError(
            "--config.objective.predictor=true and --config.model.predictor=none contradict each "
            "other: leave one of them out."
        )
    is_off = predictor_head == "none" and chosen.predictor is None and objective.has_predictor
    predictor = False if is_off else chosen.predictor
    if target is not None:
        config_lib.lookup(contract.TARGETS, target, key="objective.target")
    if target not in (None, *objective.targets):
        raise UsageError(
            f"--config.objective.target={target} does not go with objective.name={name}: take one "
            f"of {', '.join(objective.targets)}, or --config.objective.name=infonce."
        )
    if predictor not in (None, objective.has_predictor) and objective.predictor_is == "fixed":
        raise UsageError(_wrong_predictor(name, objective, by_head=is_off))
    bound = contract.bind(
        objective, objective.settings(**chosen.own), predictor=predictor, target=target
    )
    if bound.has_predictor and predictor_head in directpred.PREDICTORS:
        return directpred.with_predictor(bound, predictor_head)
    return bound


def _wrong_predictor(name: str, objective: contract.Objective, *, by_head: bool) -> str:
    others = [other for other, row in table.OBJECTIVES.items() if row.predictor_is == "optional"]
    key = f"--config.objective.predictor={str(not objective.has_predictor).lower()}"
    key = "--config.model.predictor=none" if by_head else key
    needs = "needs its predictor" if objective.has_predictor else "has no predictor"
    return (
        f"{key}: objective.name={name} {needs}. Leave the key out, or take one that works with and "
        f"without: {', '.join(others)}."
    )


def check(config: Any, objective: contract.Bound) -> None:
    """Checks what the objective asks of sizes.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    is_in_parts = config.accumulate > 1 and config.accumulate_statistics == "micro"
    if objective.objective.compares_images and is_in_parts:
        what = f"objective.name={config.objective.name} compares"
        if config.model.predictor in directpred.PREDICTORS:
            what = f"model.predictor={config.model.predictor} is made of"
        raise UsageError(
            f"{what} all images of a batch, and "
            f"--config.accumulate={config.accumulate} would let it see a part at a time: add "
            "--config.accumulate_statistics=exact, which gives the same as the whole batch."
        )
    if objective.objective.compares_images and config.batch_size == 1:
        raise UsageError(
            f"objective.name={config.objective.name} compares the images of a batch: "
            "--config.batch_size=1 leaves none to compare, take more."
        )
    if objective.objective.check is not None:
        sizes = contract.Sizes(config.model.projector_output_size, config.batch_size)
        objective.objective.check(objective.settings, sizes)


def make_target_ema(
    chosen: settings_lib.Objective, objective: contract.Bound, *, total_steps: int
) -> optax.Schedule | None:
    """tau of every step; None without a target network."""
    if not objective.has_target_network:
        return None
    constants = {"copy": 0.0, "frozen": 1.0}
    if objective.target in constants:
        return optax.constant_schedule(constants[objective.target])
    schedule = optimizers.TARGET_EMA_SCHEDULES[chosen.target_ema_schedule]
    return schedule(chosen.base_target_ema, total_steps=total_steps)
