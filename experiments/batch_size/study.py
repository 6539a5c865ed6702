"""How small may the batch of batch norm and loss be, if the gradients of as many images count?"""

import ml_collections

from byol_jax.studies import study


def get_config() -> ml_collections.ConfigDict:
    """Table 16: N micro-batches a step, of which gradients are averaged; all else stays."""
    return study.make_config(
        "batch_size",
        question="How small may the batch be, if the gradients of as many images count?",
        base="experiments/short.py",
        axes=(
            study.Axis(
                "batch", {"64": {}} | {str(64 // n): {"accumulate": n} for n in (2, 4, 8, 16)}
            ),
        ),
        paper={"64": 72.5, "32": 72.4, "16": 72.2, "8": 72.2, "4": 71.8},
        paper_title="paper, table 16 (4096 to 256)",
        findings=(
            study.Finding("An eighth costs less than two points", "8", "64", margin=-0.02),
            study.Finding("A sixteenth costs less than two points", "4", "64", margin=-0.02),
        ),
    )
