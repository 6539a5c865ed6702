"""Which augmentations does BYOL need?"""

import ml_collections

from byol_jax.studies import study


def without(*names: str) -> dict[str, float]:
    """Keys that turn augmentations off in both views."""
    return {
        f"augment.{view}.{name}_probability": 0.0 for view in ("view1", "view2") for name in names
    }


def get_config() -> ml_collections.ConfigDict:
    """The rows of table 17 that the embedded images have; there, nothing is blurred."""
    return study.make_config(
        "augmentations",
        question="Which augmentations does BYOL need?",
        base="experiments/short.py",
        axes=(
            study.Axis(
                "augmentations",
                {
                    "all": {},
                    "no color": without("jitter", "grayscale"),
                    "crop only": without("jitter", "grayscale", "flip", "solarize"),
                    "no grayscale": without("grayscale"),
                    "no jitter": without("jitter"),
                    "no flip": without("flip"),
                    "no solarize": {"augment.view2.solarize_probability": 0.0},
                },
            ),
        ),
        paper={
            "all": 72.5,
            "no color": 63.4,
            "crop only": 59.4,
            "no grayscale": 70.3,
            "no jitter": 71.8,
            "no flip": 71.9,
            "no solarize": 72.3,
        },
        paper_title="paper, table 17",
        findings=(
            study.Finding("Color matters", "all", "no color"),
            study.Finding("With crops alone most is lost", "no color", "crop only"),
            study.Finding("Without color something is learned", "no color", study.UNTRAINED),
            study.Finding("Grayscale matters", "all", "no grayscale"),
            study.Finding("Without flips little is lost", "no flip", "all", margin=-0.02),
        ),
    )
