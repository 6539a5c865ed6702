"""Which metrics of a run are drawn together, and how few points are enough to draw them."""

import itertools
from collections.abc import Collection, Sequence
from typing import NamedTuple

from byol_jax.report import run_data
from byol_jax.report.run_data import Point, Run

MAX_POINTS = 1200  # of a curve; a screen has few columns more
# Okabe and Ito's colors, the light ones darkened for lines on white, and a gray; in this order.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#56b4e9", "#882255", "#6b7280")
CONSTANT = {"probe/raw_pixels_knn_top1"}


class Chart(NamedTuple):
    """One picture with a shared axis of values.

    Attributes:
      name: of its files and of its place in the page.
      title: for people.
      series: pairs of metric and label.
      percent: values are fractions.
      zero: the axis begins at zero.
      note: what to look for, in a sentence or two.
      is_main: it stays unfolded on a phone.
      hides_zeros: it is left out while nothing but zeros was measured.
    """

    name: str
    title: str
    series: tuple[tuple[str, str], ...]
    percent: bool = False
    zero: bool = False
    note: str = ""
    is_main: bool = False
    hides_zeros: bool = False


CHARTS = (
    Chart(
        "loss",
        "Loss",
        (("train/loss", "total"), ("train/repr_loss", "BYOL"), ("train/online_loss", "classifier")),
        note="BYOL's part lies between 0 (views agree) and 8; by itself it does not tell whether "
        "anything is learned.",
        is_main=True,
    ),
    Chart(
        "loss_per_view",
        "BYOL loss by view",
        (
            ("train/view1_loss", "view 1 predicts view 2"),
            ("train/view2_loss", "view 2 predicts view 1"),
        ),
        note="Each term lies between 0 and 4; their sum is BYOL's loss.",
    ),
    Chart(
        "knn",
        "Accuracy of the frozen encoder",
        (
            ("probe/knn_top1", "nearest neighbors"),
            ("probe/linear_top1", "linear classifier"),
            ("probe/raw_pixels_knn_top1", "raw pixels, neighbors"),
        ),
        percent=True,
        note="On the evaluation split. Should rise above its value at step 0, which is that of "
        "random weights, and above raw pixels.",
        is_main=True,
    ),
    Chart(
        "online_accuracy",
        "Online accuracy",
        (("train/online_top1", "top-1"), ("train/online_top5", "top-5")),
        percent=True,
        note="Of a linear classifier that learns beside the encoder, on augmented training "
        "batches.",
    ),
    Chart(
        "feature_std",
        "Feature std",
        (("train/feature_std", "projections"), ("probe/feature_std", "embeddings")),
        zero=True,
        note="Near 1: features fill the sphere; near 0: all images look alike. Projections of runs "
        "that learned have 0.6 to 0.9, of collapsed ones 0.02.",
        is_main=True,
    ),
    Chart(
        "effective_rank",
        "Effective rank",
        (("train/effective_rank", "projections"), ("probe/effective_rank", "embeddings")),
        zero=True,
        note="How many directions the features use (RankMe). Projections of 64 dimensions have 6 "
        "to 11 in runs that learned, below 2 in collapsed ones.",
    ),
    Chart(
        "target_cosine",
        "Cosine of prediction and target",
        (("train/target_cosine", "mean cosine"),),
        note="What the loss raises. Nearly 1 from early on is suspicious.",
    ),
    Chart("learning_rate", "Learning rate", (("train/learning_rate", "learning rate"),), zero=True),
    Chart(
        "tau",
        "Target's τ",
        (("train/tau", "τ"),),
        note="Fraction of the target network that each step keeps.",
    ),
    Chart("gradient_norm", "Gradient norm", (("train/gradient_norm", "gradient norm"),), zero=True),
    Chart(
        "images_per_second",
        "Images per second",
        (("train/images_per_second", "images/s"),),
        zero=True,
    ),
    Chart(
        "bad_images",
        "Images that could not be read",
        (("data/bad_images", "bad images, in all"),),
        zero=True,
        hides_zeros=True,
    ),
)


def charts_of(runs: Sequence[Run]) -> list[Chart]:
    """The charts for which there is something to draw; unknown metrics get one each, at the end."""
    found = {key for run in runs for key in run.metrics.series}
    known = {key for chart in CHARTS for key, _ in chart.series}
    chosen = []
    for chart in CHARTS:
        series = tuple(pair for pair in chart.series if pair[0] in found)
        if series and not (chart.hides_zeros and _are_zeros(runs, series)):
            chosen.append(chart._replace(series=series))
    others = sorted(key for key in found - known if _is_numeric(runs, key))
    names = {chart.name for chart in CHARTS}
    for key in others:
        chosen.append(Chart(_file_name(key, names), key, ((key, key),)))
        names.add(chosen[-1].name)
    return chosen


def _are_zeros(runs: Sequence[Run], series: Sequence[tuple[str, str]]) -> bool:
    found = (point for run in runs for key, _ in series for point in run_data.points(run, key))
    return all(value == 0 for _, value in found)


def _is_numeric(runs: Sequence[Run], key: str) -> bool:
    return any(run_data.first_and_last(run, key) for run in runs)


def _file_name(key: str, taken: Collection[str]) -> str:
    """A name that no other chart has."""
    name = "".join(letter if letter.isalnum() else "_" for letter in key)[:100]
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return name if name not in taken else next(n for n in numbered if n not in taken)


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """So few points that the curve looks the same: of every stretch the least and the greatest.

    Ends, and the first missing value of every stretch, are kept too. No value is averaged or
    invented.

    Args:
      points: in the order of steps.
      most: how many points of numbers may be left, at least 4.
    """
    if len(points) <= most:
        return list(points)
    stretches = max((most - 2) // 2, 1)
    kept = {0, len(points) - 1}
    for number in range(stretches):
        part = range(number * len(points) // stretches, (number + 1) * len(points) // stretches)
        finite = [i for i in part if points[i][1] is not None]
        missing = [i for i in part if points[i][1] is None]
        if finite:
            kept |= {
                min(finite, key=lambda i: points[i][1]),
                max(finite, key=lambda i: points[i][1]),
            }
        kept |= set(missing[:1])
    return [points[i] for i in sorted(kept)]


def as_data(runs: Sequence[Run]) -> dict[str, object]:
    """Everything that the page's script draws, ready for JSON."""
    charts = []
    for chart in charts_of(runs):
        curves = []
        for number, run in enumerate(runs):
            for key, label in chart.series:
                if points := run_data.points(run, key):
                    curves.append({"run": number, "label": label} | _curve(run, key, points))
        shape = {"name": chart.name, "percent": chart.percent, "zero": chart.zero}
        charts.append(shape | {"curves": curves})
    return {
        "runs": [run.name for run in runs],
        "last": max((run_data.last_step(run) for run in runs), default=0),
        "charts": charts,
    }


def _curve(run: Run, key: str, points: Sequence[Point]) -> dict[str, object]:
    if key in CONSTANT:  # measured once, and true of every step
        steps, value = (0, run_data.last_step(run)), points[-1][1]
        return {"x": steps, "y": (value, value), "constant": True}
    steps, values = zip(*thin(points), strict=True)
    return {"x": steps, "y": values, "constant": False}
