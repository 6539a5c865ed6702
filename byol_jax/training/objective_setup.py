"""From a config to the objective of a run, and what can be wrong with it."""

import dataclasses
from typing import Any

import optax

from byol_jax import config as config_lib
from byol_jax.objectives import contract, table
from byol_jax.training import optimizers

UsageError = config_lib.UsageError


def make_objective(config: Any) -> contract.Bound:
    """The objective of a config with its settings; what the config leaves unset is the method's.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    name = config.objective.name
    objective = config_lib.lookup(table.OBJECTIVES, name, key="objective.name")
    target, predictor = config.objective.target, config.objective.predictor
    if target is not None:
        config_lib.lookup(contract.TARGETS, target, key="objective.target")
    if target not in (None, *objective.targets):
        raise UsageError(
            f"--config.objective.target={target} does not go with objective.name={name}: take one "
            f"of {', '.join(objective.targets)}, or --config.objective.name=infonce."
        )
    if predictor not in (None, objective.has_predictor) and objective.predictor_is == "fixed":
        raise UsageError(_wrong_predictor(name, objective))
    return contract.bind(
        objective, _settings(config, objective), predictor=predictor, target=target
    )


def _wrong_predictor(name: str, objective: contract.Objective) -> str:
    others = [other for other, row in table.OBJECTIVES.items() if row.predictor_is == "optional"]
    key = f"--config.objective.predictor={str(not objective.has_predictor).lower()}"
    needs = "needs its predictor" if objective.has_predictor else "has no predictor"
    return (
        f"{key}: objective.name={name} {needs}. Leave the key out, or take one that works with and "
        f"without: {', '.join(others)}."
    )


def _settings(config: Any, objective: contract.Objective) -> Any:
    """What the section of the objective's name says; one from outside has its defaults."""
    if config.objective.name not in config.objective:
        return objective.settings()
    section = config.objective[config.objective.name]
    fields = dataclasses.fields(objective.settings)
    return objective.settings(**{field.name: section[field.name] for field in fields})


def check(config: Any, objective: contract.Bound) -> None:
    """Checks what the objective asks of sizes.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    is_in_parts = config.accumulate > 1 and config.accumulate_statistics == "micro"
    if objective.objective.compares_images and is_in_parts:
        raise UsageError(
            f"objective.name={config.objective.name} compares all images of a batch, and "
            f"--config.accumulate={config.accumulate} would let it see a part at a time: add "
            "--config.accumulate_statistics=exact, which gives the same as the whole batch."
        )
    if objective.objective.check is not None:
        sizes = contract.Sizes(config.model.projector_output_size, config.batch_size)
        objective.objective.check(objective.settings, sizes)


def make_target_ema(
    config: Any, objective: contract.Bound, *, base: float, total_steps: int
) -> optax.Schedule | None:
    """tau of every step; None without a target network."""
    schedule = config_lib.lookup(
        optimizers.TARGET_EMA_SCHEDULES,
        config.objective.target_ema_schedule,
        key="objective.target_ema_schedule",
    )
    if not objective.has_target_network:
        return None
    constants = {"copy": 0.0, "frozen": 1.0}
    if objective.target in constants:
        return optax.constant_schedule(constants[objective.target])
    return schedule(base, total_steps=total_steps)


def with_own_optimizer(
    optimizer: optax.GradientTransformation, objective: contract.Bound
) -> optax.GradientTransformation:
    """The run's optimizer, and beside it the objective's for parameters of its own."""
    own = objective.objective.optimizer
    if own is None:
        return optimizer

    def of(params: contract.Params) -> dict[str, str]:
        return {module: "own" if module.startswith(contract.PREFIX) else "run" for module in params}

    return optax.multi_transform({"run": optimizer, "own": own}, of)
