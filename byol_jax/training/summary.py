"""What a run says of its probes, a line for each and a table at the end, and of being stopped."""

import pathlib
from collections.abc import Mapping
from typing import Any

from byol_jax.data import datasets, label_subsets
from byol_jax.distributed import multihost
from byol_jax.training import collapse_monitor, loop, online_eval
from byol_jax.training import settings as settings_lib
from byol_jax.workdir import metrics_log

_OF_LABELS = ("online_loss", "online_top1", "online_top5")


def of_labels(train: datasets.Dataset, test: datasets.Dataset) -> str:
    """What the labels of a run's images are for, and how many there are."""
    fractions = [label_subsets.labeled_share(split) for split in (train, test)]
    if not any(fractions):
        return "no labels"
    if fractions == [1, 1]:
        return "labels are used to measure, not to learn"
    if not all(fractions):
        split = "training" if not fractions[0] else "evaluation"
        return f"the {split} images have no labels, so that no accuracy is measured"
    of_train, of_test = (
        f"{100 * fraction:{'.0f' if fraction >= 0.01 else '.1g'}} %" for fraction in fractions
    )
    return (
        f"{of_train} of the training images and {of_test} of the evaluation images have labels; "
        "these measure"
    )


def train_row(scalars: Mapping[str, Any]) -> dict[str, float]:
    """A step's metrics as they are logged: those of labels only if an image had one."""
    hidden = {"labeled_share"} if scalars["labeled_share"] > 0 else {"labeled_share", *_OF_LABELS}
    return {f"train/{name}": float(scalars[name]) for name in scalars if name not in hidden}


def probe_line(step: int, measured: online_eval.Measured) -> str:
    """The scores of one probe; and of how many images, if that is not obvious."""
    scalars, labels = measured.scalars, measured.labels
    parts = []
    if "probe/knn_top1" in scalars:
        parts.append(f"kNN {scalars['probe/knn_top1']:.1%}")
    if "probe/linear_top1" in scalars:
        parts.append(f"linear {scalars['probe/linear_top1']:.1%}")
    parts.append(f"feature std {scalars['probe/feature_std']:.2f}")
    parts.append(f"effective rank {scalars['probe/effective_rank']:.1f}")
    if "probe/raw_pixels_knn_top1" in scalars:
        parts.append(f"(raw pixels: kNN {scalars['probe/raw_pixels_knn_top1']:.1%})")
    if measured.predicted is not None and (labels < 0).any():
        parts.append(f"accuracy of the {(labels >= 0).sum():,} with labels of {len(labels):,}")
    if measured.bad:
        parts.append(f"{len(measured.bad):,} bad images left out (bad_images.txt)")
    return f"probe at step {step}: " + ", ".join(parts)


def has_probe(workdir: pathlib.Path, step: int) -> bool:
    """Whether the probe of a step was logged; to be called by all processes."""

    def find() -> bool:
        last = metrics_log.last_row(workdir, having="probe/feature_std")
        return last is not None and last["step"] == step

    return multihost.on_writer(find, what="looking for a probe")


def summarize(workdir: pathlib.Path, collapse: settings_lib.Collapse) -> str:
    """A table of the first and the last probe of a finished run, and whether it collapsed."""
    rows = list(metrics_log.rows(workdir, having="probe/feature_std"))
    lines = [f"{'':<18}{'kNN':>8}{'linear':>9}{'feature std':>13}{'effective rank':>16}"]
    if "probe/raw_pixels_knn_top1" in rows[0]:
        lines.append(f"{'raw pixels':<18}{rows[0]['probe/raw_pixels_knn_top1']:>8.1%}")
    for row in (rows[0], rows[-1]):
        name = "random network" if row["step"] == 0 else f"after {row['step']:,} steps"
        fractions = (row.get(f"probe/{column}") for column in ("knn_top1", "linear_top1"))
        knn, linear = ("-" if fraction is None else f"{fraction:.1%}" for fraction in fractions)
        std, rank = row["probe/feature_std"], row["probe/effective_rank"]
        lines.append(f"{name:<18}{knn:>8}{linear:>9}{std:>13.2f}{rank:>16.1f}")
    last = metrics_log.last_row(workdir, having="train/feature_std")
    beyond = collapse_monitor.find(metrics_log.rows(workdir, having="train/feature_std"), collapse)
    if beyond:
        lines.append(f"COLLAPSED: {', '.join(beyond)}.")
    bad = last.get("data/bad_images")
    if bad:
        lines.append(f"{bad} bad images were left out: {workdir / 'bad_images.txt'}")
    return "\n" + "\n".join(lines) + f"\nMetrics and checkpoints: {workdir}"


def stopped(first_step: int, step: int) -> str:
    """What a run that was told to stop has saved.

    Args:
        first_step: that it began with.
        step: that it ended with.

    Raises:
        loop.NothingDoneError: nothing at all.
    """
    again = "Rerun the same command to resume."
    if step == 0:
        raise loop.NothingDoneError(
            "Stopped before the first step: there is nothing to save. Rerun the same command to "
            "begin again."
        )
    if step == first_step:
        return f"Stopped before a new step; the checkpoint of step {step:,} is there. {again}"
    return f"Stopped after step {step:,} and saved. {again}"
