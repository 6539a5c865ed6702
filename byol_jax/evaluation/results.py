"""What all evaluations of an encoder have in common: their images, their seeds, their results.

Shapes: N images of a split, M of the evaluated one.
"""

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import checksums, classifiers
from byol_jax.data import host_crops
from byol_jax.distributed import multihost, pmap
from byol_jax.evaluation import kept, protocol, result_folder
from byol_jax.evaluation import settings as settings_lib
from byol_jax.metrics import accuracy
from byol_jax.workdir import console, run_folder

UsageError = config_lib.UsageError


def summary(
    correct: Mapping[str, np.ndarray], *, seed: int, resamples: int
) -> dict[str, dict[str, Any]]:
    """Accuracies and their 95 % bootstrap intervals.

    Args:
      correct: by name, [M] of whether each image is right.
      seed: of the bootstrap.
      resamples: of the bootstrap.
    """
    options = {"seed": seed, "resamples": resamples}
    return {
        "accuracy": accuracy.means(correct),
        "interval_95": {
            name: list(accuracy.bootstrap_interval(right, **options))
            for name, right in correct.items()
        },
    }


def over_seeds(
    settings: settings_lib.EvalSettings,
    score: Callable[[int], dict[str, Any]],
    identify: Callable[[int], dict[str, Any]],
    *,
    drawn: str,
) -> dict[str, Any]:
    """What ``score(seed)`` gives; for several seeds the mean accuracy and its standard deviation.

    Seeds are ``seed`` and those after it, ``seeds`` in all. The std is that
    of a sample (n - 1); ``per_seed`` holds what each seed gave, with the identity of its network
    where each draws its own.

    Args:
      settings: of the task.
      score: gives the accuracy of a seed, and more.
      identify: gives the identity of the network that a seed measures.
      drawn: what else a seed decides, in words: the std is over that.
    """
    seeds = range(settings.seed, settings.seed + settings.seeds)
    found = [{"seed": seed} | score(seed) | {"checkpoint": identify(seed)} for seed in seeds]
    if len(found) == 1:
        return found[0]
    networks = [run["checkpoint"] for run in found]
    is_one = all(network == networks[0] for network in networks)
    if is_one:
        for run in found:
            del run["checkpoint"]
    columns = {name: [run["accuracy"][name] for run in found] for name in found[0]["accuracy"]}
    return {
        "accuracy": {name: float(np.mean(values)) for name, values in columns.items()},
        "std": {name: float(np.std(values, ddof=1)) for name, values in columns.items()},
        "std_over": drawn + ("; one network" if is_one else "; a network for each seed"),
        "per_seed": found,
        "checkpoint": networks[0] if is_one else _together(networks),
    }


def _together(networks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The identity of several networks that differ in what was drawn."""
    return networks[0] | {
        "path": f"{len(networks)} networks, the first: {networks[0]['path']}",
        "sha256": checksums.digest_json([network["sha256"] for network in networks]),
    }


def write_result(
    workdir: pathlib.Path,
    settings: settings_lib.EvalSettings,
    setup: protocol.EvalSetup,
    found: dict[str, Any],
    *,
    start: float,
    classes: Sequence[str] = (),
    fitted: kept.Fitted | None = None,
    crop_fraction: float = host_crops.CENTER_SHARE,
) -> dict[str, Any]:
    """Writes ``result.json``, and the classifier that is kept; returns what is in it.

    Args:
      workdir: where.
      settings: of the task.
      setup: what was measured.
      found: what `over_seeds` gives.
      start: when the task began, of `time.monotonic`.
      classes: their names, if it is about classes.
      fitted: the classifier that is kept, on the writer; None if none is.
      crop_fraction: of the shorter side of images, that the classifier sees.
    """
    result = {
        "task": settings.task,
        "data": setup.source._asdict() | setup.splits,
        **found,
        **({"classes": list(classes)} if classes else {}),
        **({"classifier": classifiers.FOLDER} if fitted is not None else {}),
        "config": dict(settings.stored),
        "versions": run_folder.versions(),
        "devices": pmap.describe_devices(),
        "seconds": round(time.monotonic() - start, 2),
    }
    if multihost.is_writer():
        part = fitted and kept.write(workdir, setup, fitted, result, crop_fraction=crop_fraction)
        result_folder.write(workdir, result, part)
        console.say(f"Written: {workdir / result_folder.FILE}")
        if fitted is not None:
            console.say(f"Kept: {workdir / classifiers.FOLDER} (configs/predict.py classifies)")
    return result


def describe(result: Mapping[str, Any], table: Callable[[Mapping[str, Any]], Sequence[str]]) -> str:
    """A result as lines for people.

    Args:
      result: what `write_result` gives.
      table: lines for the sweep of one seed.
    """
    identity, data = result["checkpoint"], result["data"]
    where = f"{data['name']} in {data['dir']}" if data["dir"] else data["name"]
    lines = [
        "",
        f"{identity['encoder']} ({identity['parameters'] / 1e6:.2f} M parameters) of "
        f"{identity['path']}, sha256 {identity['sha256'][:12]}",
        f"pretrained on {identity['trained_on'] or 'what its file does not say'}",
        f"labels are those of {data['train_split']} of {where}, evaluated on {data['eval_split']}",
    ]
    for run in result.get("per_seed", [result]):
        counts = run["num_images"]
        lines += ["", f"seed {run['seed']}: " + ", ".join(f"{n:,} {k}" for k, n in counts.items())]
        lines += [*table(run), *_accuracies(run)]
    if "std" in result:
        lines += ["", f"over {len(result['per_seed'])} seeds, mean and standard deviation:"]
        lines.append(f"  (each seed draws {result['std_over']})")
        for name, mean in result["accuracy"].items():
            lines.append(f"  {_title(name)} {mean:.2%} +- {result['std'][name]:.2%}")
    lines += ["", "chosen where the paper does not say:"]
    lines += [f"  {name}: {choice}" for name, choice in result["choices"].items()]
    return "\n".join(lines)


def _accuracies(run: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, value in run["accuracy"].items():
        low, high = run["interval_95"][name]
        interval = f"(95 % bootstrap interval {low:.2%} to {high:.2%})"
        lines.append(f"{_title(name)} {value:.2%} {interval}")
    return lines


def _title(name: str) -> str:
    return name.replace("top", "top-").replace("_", " ")
