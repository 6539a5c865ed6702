"""Says in plain words how a run stands: finished or not, learned or not, healthy or collapsed."""

from typing import NamedTuple

from byol_jax import report_data
from byol_jax.report_data import Run

COLLAPSED_STD = 0.1  # of projections: below it, directions are as good as equal
GOOD, BAD, OPEN = "good", "bad", "open"


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
    if not report_data.is_pretraining(run):
        return Verdict(GOOD if run.result else OPEN, _evaluation(run))
    mood, progress = _progress(run, now)
    parts = [(mood, progress), _accuracy(run), _health(run), _numbers(run)]
    moods = [mood for mood, text in parts if text]
    sentences = [text for _, text in parts if text]
    return Verdict(BAD if BAD in moods else OPEN if OPEN in moods else GOOD, sentences)


def _progress(run: Run, now: float) -> tuple[str, str]:
    step, total = report_data.last_step(run), report_data.total_steps(run)
    of = f"{step:,} of {total:,} steps" if total else f"{step:,} steps"
    end = report_data.end(run)
    if end.get("status") == "failed":
        return BAD, f"Failed after {of}: {end.get('message', 'no reason was noted')}"
    if total and step >= total:
        return GOOD, f"Finished: all {total:,} steps are done."
    if end:
        return OPEN, f"Stopped and saved after {of}; the same command resumes."
    if now - run.changed < report_data.QUIET_SECONDS:
        return OPEN, f"Going on: {of} so far."
    minutes = (now - run.changed) / 60
    ago = f"{minutes:,.0f} minutes" if minutes < 120 else f"{minutes / 60:,.0f} hours"
    return OPEN, f"Interrupted after {of}: nothing has been written for {ago}."


def _accuracy(run: Run) -> tuple[str, str]:
    found = report_data.first_and_last(run, "probe/knn_top1")
    if found is None:
        has_labels = run.data.get("num_classes") != 0
        return GOOD, "" if has_labels else "No labels, so no accuracy: judge by the pictures."
    (first_step, first), (last_step, last) = found
    if first_step == last_step:
        return OPEN, f"kNN accuracy {last:.1%} at step {last_step:,}; no later one yet."
    begin = "random weights" if first_step == 0 else f"step {first_step:,}"
    text = f"kNN accuracy went from {first:.1%} ({begin}) to {last:.1%} (step {last_step:,})"
    pixels = report_data.first_and_last(run, "probe/raw_pixels_knn_top1")
    raw = pixels[1][1] if pixels else None
    text += f"; raw pixels give {raw:.1%}." if raw is not None else "."
    if last <= first:
        return BAD, f"{text} The encoder got no better than it began."
    if raw is not None and last <= raw:
        return OPEN, f"{text} It does not beat raw pixels yet."
    return GOOD, text


def _health(run: Run) -> tuple[str, str]:
    spread = report_data.first_and_last(run, "train/feature_std")
    if spread is None:
        return OPEN, "" if not run.rows else "The projections have not been measured yet."
    rank = report_data.first_and_last(run, "train/effective_rank")
    width = run.config.get("model", {}).get("projector_output_size")
    of = f" of {width}" if width else ""
    directions = f", effective rank {rank[1][1]:.1f}{of}" if rank else ""
    limit = f"below {COLLAPSED_STD:g} is collapse"
    measured = f"projections have feature std {spread[1][1]:.2f} ({limit}){directions}"
    if spread[1][1] < COLLAPSED_STD:
        return BAD, f"COLLAPSED: {measured}; all images look alike to the loss."
    return GOOD, f"No collapse: {measured}."


def _numbers(run: Run) -> tuple[str, str]:
    """Warns of values that are no numbers."""
    missing = [(row["step"], key) for row in run.rows for key in row if _is_missing(row[key])]
    if not missing:
        return GOOD, ""
    step, key = missing[0]
    return BAD, f"{len(missing):,} values are not numbers, first {key} at step {step:,}."


def _is_missing(value: object) -> bool:
    return value is None or (
        isinstance(value, float) and (value != value or abs(value) == float("inf"))
    )


def _evaluation(run: Run) -> list[str]:
    result = run.result
    if not result:
        return ["No result yet."]
    accuracy = result.get("accuracy")
    task = str(result.get("task") or run.config.get("task") or "result").replace("_", " ")
    sentences = []
    if isinstance(accuracy, dict):
        sentences.append(f"{task}: {', '.join(_shares(result, accuracy))}.")
    elif isinstance(accuracy, float):
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


def _shares(result: dict, accuracy: dict) -> list[str]:
    """Accuracies with their intervals, where there are some."""
    intervals = result.get("interval_95")
    intervals = intervals if isinstance(intervals, dict) else {}
    texts = []
    for name, share in accuracy.items():
        if not isinstance(share, int | float):
            continue
        pair = intervals.get(name)
        is_pair = isinstance(pair, list) and len(pair) == 2
        between = f" (95 % interval {pair[0]:.2%} to {pair[1]:.2%})" if is_pair else ""
        texts.append(f"{name.replace('top', 'top-')} {share:.2%}{between}")
    return texts
