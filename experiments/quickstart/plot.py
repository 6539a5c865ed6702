"""Draws plot.png and prints the table of this folder's README from results/*.jsonl."""

import json
import pathlib

import matplotlib.pyplot as plt

FOLDER = pathlib.Path(__file__).parent
SEEDS = ("seed0", "seed1", "seed2")
OTHERS = ("adamw", "no_predictor", "tau1", "tau0")
# Distinguishable without color vision, and by line style.
STYLES = {
    "seed0": ("#0072b2", "-"),
    "seed1": ("#0072b2", "--"),
    "seed2": ("#0072b2", ":"),
    "adamw": ("#009e73", "-"),
    "no_predictor": ("#d55e00", "-"),
    "tau1": ("#cc79a7", "-"),
    "tau0": ("#e69f00", "-"),
}


def read(name):
    lines = (FOLDER / "results" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def series(rows, key):
    points = [(row["step"], row[key]) for row in rows if key in row]
    return zip(*points, strict=True)


def draw(runs):
    panels = [
        ("probe/knn_top1", "kNN accuracy on test images"),
        ("train/feature_std", "feature std of the projections"),
        ("train/repr_loss", "BYOL's loss"),
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 4))
    for axis, (key, title) in zip(axes, panels, strict=True):
        for name, rows in runs.items():
            color, style = STYLES[name]
            axis.plot(*series(rows, key), style, color=color, label=name)
        axis.set(title=title, xlabel="step", ylim=(0, None))
        axis.grid(alpha=0.3)
    raw = runs["seed0"][0]["probe/raw_pixels_knn_top1"]
    axes[0].axhline(raw, color="0.4", lw=1)
    axes[0].text(0, raw + 0.01, "raw pixels", color="0.3")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(FOLDER / "plot.png", dpi=110)


def table(runs):
    print("| run | random kNN / linear | final kNN / linear | feature std at the end |")
    print("|---|---|---|---|")
    for name, rows in runs.items():
        scored = [row for row in rows if "probe/linear_top1" in row]
        cells = [
            f"{row['probe/knn_top1']:.1%} / {row['probe/linear_top1']:.1%}"
            for row in (scored[0], scored[-1])
        ]
        std = [row["train/feature_std"] for row in rows if "train/feature_std" in row][-1]
        print(f"| {name} | {cells[0]} | {cells[1]} | {std:.3f} |")
    for key in ("probe/knn_top1", "probe/linear_top1"):
        last = [[row[key] for row in runs[name] if key in row][-1] for name in SEEDS]
        print(f"mean of {key} over seeds: {sum(last) / len(last):.1%}")
    for name in SEEDS:
        rate = [row["train/images_per_second"] for row in runs[name] if "train/loss" in row]
        print(f"{name}: median {sorted(rate)[len(rate) // 2]:.0f} images/s")


if __name__ == "__main__":
    loaded = {name: read(name) for name in (*SEEDS, *OTHERS)}
    draw(loaded)
    table(loaded)
