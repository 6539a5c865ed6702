"""A first study: does BYOL need its predictor and its moving target on the embedded images?

    python -m byol_jax.main_loop --config=configs/study.py

A study runs pretraining once for each combination of settings and each seed, every run in a process
of its own, and says of each finding whether it holds. Finished runs are skipped and interrupted
ones resumed by the same command. Writes runs/, logs/, results.csv, results.md and plot.png to the
workdir, runs/study-first unless --workdir is given. A study of your own is a file like this one:
docs/studies.md. About ten minutes on 2 CPU cores.
"""

import ml_collections

from byol_jax.studies import study

NO_PREDICTOR = {"objective.name": "byol_no_predictor"}
COPIED = {"objective.base_target_ema": 0.0, "objective.target_ema_schedule": "constant"}


def get_config() -> ml_collections.ConfigDict:
    """The config; it has no presets."""
    return study.make_config(
        "first",
        question="Does BYOL need its predictor and its moving target on the embedded images?",
        base="configs/byol.py:patterns",
        settings={
            "total_steps": 300,
            "optimizer.warmup_steps": 30,
            "gallery.max_images": 0,
            "probe.every_steps": 10_000,
        },
        axes=(
            study.Axis("predictor", {"predictor": {}, "no predictor": NO_PREDICTOR}),
            study.Axis("target", {"moving average": {}, "copy of online": COPIED}),
        ),
        seeds=2,
        paper={
            "predictor, moving average": 72.5,
            "predictor, copy of online": 5.5,
            "no predictor, moving average": 0.2,
            "no predictor, copy of online": 0.1,
        },
        paper_title="paper, table 19",
        findings=(
            study.Finding(
                "Without the predictor it collapses",
                greater="predictor, moving average",
                lesser="no predictor, moving average",
            ),
        ),
    )
