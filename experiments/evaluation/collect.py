"""Prints the results of run.sh as a table: python experiments/evaluation/collect.py RUNS."""

import collections
import json
import pathlib
import re
import statistics
import sys


def main(runs: str) -> None:
    """A row for every measurement, a column for what was measured; over seeds where there are."""
    cells = collections.defaultdict(list)
    for path in sorted(pathlib.Path(runs).glob("*/result.json")):
        name, weights, _ = re.fullmatch(
            r"(.*)-(checkpoint|random|pixels)-(\d)", path.parent.name
        ).groups()
        result = json.loads(path.read_text())
        cells[name, weights].append(100 * next(iter(result["accuracy"].values())))
        for measure in ("effective_rank", "feature_std", "alignment", "uniformity"):
            if measure in result.get("label_free", {}):
                cells[f"{name} {measure}", weights].append(result["label_free"][measure])
    columns = ("checkpoint", "random", "pixels")
    print("| | BYOL | random | raw pixels |\n|---|---|---|---|")
    for name in sorted({name for name, _ in cells}):
        print(f"| {name} | " + " | ".join(_cell(cells[name, c]) for c in columns) + " |")


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


if __name__ == "__main__":
    main(sys.argv[1])
