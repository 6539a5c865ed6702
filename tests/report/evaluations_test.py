"""The page of an evaluation: classes, mistakes, sweep, and what an encoder has to beat."""

import json
import re

import pytest

from byol_jax.report import evaluations, html_page, run_data, verdicts
from tests.support.pages import EVIL, Elements

CONFIG = {"task": "linear_eval", "weights": "checkpoint", "checkpoint": "runs/x", "seed": 0}
TEST = {
    "confusion": [[90, 10], [40, 60]],
    "most_frequent_top1": 0.5,
    "surely_wrong": [],
}


def write(folder, top1, *, weights="checkpoint", evaluated=200, **more):
    result = {
        "task": "linear_eval",
        "accuracy": {"top1": top1},
        "interval_95": {"top1": [top1 - 0.05, top1 + 0.05]},
        "num_images": {"evaluated": evaluated},
        "classes": ["cat", EVIL],
        "table": [
            {"base_learning_rate": 0.2, "validation_top1": 0.7, "temperature": 1.5},
            {"base_learning_rate": 0.1, "validation_top1": 0.8, "temperature": 1.2},
        ],
        "selected": {
            **{"base_learning_rate": 0.1, "validation_top1": 0.8, "temperature": 1.2},
            **{"among": 2, "on": "validation: 20 images"},
        },
        "test": TEST,
        "config": CONFIG | {"weights": weights},
        **more,
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def judge(folder):
    run = run_data.load_run(folder, "run")
    return verdicts.judge(run, now=run.changed)


BESIDE = {
    "better": (
        0.75,
        {"random": 0.5},
        verdicts.GOOD,
        r"Better than the untrained network \(50.0%\)",
    ),
    "no difference": (0.82, {"random": 0.81}, verdicts.OPEN, "No measurable difference.*longer"),
    "worse": (0.4, {"random": 0.7}, verdicts.BAD, "Worse than the untrained network"),
    "pixels": (0.75, {"random": 0.5, "pixels": 0.74}, verdicts.OPEN, "difference from raw pixels"),
    "not measured": (0.75, {}, verdicts.OPEN, "--config.weights=random"),
    "no better than a guess": (0.5, {"random": 0.2}, verdicts.OPEN, "would be no worse .50.0%"),
}


@pytest.mark.parametrize("case", BESIDE)
def test_a_verdict_says_what_was_beaten_and_by_how_much(case, tmp_path):
    top1, others, mood, words = BESIDE[case]
    folder = write(tmp_path / "linear-x", top1)
    for weights, value in others.items():
        write(tmp_path / f"linear-x-{weights}", value, weights=weights)
    found = judge(folder)
    assert found.mood == mood
    assert re.search(words, " ".join(found.sentences))


def test_a_baseline_of_another_evaluation_is_not_beside_it(tmp_path):
    folder = write(tmp_path / "linear-x", 0.8)
    other = CONFIG | {"weights": "random", "checkpoint": "runs/other"}
    write(tmp_path / "linear-y-random", 0.1, config=other)
    assert not run_data.load_run(folder, "run").beside


def test_classes_have_intervals_and_the_chosen_setting_is_marked(tmp_path):
    image = {"file": EVIL, "label": 0, "predicted": 1, "probability": 0.98, "image": "AAAA"}
    folder = write(tmp_path / "linear-x", 0.75)
    (folder / "gallery").mkdir()
    content = {"size": 96, "images": [image]}
    (folder / "gallery" / "mistakes.json").write_text(json.dumps(content))
    run = run_data.load_run(folder, "run")
    page = html_page.render([run], now=run.changed)
    text = Elements(page).text
    low, high = verdicts.wilson_interval(0.6, 100)
    for part in ("60.0%", f"{low:.1%} to {high:.1%}", "cat (40)", "98.0%", "chosen"):
        assert part in text
    assert text.count("chosen") == 1 and EVIL not in page
    ids = [section for section, *_ in evaluations.sections(run, 0)]
    assert ids == ["of-classes-0", "mistakes-0", "sweep-0"]


def test_many_classes_are_folded_and_their_confusions_listed(tmp_path):
    count = 30
    confusion = [
        [5 * (i == j) + (j == (i + 1) % count) for j in range(count)] for i in range(count)
    ]
    folder = write(tmp_path / "x", 0.8, test=TEST | {"confusion": confusion}, classes=[])
    (_, _, text), _ = evaluations.sections(run_data.load_run(folder, "run"), 0)
    assert "10 classes more" in text and "Most frequent confusions" in text
    assert 'class="matrix"' not in text


def test_a_damaged_result_does_not_end_the_page(tmp_path):
    for number, test in enumerate(({"confusion": [[1], "x"]}, {"confusion": 3}, 7)):
        folder = write(tmp_path / str(number), 0.8, test=test, classes=3)
        run = run_data.load_run(folder, "run")
        assert html_page.render([run], now=run.changed)
