"""Predictor and target: what keeps BYOL from collapsing?"""

import ml_collections

from byol_jax.studies import study

NO_PREDICTOR = {"objective.name": "byol_no_predictor"}
COPY = {"objective.base_target_ema": 0.0, "objective.target_ema_schedule": "constant"}


def get_config() -> ml_collections.ConfigDict:
    """The rows of table 19 without negative pairs (beta = 0) whose target has no gradient."""
    return study.make_config(
        "bridge",
        question="Predictor and target: what keeps BYOL from collapsing?",
        base="experiments/short.py",
        axes=(
            study.Axis("predictor", {"predictor": {}, "no predictor": NO_PREDICTOR}),
            study.Axis("target", {"moving average": {}, "copy": COPY}),
        ),
        metrics=(study.LINEAR, study.KNN, "train/feature_std", "train/effective_rank"),
        paper={
            "predictor, moving average": 72.5,
            "predictor, copy": 5.5,
            "no predictor, moving average": 0.2,
            "no predictor, copy": 0.1,
        },
        paper_title="paper, table 19",
        findings=(
            study.Finding(
                "Without the predictor the projections collapse",
                greater="predictor, moving average",
                lesser="no predictor, moving average",
                margin=0.5,  # of a std that is at most 1
                metric="train/feature_std",
            ),
            study.Finding(
                "With a copy the projections collapse",
                greater="predictor, moving average",
                lesser="predictor, copy",
                margin=0.5,
                metric="train/feature_std",
            ),
            study.Finding(
                "The predictor is needed",
                greater="predictor, moving average",
                lesser="no predictor, moving average",
            ),
            study.Finding(
                "The moving average is needed",
                greater="predictor, moving average",
                lesser="predictor, copy",
            ),
            study.Finding(
                "Without the predictor less than nothing is learned",
                greater=study.UNTRAINED,
                lesser="no predictor, moving average",
            ),
            study.Finding(
                "With a copy less than nothing is learned",
                greater=study.UNTRAINED,
                lesser="predictor, copy",
            ),
            study.Finding(
                "With neither less than nothing is learned",
                greater=study.UNTRAINED,
                lesser="no predictor, copy",
            ),
        ),
    )
