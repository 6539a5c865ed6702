"""What a report says of a run: the guard's judgment, what noise explains, whether it is alive."""

import fcntl
import itertools
import json
import os
import platform

import pytest

from byol_jax import config as config_lib
from byol_jax.report import collapse_rule, run_data, run_state, verdicts
from byol_jax.training import collapse_monitor, settings
from tests.conftest import make_config
from tests.support.pages import CONFIG, make_run, row


def load(folder):
    return run_data.load_run(folder, "run")


def verdict(folder, *, later=0.0):
    run = load(folder)
    return verdicts.judge(run, now=run.changed + later)


VALUES = {
    "feature_std": (0.05, 0.1, 0.9, None),
    "effective_rank": (1.1, 2.0, 20.0),
    "target_cosine": (0.5, 0.995, 0.999),
}


def test_report_summary_and_guard_judge_alike():
    """On a grid of values and limits, measurement by measurement."""
    bounds = itertools.product((0.1, 0.95), (2.0, 1.0), (0.995, 0.9), (1, 3))
    for std, rank, cosine, patience in bounds:
        keys = {"min_feature_std": std, "min_effective_rank": rank}
        keys |= {"max_target_cosine": cosine, "patience": patience}
        config = make_config(**{f"collapse.{key}": value for key, value in keys.items()})
        section = config_lib.freeze(settings.Collapse, config.collapse)
        limits = collapse_monitor.make_limits(section)
        guard = collapse_monitor.Guard(limits, patience=patience, stops=False, advice=[])
        judge = collapse_rule.Judge(collapse_rule.limits(config.to_dict()))
        rows, noticed = [], []
        for step, values in enumerate(itertools.product(*VALUES.values())):
            for again in range(3):
                named = dict(zip(VALUES, values, strict=True))
                rows.append({f"train/{key}": value for key, value in named.items()})
                judge.see(3 * step + again, rows[-1])
                numbers = (float("nan") if v is None else v for v in named.values())
                if guard.check(3 * step + again, collapse_monitor.Measures(*numbers)):
                    noticed.append(3 * step + again)
                assert judge.is_collapsed == bool(collapse_monitor.find(rows, section))
        assert judge.collapses == noticed[-10:] and noticed


def test_a_rank_and_a_cosine_beyond_the_runs_own_limits_are_a_collapse(tmp_path):
    bad = {"train/feature_std": 0.9, "train/effective_rank": 1.1, "train/target_cosine": 0.999}
    folder = make_run(tmp_path / "run", [row(n, **bad) for n in (98, 99, 100)])
    found = verdict(folder)
    text = " ".join(found.sentences)
    assert found.mood == verdicts.BAD and "COLLAPSED: at the last 3 logs" in text
    assert "effective rank 1.1 is below 2" in text and "0.999 is above 0.995" in text
    loose = {"min_effective_rank": 1.0, "max_target_cosine": 1.0}
    make_run(folder, [row(n, **bad) for n in (98, 99, 100)], config=CONFIG | {"collapse": loose})
    assert "No collapse" in " ".join(verdict(folder).sentences)


def test_intervals_are_those_of_newcombes_papers():
    """Statistics in Medicine 17 (1998): tables I of pages 857 and II of 873."""
    for correct, count, expected in ((81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605))):
        found = verdicts.wilson_interval(correct / count, count)
        assert found == pytest.approx(expected, abs=1e-4)
    found = verdicts.difference_interval(3 / 10, 9 / 10, 10)
    assert found == pytest.approx((0.1705, 0.8090), abs=1e-4)
    assert verdicts.difference_interval(0.1, 0.3, None) == pytest.approx((0.2, 0.2))


PROBE = '{"event": "probe", "num_images": 272}\n'
ACCURACIES = {  # first and last of 272 images, what is said
    "noise, up": (0.8125, 0.8162, verdicts.OPEN, "No measurable difference"),
    "noise, down": (0.8125, 0.7978, verdicts.OPEN, "No measurable difference"),
    "better": (0.5, 0.8, verdicts.GOOD, "on 272 images"),
    "worse": (0.8, 0.5, verdicts.BAD, "no better than it began"),
}


@pytest.mark.parametrize("case", ACCURACIES)
@pytest.mark.parametrize("source", ["sessions", "classes"])
def test_differences_within_the_noise_are_no_differences(case, source, tmp_path):
    first, last, mood, words = ACCURACIES[case]
    rows = [row(0, **{"probe/knn_top1": first}), row(100, **{"probe/knn_top1": last})]
    folder = make_run(tmp_path / "run", rows)
    if source == "sessions":
        (folder / "sessions.jsonl").write_text(PROBE)
    if source == "classes":  # of a run that did not note how many images its probes are of
        classes = {"rows": [{"count": 200}, {"count": 72}]}
        make_run(folder / "gallery", [], classes=classes)
    found = verdict(folder)
    assert found.mood == mood and words in " ".join(found.sentences)


def test_raw_pixels_are_beaten_by_more_than_noise_or_not(tmp_path):
    for raw, words in ((0.79, "No measurable difference from raw pixels"), (0.5, "raw pixels")):
        first = {"probe/knn_top1": 0.3, "probe/raw_pixels_knn_top1": raw}
        folder = make_run(tmp_path / "run", [row(0, **first), row(100, **{"probe/knn_top1": 0.8})])
        (folder / "sessions.jsonl").write_text(PROBE)
        found = verdict(folder)
        assert words in " ".join(found.sentences)
        assert found.mood == (verdicts.OPEN if raw > 0.7 else verdicts.GOOD)


def test_naming_the_most_frequent_class_is_the_least_to_beat(tmp_path):
    classes = {"rows": [{"count": 200}, {"count": 72}]}
    for last, mood in ((0.73, verdicts.OPEN), (0.95, verdicts.GOOD)):
        rows = [row(0, **{"probe/knn_top1": 0.3}), row(100, **{"probe/knn_top1": last})]
        folder = make_run(tmp_path / "run", rows)
        make_run(folder / "gallery", [], classes=classes)
        found = verdict(folder)
        text = " ".join(found.sentences)
        assert found.mood == mood and "the most frequent class alone is 73.5%" in text
        assert ("would be no worse" in text) == (mood == verdicts.OPEN)


def test_where_nothing_was_measured_nothing_is_called_good(tmp_path):
    values = {"train/feature_std": 0.9, "train/effective_rank": 20.0}
    found = verdict(make_run(tmp_path / "run", [row(100, **values)]))
    assert found.mood == verdicts.OPEN and "No accuracy was measured." in found.sentences


def hold(folder, *, host=None):
    """Takes the lock of a run, as its process does."""
    file = (folder / "lock").open("a+")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.write(f"process {os.getpid()} on {host or platform.node()}\n")
    file.flush()
    return file


def test_a_silent_run_whose_lock_is_held_is_alive_and_one_whose_lock_is_free_is_gone(tmp_path):
    folder = make_run(tmp_path / "run", [row(10)])
    with hold(folder):
        assert "Going on: 10 of 100 steps so far." in verdict(folder).sentences[0]
        text = verdict(folder, later=9999).sentences[0]
        assert "Going on" in text and "3 hours, but its process is at work" in text
    assert "Interrupted after 10 of 100" in verdict(folder, later=9999).sentences[0]
    assert "its process is gone" in verdict(folder).sentences[0]  # at once


def test_another_machines_run_is_never_called_dead(tmp_path):
    folder = make_run(tmp_path / "run", [row(10)])
    hold(folder, host="elsewhere").close()
    assert "Going on" in verdict(folder).sentences[0]
    text = verdict(folder, later=9999).sentences[0]
    assert "cannot be told from here" in text and "Interrupted" not in text


def test_a_run_of_slow_steps_may_be_silent_for_longer(tmp_path):
    config = CONFIG | {"batch_size": 256, "log_every_steps": 100}
    slow = row(10, **{"train/images_per_second": 25.6})  # ten seconds a step
    folder = make_run(tmp_path / "run", [slow], config=config)
    assert "Going on" in verdict(folder, later=2999).sentences[0]
    assert "cannot be told" in verdict(folder, later=3001).sentences[0]


def test_a_run_that_goes_on_after_a_session_that_failed_is_going_on(tmp_path):
    folder = make_run(tmp_path / "run", [row(10)])
    end = {"event": "end", "status": "failed", "message": "loss is nan"}
    (folder / "sessions.jsonl").write_text(json.dumps(end) + "\n")
    with hold(folder):
        assert "Going on" in verdict(folder).sentences[0]
    assert "loss is nan" in verdict(folder).sentences[0]


def test_looking_at_a_run_does_not_take_its_lock(tmp_path):
    folder = make_run(tmp_path / "run", [row(10)])
    (folder / "lock").write_text("process 1 on here\n")
    assert run_state.state(folder) == run_state.UNKNOWN
    hold(folder).close()
    assert (folder / "lock").read_text().startswith("process 1 on here\n")
