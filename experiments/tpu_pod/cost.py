"""How long ImageNet presets take on what machine, by operations and by memory traffic.

python -m experiments.tpu_pod.cost [fraction of the peak, 0.4 if not given]
"""

import sys

from byol_jax.training import paper_settings, resource_estimate, settings
from configs import byol

# Devices; of one, by its maker's data sheet: bfloat16 operations and bytes of memory a second.
MACHINES = {
    "v4-32 (16 chips)": (16, 275e12, 1.2e12),
    "v5litepod-64 (64 chips)": (64, 197e12, 0.82e12),
    "4 nodes of 8 A100 (80 GB)": (32, 312e12, 2.04e12),
    "1 node of 8 H100": (8, 989e12, 3.35e12),
}


def main(fraction: float) -> None:
    """Prints a table: hours of each length, and images a second that the input has to bring."""
    config = byol.get_config("imagenet-100")
    config.model.dtype = "bfloat16"
    run = settings.resolve(config, num_images=paper_settings.NUM_IMAGES)
    image = resource_estimate.flops_of_an_image(run)
    traffic = resource_estimate.bytes_of_an_image(run)
    print(
        f"{image / 1e9:.1f} GFLOP an image and step at {fraction:.0%} of the peak, "
        f"{traffic / 1e9:.1f} GB at all of the memory's speed: the slower counts\n"
    )
    lengths = " | ".join(f"{n} epochs" for n in paper_settings.BY_EPOCHS)
    print(f"| machine | {lengths} | images/s | bound by |")
    print("|---" * (len(paper_settings.BY_EPOCHS) + 3) + "|")
    for name, (devices, peak, bandwidth) in MACHINES.items():
        rates = {
            "operations": fraction * devices * peak / image,
            "memory": devices * bandwidth / traffic,
        }
        bound = min(rates, key=rates.__getitem__)
        rate = rates[bound]
        hours = [n * paper_settings.NUM_IMAGES / rate / 3600 for n in paper_settings.BY_EPOCHS]
        times = " | ".join(f"{h:.1f} h" for h in hours)
        print(f"| {name} | {times} | {rate:,.0f} | {bound} |")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.4)
