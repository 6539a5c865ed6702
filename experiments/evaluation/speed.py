"""How long evaluation takes: python experiments/evaluation/speed.py RUN (a workdir of byol.py).

Prints seconds of a cached linear sweep, extraction as a fraction of the plain forward pass's speed,
and the nearest-neighbor hook's fraction of the time of pretraining. Each is a ratio of times taken
in turns, or one time; run it on a quiet machine.
"""

import statistics
import sys
import time

import jax
import numpy as np

from byol_jax.checkpoints import encoders
from byol_jax.data import datasets, eval_loader, patterns
from byol_jax.distributed import pmap
from byol_jax.evaluation import features, linear_probe
from byol_jax.training import build
from configs import byol


def linear_sweep() -> float:
    """Seconds of five rates for 80 epochs on 60,000 features of size 512."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((60_000, 512)).astype(np.float32)
    labels = rng.integers(0, 10, 60_000).astype(np.int32)
    start = time.perf_counter()
    state = linear_probe.init(
        [1.6, 1.2, 0.8, 0.4, 0.2],
        total_steps=80 * 60_000 // 1024,
        embedding_size=512,
        num_classes=10,
        seed=0,
    )
    linear_probe.train(state, inputs, labels, batch_size=1024, seed=0)
    return time.perf_counter() - start


def extraction(run: str, batch_size: int, rounds: int = 5) -> float:
    """Images a second of `features.extract` as a fraction of those of the forward pass alone."""
    encoder = encoders.load_encoder(run)
    data = datasets.ArrayDataset(*patterns.load("train"), len(patterns.CLASS_NAMES))
    batch = data.images[:batch_size]
    options = {"batch_size": batch_size, "title": "extract"}
    options["bad"] = eval_loader.BadLimit([data], 0.0)
    encoder.encode(batch)
    features.extract(encoder, data.take(batch_size), **options)
    ratios = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(data.num_images // batch_size):
            encoder.encode(batch)
        plain = (data.num_images // batch_size) * batch_size / (time.perf_counter() - start)
        start = time.perf_counter()
        features.extract(encoder, data, **options)
        ratios.append(data.num_images / (time.perf_counter() - start) / plain)
    return statistics.median(ratios)


def hook_share(rounds: int = 3) -> float:
    """Seconds of a probe as a fraction of those of the training between two of them."""
    config = byol.get_config()
    job = build.build(config)
    probe = build.make_probe(job)
    update = pmap.pmap_update(job.update)
    batches = build.make_train_batches(job.settings, job.images.train)
    state = pmap.replicate(job.state)
    state, _, _ = update(state, pmap.shard(next(batches)))
    probe(1, state)
    fractions = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(50):
            state, _, _ = update(state, pmap.shard(next(batches)))
        jax.block_until_ready(state)
        training = (time.perf_counter() - start) * config.probe.every_steps / 50
        start = time.perf_counter()
        probe(1, state)
        fractions.append((time.perf_counter() - start) / training)
    batches.close()
    return statistics.median(fractions)


def main(run: str) -> None:
    """Prints all of it."""
    for batch_size in (32, 64, 128, 256, 512):
        fraction = extraction(run, batch_size)
        print(f"extraction in batches of {batch_size}: {fraction:.0%} of the forward pass's speed")
    print(f"nearest-neighbor hook: {hook_share():.1%} of the time of training")
    print(f"cached linear evaluation, 60,000 x 512, 5 rates, 80 epochs: {linear_sweep():.1f} s")


if __name__ == "__main__":
    main(sys.argv[1])
