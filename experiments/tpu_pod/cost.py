"""How long ImageNet presets take on what machine, by the formula of `byol_jax.models.flops`.

python -m experiments.tpu_pod.cost [fraction of the peak, 0.4 if not given]
"""

import sys

from byol_jax.training import paper_settings, resource_estimate, settings
from configs import byol

MACHINES = {  # devices, peak bfloat16 operations a second of one, by its maker's data sheet
    "v4-32 (16 chips)": (16, 275e12),
    "v5litepod-64 (64 chips)": (64, 197e12),
    "4 nodes of 8 A100": (32, 312e12),
    "1 node of 8 H100": (8, 989e12),
}


def main(fraction: float) -> None:
    """Prints a table: hours of each length, and images a second that the input has to bring."""
    run = settings.resolve(byol.get_config("imagenet-100"), num_images=paper_settings.NUM_IMAGES)
    image = resource_estimate.flops_of_an_image(run)
    print(f"{image / 1e9:.1f} GFLOP an image and step, {fraction:.0%} of the peak\n")
    print(
        "| machine | "
        + " | ".join(f"{n} epochs" for n in paper_settings.BY_EPOCHS)
        + " | images/s |"
    )
    print("|---" * (len(paper_settings.BY_EPOCHS) + 2) + "|")
    for name, (devices, peak) in MACHINES.items():
        rate = fraction * devices * peak / image
        hours = [n * paper_settings.NUM_IMAGES / rate / 3600 for n in paper_settings.BY_EPOCHS]
        print(f"| {name} | " + " | ".join(f"{h:.1f} h" for h in hours) + f" | {rate:,.0f} |")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.4)
