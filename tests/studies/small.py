"""A small study, and runs that only pretend to train."""

import sys
import textwrap

from byol_jax.studies import children, study

# What a run leaves, in an instant; its accuracy is its seed and its tau.
FAKE = """
import json, pathlib, sys, time
flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
tau, seed = float(flags["config.objective.base_target_ema"]), int(flags["config.seed"])
workdir = pathlib.Path(flags["workdir"])
workdir.mkdir(parents=True, exist_ok=True)
(workdir / "config.json").write_text(json.dumps({"total_steps": 4}))
(workdir / "data.json").write_text(json.dumps({"num_images": 10}))
def row(step, value):
    scores = {"probe/linear_top1": value, "probe/knn_top1": value / 2}
    return json.dumps({"step": step, "probe/feature_std": 1.0} | scores) + "\\n"
(workdir / "metrics.jsonl").write_text(row(0, 0.1))
BODY
with (workdir / "metrics.jsonl").open("a") as file:
    file.write(row(4, tau / 2 + seed / 100))
"""


def make(**changes):
    """The config of a study of tau, with two seeds."""
    options = {
        "question": "How fast?",
        "base": "configs/byol.py:patterns",
        "axes": (study.axis_of_key("tau", "objective.base_target_ema", (1.0, 0.5)),),
        "settings": {"total_steps": 4, "optimizer.warmup_steps": 2},
        "seeds": 2,
    }
    return study.make_config("small", **(options | changes))


def pretend(monkeypatch, body=""):
    """Makes every run do this in place of training."""
    real = children.command
    code = FAKE.replace("BODY", textwrap.dedent(body))
    monkeypatch.setattr(
        children,
        "command",
        lambda run, base, workdir: [sys.executable, "-c", code, *real(run, base, workdir)[3:]],
    )
