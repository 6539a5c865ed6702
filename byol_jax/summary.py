"""What a run says of its probes: a line for each, a table at the end."""

import pathlib

from byol_jax import parallel
from byol_jax import workdir as workdir_lib


def probe_line(step: int, scalars: dict[str, float]) -> str:
    """The scores of one probe."""
    parts = []
    if "probe/knn_top1" in scalars:
        parts.append(f"kNN {scalars['probe/knn_top1']:.1%}")
    if "probe/linear_top1" in scalars:
        parts.append(f"linear {scalars['probe/linear_top1']:.1%}")
    parts.append(f"feature std {scalars['probe/feature_std']:.2f}")
    parts.append(f"effective rank {scalars['probe/effective_rank']:.1f}")
    if "probe/raw_pixels_knn_top1" in scalars:
        parts.append(f"(raw pixels: kNN {scalars['probe/raw_pixels_knn_top1']:.1%})")
    return f"probe at step {step}: " + ", ".join(parts)


def has_probe(workdir: pathlib.Path, step: int) -> bool:
    """Whether the probe of a step was logged; to be called by all processes."""

    def find() -> bool:
        rows = workdir_lib.read_metrics(workdir)
        return any(row["step"] == step and "probe/feature_std" in row for row in rows)

    return parallel.on_writer(find)


def summarise(workdir: pathlib.Path, collapsed_std: float) -> str:
    """A table of the first and the last probe of a finished run, and whether it collapsed."""
    table = workdir_lib.read_metrics(workdir)
    rows = [row for row in table if "probe/feature_std" in row]
    lines = [f"{'':<18}{'kNN':>8}{'linear':>9}{'feature std':>13}{'effective rank':>16}"]
    if "probe/raw_pixels_knn_top1" in rows[0]:
        lines.append(f"{'raw pixels':<18}{rows[0]['probe/raw_pixels_knn_top1']:>8.1%}")
    for row in (rows[0], rows[-1]):
        name = "random network" if row["step"] == 0 else f"after {row['step']:,} steps"
        shares = (row.get(f"probe/{column}") for column in ("knn_top1", "linear_top1"))
        knn, linear = ("-" if share is None else f"{share:.1%}" for share in shares)
        std, rank = row["probe/feature_std"], row["probe/effective_rank"]
        lines.append(f"{name:<18}{knn:>8}{linear:>9}{std:>13.2f}{rank:>16.1f}")
    last = [row for row in table if "train/feature_std" in row][-1]
    if last["train/feature_std"] < collapsed_std:
        lines.append(f"COLLAPSED: the projections' std is {last['train/feature_std']:.3f}.")
    bad = last.get("data/bad_images")
    if bad:
        lines.append(f"{bad} bad images were left out: {workdir / 'bad_images.txt'}")
    return "\n" + "\n".join(lines) + f"\nMetrics and checkpoints: {workdir}"
