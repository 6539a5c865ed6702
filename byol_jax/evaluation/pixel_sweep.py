"""What tasks that predict every pixel have in common: choose on held-out images, train, test once.

Shapes: N images of a split.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import datasets, eval_loader, pixel_loader, pixel_sets
from byol_jax.distributed import multihost, pmap
from byol_jax.evaluation import (
    pixel_protocol,
    pixel_training,
    protocol,
    results,
    resume,
    sweep,
)
from byol_jax.workdir import console

UsageError = config_lib.UsageError
Network = pixel_training.Network

SHOWN = 12  # tested images whose predictions are kept to be looked at


class Measured(NamedTuple):
    """What is said of some examples.

    Attributes:
      rows: numbers of each, which add up to those of a set.
      predicted: for each, what was predicted of every pixel.
    """

    rows: Sequence[np.ndarray]
    predicted: Sequence[np.ndarray]


class Job(NamedTuple):
    """What tells one task from another.

    Attributes:
      head: as functions of maps.
      update: one step, on all devices.
      make: what is learned from an example.
      measure: (network on the devices, examples) -> `Measured`.
      criterion: rows of all examples -> a number that is best when it is highest.
      criterion_name: what the number is.
      summarize: (rows, seed) -> what the result says of them.
    """

    head: Any
    update: Callable[..., Any]
    make: pixel_loader.Make
    measure: Callable[[Network, Sequence[pixel_sets.Example]], Measured]
    criterion: Callable[[np.ndarray], float]
    criterion_name: str
    summarize: Callable[[np.ndarray, int], dict[str, Any]]


class Shown(NamedTuple):
    """A tested image to look at: the example and what was predicted of it."""

    example: pixel_sets.Example
    predicted: np.ndarray


class Task(NamedTuple):
    """What a task says of itself, and how its job is made.

    Attributes:
      name: in words.
      drawn: what a seed decides, in words.
      choices: made where the paper is silent.
      network: the encoder of a seed.
      make_job: gives the job.
      show: is given some of the tested images with their predictions.
      pool_seeds: the result of several seeds -> what it says besides.
    """

    name: str
    drawn: str
    choices: Mapping[str, str]
    network: Callable[[int], encoders.Encoder]
    make_job: Callable[[], Job]
    show: Callable[[list[Shown]], None]
    pool_seeds: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda found: {}


def over_seeds(
    task: Task,
    settings: pixel_protocol.PixelSettings,
    setup: protocol.EvalSetup,
    work: resume.Unfinished,
    bad: eval_loader.BadLimit,
) -> dict[str, Any]:
    """Trains and tests with each seed, and gives what the result says of them.

    Args:
      task: of the config.
      settings: of the config.
      setup: with the encoder that the config names.
      work: what has been done so far.
      bad: notes images that cannot be used.
    """
    job = task.make_job()

    def of_seed(seed: int) -> dict[str, Any]:
        mine = setup._replace(encoder=task.network(seed))
        return score(job, settings, mine, work, bad, seed, task.show)

    found = results.over_seeds(
        settings,
        work.by_seed(of_seed),
        lambda seed: task.network(seed).identity,
        drawn=task.drawn,
    )
    trained = f"{task.name}, {settings.trained()} trained"
    return found | {**task.pool_seeds(found), "protocol": trained, "choices": task.choices}


def score(
    job: Job,
    settings: pixel_protocol.PixelSettings,
    setup: protocol.EvalSetup,
    work: resume.Unfinished,
    bad: eval_loader.BadLimit,
    seed: int,
    show: Callable[[list[Shown]], None],
) -> dict[str, Any]:
    """Chooses a learning rate on held-out images, trains with it, and tests once.

    Args:
      job: the task.
      settings: of the config.
      setup: with the network of the seed.
      work: what has been done so far.
      bad: notes images that cannot be used.
      seed: of the held-out images, the head, the order and the cuts.
      show: is given some of the tested images with their predictions.
    """
    everything = np.arange(setup.train.num_images)
    rates, fraction = settings.learning_rates, settings.data.validation_share

    def hold_out() -> tuple[np.ndarray, np.ndarray]:
        return protocol.split_train(setup, everything, fraction, seed=seed)

    def attempt(validation: np.ndarray, chosen: np.ndarray) -> Iterator[tuple[dict, Any]]:
        held = setup.train.select(validation)
        for number, rate in enumerate(rates):
            title, trained = f"trial {number + 1}/{len(rates)}", None

            def try_it(rate: float = rate, title: str = title) -> dict[str, float]:
                nonlocal trained
                trained = _train(job, settings, setup, work, bad, chosen, rate, seed, title)
                value = job.criterion(_evaluate(job, settings, trained, held, bad)[0])
                return {column: float(np.nan_to_num(value, nan=-1))}

            yield work.remember(f"{title} of seed {seed}", try_it), trained

    column = f"validation_{job.criterion_name}"
    choice = sweep.select(
        [{"learning_rate": rate} for rate in rates], hold_out, attempt, by=(column,)
    )
    network, learned = choice.fitted, everything
    if choice.num_validation and not settings.refit:
        learned = hold_out()[1]
    if settings.refit or network is None:
        rate = rates[choice.best]
        network = _train(job, settings, setup, work, bad, learned, rate, seed, "final")
    rows, shown = _evaluate(job, settings, network, setup.test, bad, title="test")
    show(shown)
    left_out = {"bad": setup.test.num_images - len(rows)}
    return job.summarize(rows, seed) | {
        **choice.results(),
        "num_images": choice.num_images(len(learned), len(rows), left_out, name="learned from"),
        "batch_size": pmap.batch_size(settings.batch_size, len(learned)),
        "steps": settings.total_steps,
    }


def _train(
    job: Job,
    settings: pixel_protocol.PixelSettings,
    setup: protocol.EvalSetup,
    work: resume.Unfinished,
    bad: eval_loader.BadLimit,
    chosen: np.ndarray,
    rate: float,
    seed: int,
    title: str,
) -> Network:
    encoder = setup.encoder
    head = pixel_training.init_head(job.head, encoder.embedding_size, seed=seed)
    network = Network(encoder.params, encoder.state, *head)
    trial = pixel_training.Trial(rate, settings.weight_decay, settings.total_steps)
    state = pixel_training.init_state(network, trial, is_frozen=settings.frozen)
    batch_size = pmap.batch_size(settings.batch_size, len(chosen))
    batches = pixel_loader.PixelBatches(
        setup.train.select(chosen),
        batch_size=batch_size // jax.process_count(),
        seed=seed,
        make=job.make,
        max_bad=bad.most,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    name, steps = f"{title} of seed {seed}", settings.total_steps
    return work.train(name, job.update, state, batches, total_steps=steps, title=title).network


def _evaluate(
    job: Job,
    settings: pixel_protocol.PixelSettings,
    network: Network,
    data: datasets.RecordDataset,
    bad: eval_loader.BadLimit,
    title: str = "validation",
) -> tuple[np.ndarray, list[Shown]]:
    """The rows of all images that can be used, in order, and some images to look at."""
    mine = np.arange(jax.process_index(), data.num_images, jax.process_count())
    on_devices, indices, rows, shown = pmap.replicate_locally(network), [], [], []

    def fill() -> None:
        bar = console.progress_bar(total=len(mine), done=0, unit="img", title=title)
        with bar:
            for chunk in _chunks(data.select(mine), bad, settings.test_batch_size):
                found = job.measure(on_devices, chunk)
                indices.extend(int(mine[example.index]) for example in chunk)
                rows.extend(found.rows)
                shown.extend(map(Shown, chunk, found.predicted))
                del shown[SHOWN:]
                bar.update(len(chunk))

    multihost.together(fill, what=f"predicting images ({title})")
    bad.share()
    if not rows:
        raise UsageError(f"None of the {data.num_images:,} images can be used ({title}).")
    what = f"gathering predictions ({title})"
    _, table = multihost.gather_sorted(np.array(indices), np.stack(rows), what=what)
    return table, shown


def _chunks(
    data: datasets.RecordDataset, bad: eval_loader.BadLimit, size: int
) -> Iterator[list[pixel_sets.Example]]:
    examples = pixel_sets.examples(data, bad)
    while chunk := list(itertools.islice(examples, size)):
        yield chunk
