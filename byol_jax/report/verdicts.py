"""Says in plain words how a run stands: finished or not, learned or not, healthy or collapsed."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from byol_jax.report import metric_curves, run_data, run_state
from byol_jax.report.run_data import Run

Z = 1.959964  # of a normal distribution, for intervals of 95 %
GOOD, BAD, OPEN = "good", "bad", "open"
LONGER = (
    "Train longer (total_steps of a new run), or start from pretrained weights (checkpoint): "
    "docs/recipes.md."
)
_number = metric_curves.number


class Verdict(NamedTuple):
    """What to think of a run.

    Attributes:
      mood: one of GOOD, BAD and OPEN.
      sentences: what there is to say, the most important one first.
    """

    mood: str
    sentences: list[str]


def judge(run: Run, *, now: float) -> Verdict:
    """The verdict on a run as it stands ``now``, in seconds since 1970."""
    if not run_data.is_pretraining(run):
        mood, beside = _beside(run) if run.result else (OPEN, [])
        first, *rest = _evaluation(run)
        return Verdict(mood, [first, *beside, *rest])
    mood, progress = _progress(run, now)
    parts = [(mood, progress), _accuracy(run), _health(run), _numbers(run)]
    moods = [mood for mood, text in parts if text]
    sentences = [text for _, text in parts if text]
    return Verdict(BAD if BAD in moods else OPEN if OPEN in moods else GOOD, sentences)


def is_quiet(run: Run, now: float) -> bool:
    """Whether a run has written nothing for longer than its own pace explains."""
    speed = run_data.first_and_last(run, "train/images_per_second")
    seconds = run_state.seconds_of_step(run.config, speed[1][1] if speed else None)
    return now - run.changed > run_state.quiet_seconds(run.config, seconds)


def _progress(run: Run, now: float) -> tuple[str, str]:
    step, total = run_data.last_step(run), run_data.total_steps(run)
    of = f"{step:,} of {total:,} steps" if total else f"{step:,} steps"
    end = run_data.end(run)
    if end.get("status") == "failed" and run.life != run_state.ALIVE:
        return BAD, f"Failed after {of}: {end.get('message', 'no reason was noted')}"
    if total and step >= total:
        return GOOD, f"Finished: all {total:,} steps are done."
    silence = f"nothing has been written for {_duration(now - run.changed)}"
    if run.life == run_state.ALIVE:
        quiet = f"; {silence}, but its process is at work" if is_quiet(run, now) else ""
        return OPEN, f"Going on: {of} so far{quiet}."
    if end:
        return OPEN, f"Stopped and saved after {of}; the same command resumes."
    if run.life == run_state.GONE:
        return OPEN, (
            f"Interrupted after {of}: its process is gone, {silence}; the same command resumes."
        )
    if not is_quiet(run, now):
        return OPEN, f"Going on: {of} so far."
    return OPEN, (
        f"{of} so far, {silence}. Whether it is going on cannot be told from here: look on the "
        "machine where it was started."
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 0):.0f} seconds"
    minutes = seconds / 60
    return f"{minutes:,.0f} minutes" if minutes < 120 else f"{minutes / 60:,.0f} hours"


def _accuracy(run: Run) -> tuple[str, str]:
    found = run_data.first_and_last(run, "probe/knn_top1")
    if found is None and run.data.get("num_classes") == 0:
        return GOOD, "No labels, so no accuracy: judge by the pictures."
    if found is None:
        return OPEN, "No accuracy was measured." if run.metrics.num_rows else ""
    (first_step, first), (last_step, last) = found
    if first_step == last_step:
        return OPEN, f"kNN accuracy {last:.1%} at step {last_step:,}; no later one yet."
    begin = "random weights" if first_step == 0 else f"step {first_step:,}"
    text = f"kNN accuracy went from {first:.1%} ({begin}) to {last:.1%} (step {last_step:,})"
    pixels = run_data.first_and_last(run, "probe/raw_pixels_knn_top1")
    raw = pixels[1][1] if pixels else None
    count, common = _num_images(run), _most_frequent(run)
    of_raw = f"; raw pixels give {raw:.1%}" if raw is not None else ""
    of_common = f"; the most frequent class alone is {common:.1%}" if common else ""
    on = f", on {count:,} images." if count else "."
    text = f"{text}{of_raw}{of_common}{on}"
    low, high = difference_interval(first, last, count)
    if high <= 0:
        return BAD, f"{text} The encoder got no better than it began."
    if low <= 0:
        return OPEN, f"{text} No measurable difference{_margin(low, high)}. {LONGER}"
    if common and last <= common:
        return OPEN, f"{text} Naming the most frequent class would be no worse."
    if raw is None:
        return GOOD, text
    low, high = difference_interval(raw, last, count)
    if high <= 0:
        return OPEN, f"{text} It does not beat raw pixels yet."
    if low <= 0:
        return OPEN, f"{text} No measurable difference from raw pixels{_margin(low, high)}."
    return GOOD, text


def _margin(low: float, high: float) -> str:
    return f": the 95 % interval of the difference is {100 * low:+.1f} to {100 * high:+.1f} points"


def _most_frequent(run: Run) -> float | None:
    """The fraction of images of the largest class: what naming it for all images would give."""
    counts = _class_counts(run)
    return max(counts) / sum(counts) if counts and sum(counts) else None


def _num_images(run: Run) -> int | None:
    """How many images the accuracies are of; of runs that did not note it, those of the classes."""
    noted = [row.get("num_images") for row in run.sessions if row.get("event") == "probe"]
    if noted and _number(noted[-1]):
        return int(_number(noted[-1]))
    counts = _class_counts(run)
    return int(sum(counts)) if counts else None


def _class_counts(run: Run) -> list[float]:
    """How many images each class has; empty if that is not known of all."""
    rows = run.gallery.get("classes", {}).get("rows")
    rows = rows if isinstance(rows, list) else []
    counts = [_number(row.get("count")) for row in rows if isinstance(row, dict)]
    return [] if None in counts else counts


def difference_interval(before: float, after: float, count: int | None) -> tuple[float, float]:
    """95 % interval of the difference of two accuracies, each of ``count`` images.

    Newcombe's, from Wilson's intervals of both (Statistics in Medicine 17, 1998, method 10). Both
    are taken for independent: which images were right is not kept, and that they are the same ones
    makes the interval wider than it need be, never narrower. Without a count, the difference.
    """
    difference = after - before
    if not count or count < 0:
        return difference, difference
    (low1, high1), (low2, high2) = wilson_interval(before, count), wilson_interval(after, count)
    return (
        difference - math.hypot(after - low2, high1 - before),
        difference + math.hypot(high2 - after, before - low1),
    )


def wilson_interval(fraction: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a fraction of ``count`` images."""
    center = fraction + Z**2 / (2 * count)
    margin = Z * math.sqrt(max(fraction * (1 - fraction), 0) / count + Z**2 / (4 * count**2))
    whole = 1 + Z**2 / count
    return (center - margin) / whole, (center + margin) / whole


def _health(run: Run) -> tuple[str, str]:
    judge_, bounds = run.metrics.watcher, run.metrics.watcher.bounds
    spread = run_data.first_and_last(run, "train/feature_std")
    if spread is None:
        return (
            OPEN,
            "" if not run.metrics.num_rows else "The projections have not been measured yet.",
        )
    rank = run_data.first_and_last(run, "train/effective_rank")
    width = run_data.section(run.config, "model").get("projector_output_size")
    of = f" of {width}" if width else ""
    directions = f", effective rank {rank[1][1]:.1f}{of}" if rank else ""
    limit = f"below {bounds.min_feature_std:g} is collapse"
    measured = f"projections have feature std {spread[1][1]:.2f} ({limit}){directions}"
    beyond = "; ".join(judge_.beyond)
    if judge_.is_collapsed:
        times = f"at the last {judge_.count} logs " if judge_.count > 1 else ""
        return BAD, f"COLLAPSED: {times}{beyond}; nothing is learned from there on. The {measured}."
    if judge_.beyond:
        return OPEN, (
            f"It may be collapsing: at the last {judge_.count} logs {beyond} "
            f"(collapse.patience is {bounds.patience:g}). The {measured}."
        )
    before = ", ".join(f"{step:,}" for step in judge_.collapses)
    since = f" It had collapsed at step {before}, and is over it." if before else ""
    return (OPEN if before else GOOD), f"No collapse: {measured}.{since}"


def _numbers(run: Run) -> tuple[str, str]:
    """Warns of values that are no numbers."""
    bad = {key: found for key, found in run.metrics.series.items() if found.missing}
    if not bad:
        return GOOD, ""
    key = min(bad, key=lambda name: bad[name].first_missing)
    count, step = sum(found.missing for found in bad.values()), bad[key].first_missing
    return BAD, f"{count:,} values are not numbers, first {key} at step {step:,}."


def _evaluation(run: Run) -> list[str]:
    result = run.result
    if not result:
        return ["No result yet."]
    accuracy = result.get("accuracy")
    task = str(result.get("task") or run.config.get("task") or "result").replace("_", " ")
    sentences = []
    if isinstance(result.get("summary"), list):
        return [str(sentence) for sentence in result["summary"]]
    if isinstance(accuracy, dict):
        sentences.append(f"{task}: {', '.join(_shares(result, accuracy))}.")
    elif _number(accuracy) is not None:
        sentences.append(f"{task}: {accuracy:.2%}.")
    else:
        sentences.append(f"{task}: finished, without an accuracy.")
    counts = result.get("num_images")
    if isinstance(counts, dict) and isinstance(counts.get("evaluated"), int):
        sentences.append(f"Measured on {counts['evaluated']:,} images.")
    checkpoint = result.get("checkpoint")
    if isinstance(checkpoint, dict) and checkpoint.get("path"):
        sentences.append(f"The encoder is {checkpoint['path']}.")
    return sentences


BESIDE = {"random": "the untrained network", "pixels": "raw pixels"}


def _beside(run: Run) -> tuple[str, list[str]]:
    """How an accuracy compares with what it has to beat, on the same images."""
    accuracy = top1(run.result)
    common = _number(run_data.section(of_first_seed(run.result), "test").get("most_frequent_top1"))
    if accuracy is None or run_data.section(run.result, "config").get("weights") != "checkpoint":
        return GOOD, []
    moods, texts = [], []
    for weights, name in BESIDE.items():
        other = top1(run.beside.get(weights, {}))
        if other is not None:
            mood, text = _against(name, other, accuracy, _evaluated(run.result))
            moods, texts = [*moods, mood], [*texts, text]
    if common is not None and accuracy <= common:
        moods.append(OPEN)
        texts.append(f"Naming the most frequent class would be no worse ({common:.1%}).")
    elif common is not None:
        texts.append(f"Naming the most frequent class would give {common:.1%}.")
    if "random" not in run.beside and common is not None:
        moods.append(OPEN)
        texts.append(
            "The untrained network was not measured: add --config.weights=random to the same "
            f"command, then python -m byol_jax.report {run.path}."
        )
    return (BAD if BAD in moods else OPEN if OPEN in moods else GOOD), texts


def _against(name: str, other: float, accuracy: float, count: int | None) -> tuple[str, str]:
    low, high = difference_interval(other, accuracy, count)
    margin = _margin(low, high)
    if high < 0:
        return BAD, f"Worse than {name} ({other:.1%}){margin}."
    if low <= 0:
        advice = f" {LONGER}" if name == BESIDE["random"] else ""
        return OPEN, f"No measurable difference from {name} ({other:.1%}){margin}.{advice}"
    return GOOD, f"Better than {name} ({other:.1%}){margin}."


def of_first_seed(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the first of several seeds gave; the whole result of one."""
    seeds = result.get("per_seed")
    return seeds[0] if isinstance(seeds, list) and seeds else result


def top1(result: Mapping[str, Any]) -> float | None:
    """The accuracy of a result, or the mean of its seeds."""
    return _number(run_data.section(result, "accuracy").get("top1"))


def _evaluated(result: Mapping[str, Any]) -> int | None:
    count = _number(run_data.section(of_first_seed(result), "num_images").get("evaluated"))
    return None if count is None else int(count)


def _shares(result: dict, accuracy: dict) -> list[str]:
    """Accuracies with their intervals, where there are some."""
    intervals = result.get("interval_95")
    intervals = intervals if isinstance(intervals, dict) else {}
    texts = []
    for name, fraction in accuracy.items():
        if _number(fraction) is None:
            continue
        pair = intervals.get(name)
        is_pair = isinstance(pair, list) and len(pair) == 2 and None not in map(_number, pair)
        between = f" (95 % interval {pair[0]:.2%} to {pair[1]:.2%})" if is_pair else ""
        texts.append(f"{name.replace('top', 'top-')} {fraction:.2%}{between}")
    return texts
