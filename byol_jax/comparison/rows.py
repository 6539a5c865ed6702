"""From the result of an evaluation to rows: the paper's number, ours, and the difference."""

from collections.abc import Mapping
from typing import Any

from byol_jax.comparison import evaluations


def make_rows(
    evaluation: evaluations.Evaluation, result: Mapping[str, Any], network: tuple[str, int]
) -> list[dict[str, str]]:
    """A row for each measure.

    Args:
      evaluation: whose result it is.
      result: of ``result.json``.
      network: encoder and width; of others than the paper's, ResNet-50 is what is compared with.
    """
    return [_row(evaluation, measure, result, network) for measure in evaluation.measures]


def _row(
    evaluation: evaluations.Evaluation,
    measure: evaluations.Measure,
    result: Mapping[str, Any],
    network: tuple[str, int],
) -> dict[str, str]:
    factor, digits = (100, 2) if measure.section == "accuracy" else (1, 4)
    ours = factor * result[measure.section][measure.name]
    reference = network if network in measure.numbers else evaluations.RESNET50
    paper = measure.numbers[reference]
    spread, limits = _spread(measure, result, factor, digits)
    ends = [f"{end - paper:+.{digits}f}" for end in limits]
    return {
        "evaluation": evaluation.name,
        "measure": measure.title,
        "paper": f"{paper:g}" + ("" if reference == network else " (ResNet-50)"),
        "ours": f"{ours:.{digits}f} {spread}".strip(),
        "difference": f"{ours - paper:+.{digits}f}" + (f" [{', '.join(ends)}]" if ends else ""),
    }


def _spread(
    measure: evaluations.Measure, result: Mapping[str, Any], factor: float, digits: int
) -> tuple[str, list[float]]:
    """The standard deviation over seeds, in words, or the 95 % interval, and its ends."""
    std = result.get("std" if measure.section == "accuracy" else f"{measure.section}_std", {})
    if measure.name in std:
        value = factor * std[measure.name]
        return f"+- {value:.{digits}f} over {len(result['per_seed'])} seeds", []
    limits = [factor * end for end in result["interval_95"][measure.name]]
    return f"[{', '.join(f'{end:.{digits}f}' for end in limits)}]", limits
