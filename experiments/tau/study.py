"""What does the target's moving average contribute, and how fast should it move?"""

import ml_collections

from byol_jax.studies import study


def get_config() -> ml_collections.ConfigDict:
    """The study of table 5a."""
    return study.make_config(
        "tau",
        question="What does the target's moving average contribute, and how fast should it move?",
        base="experiments/short.py",
        # tau grows to 1 by a cosine, as in the paper, but for the copy, which remains one.
        axes=(
            study.Axis(
                "tau",
                {
                    "1": {"objective.base_target_ema": 1.0},
                    "0.999": {"objective.base_target_ema": 0.999},
                    "0.99": {},
                    "0.9": {"objective.base_target_ema": 0.9},
                    "0": {
                        "objective.base_target_ema": 0.0,
                        "objective.target_ema_schedule": "constant",
                    },
                },
            ),
        ),
        paper={"1": 18.8, "0.999": 69.8, "0.99": 72.5, "0.9": 68.4, "0": 0.3},
        paper_title="paper, table 5a",
        findings=(
            study.Finding("A fixed random target helps", "1", study.UNTRAINED),
            study.Finding("A moving target beats a fixed one", "0.99", "1"),
            study.Finding("A copy of the online network is worse", "0.99", "0"),
            study.Finding("With a copy nothing is learned", study.UNTRAINED, "0"),
            study.Finding("0.99 beats 0.999", "0.99", "0.999"),
            study.Finding("0.99 beats 0.9", "0.99", "0.9"),
        ),
    )
