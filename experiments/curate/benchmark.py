"""How long it takes to curate 20,000 images with features of 512 numbers, once these are there.

python experiments/curate/benchmark.py [IMAGES [SIZE]]
"""

import sys
import time

import numpy as np

from byol_jax.curation import alignment, duplicates, label_errors, neighbors, selection


def main() -> None:
    given = [int(text) for text in sys.argv[1:]]
    count, size = given + [20_000, 512][len(given) :]
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(100, size))
    labels = rng.integers(0, 100, count)
    features = (centers[labels] + rng.normal(size=(count, size))).astype(np.float32)
    coarse = rng.uniform(-0.5, 0.5, (count, 8, 8, 3)).astype(np.float32)
    pictures = coarse.repeat(alignment.SIDE // 8, axis=1).repeat(alignment.SIDE // 8, axis=2)
    rows = rng.permutation(count)[:500]
    noise = rng.normal(0, 0.02, pictures[rows].shape)
    known = duplicates.Known(rows, (pictures[rows] + noise).astype(np.float32))
    total = time.monotonic()

    def timed(title, work):
        start = time.monotonic()
        found = work()
        print(f"{title:<16}{time.monotonic() - start:7.1f} s", flush=True)
        return found

    points = neighbors.centered(features)
    nearest, similarity = timed("search", lambda: neighbors.nearest(points, 10))
    pairs = timed("proposals", lambda: duplicates.propose(nearest, pictures))
    chosen = timed("threshold", lambda: duplicates.choose_threshold(pictures, known, pairs))
    compared = timed("near-duplicates", lambda: duplicates.compare(pictures, pairs, known))
    duplicates.keepers(compared, np.arange(count), chosen.value)
    selection.outlier_scores(similarity)
    timed("subset of 500", lambda: selection.k_center(features, 500))
    timed("clusters", lambda: selection.clusters(features, 0, seed=0))
    timed("labels", lambda: label_errors.judge(features, labels % 10, seed=0))
    print(f"{'in all':<16}{time.monotonic() - total:7.1f} s for {count:,} x {size}")


if __name__ == "__main__":
    main()
