"""The pretraining task: restores, trains, probes, logs and saves."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import haiku as hk
import jax
import numpy as np

from byol_jax import (
    bad_images,
    build,
    collapse,
    curator,
    datasets,
    loop,
    metrics,
    parallel,
    pretrain,
    records,
    sessions,
    signals,
    snapshots,
    summary,
    trackers,
)
from byol_jax import config as config_lib
from byol_jax import forecast as forecasts
from byol_jax import workdir as workdir_lib

UsageError = config_lib.UsageError


def run(config: Any, workdir: pathlib.Path) -> None:
    """Pretrains as the config says, or goes on where the workdir's newest checkpoint is.

    Raises:
        UsageError: a mistake in the config, or a workdir that does not fit it; nothing is written.
        loop.NonFiniteError: the loss or a gradient stopped being a number.
        collapse.CollapseError: the projections have collapsed, and the config says to stop then.
        snapshots.SaveError: a checkpoint could not be written.
        parallel.OtherProcessError: another process failed; only the first one uses the workdir.
    """
    with contextlib.ExitStack() as stack:
        job = _build(config, workdir)
        records.say(f"{config_lib.to_json(config)}\n{describe(config, job, workdir)}\n")
        parallel.on_writer(lambda: _open(stack, workdir, config, job.data_card))
        stop = stack.enter_context(loop.StopRequest())
        _Run(config, workdir, job, stop).run()


def _build(config: Any, workdir: pathlib.Path) -> build.Job:
    """The parts of the run, alike on all processes."""

    def read() -> dict[str, Any] | None:
        card = workdir_lib.read_data_card(workdir)
        return card and card._asdict()

    known = parallel.on_writer(read)
    card = known and workdir_lib.make_data_card(known)
    job = parallel.together(lambda: build.build(config, card))
    cards = [workdir_lib.make_data_card(c) for c in parallel.gather_json(job.data_card._asdict())]
    differing = [str(index) for index, card in enumerate(cards) if card != cards[0]]
    if differing:
        raise UsageError(
            f"Process {', '.join(differing)} finds other images of {config.data.name} than process "
            "0: give all of them the same."
        )
    return job


def _open(
    stack: contextlib.ExitStack, workdir: pathlib.Path, config: Any, card: workdir_lib.DataCard
) -> None:
    """Keeps the workdir for this run until the stack ends."""
    stack.enter_context(workdir_lib.lock(workdir))
    changes = workdir_lib.open_workdir(workdir, config, card)
    sessions.note_start(workdir)
    if changes:
        records.say("Going on with another config, as told:\n  " + "\n  ".join(changes))


def describe(config: Any, job: build.Job, workdir: pathlib.Path) -> str:
    """One paragraph: what will run, on what, for how long."""
    size = hk.data_structures.tree_size(job.state.online_params) / 1e6
    epochs = job.total_steps * config.batch_size / job.train.num_images
    labels = "labels are used to measure, not to learn"
    source = config.data.dir if config.data.name == "folder" else config.data.name
    rate = job.settings.base_learning_rate * config.batch_size / 256
    unset = f"Unset in the config: {job.settings_source}.\n" if job.settings_source else ""
    return (
        f"Pretraining {config.model.encoder} ({size:.2f} M parameters with its heads) by "
        f"{config.objective.name} on {job.train.num_images:,} images of {source} at "
        f"{config.data.image_size} px; {labels if job.train.num_classes else 'no labels'}.\n"
        f"{job.total_steps:,} steps of {config.batch_size} images ({epochs:,.1f} epochs) on "
        f"{parallel.describe_devices()}; {config.optimizer.name}, learning rate up to {rate:.4g} "
        f"after {job.warmup_steps:,} steps, tau from {job.settings.base_target_ema:.6g}.\n"
        f"{unset}"
        f"Everything goes to {workdir}; Ctrl-C saves, the same command resumes. The time left is "
        "shown as soon as steps have been measured."
    )


class _Run:
    """What the steps of one run share. Checkpoints between are written after all logs of a step.

    All processes go through the same steps and meet in each probe, log and save; the first one
    alone has a logger and checkpoints.
    """

    def __init__(self, config, workdir, job: build.Job, stop: loop.StopRequest):
        self._config, self._workdir, self._job, self._stop = config, workdir, job, stop
        self._logger: workdir_lib.Logger | None = None
        self._checkpoints: snapshots.Checkpoints | None = None
        self._batches = build.make_train_batches(config, job.train)
        self._score = build.make_probe(config, job)
        self._guard = collapse.make_guard(config, job.settings, job.warmup_steps)
        self._is_streamed = isinstance(job.train, datasets.Stream)
        self._bad_images = bad_images.BadImages(self._batches, workdir)

    def run(self) -> None:
        """Trains to the end, or until a signal asks to stop."""
        state, first_step = self._restore()
        self._progress = loop.Progress(
            first_step=first_step,
            total_steps=self._job.total_steps,
            batch_size=self._config.batch_size,
            is_shown=parallel.is_writer(),
        )
        try:
            parallel.on_writer(lambda: self._open_files(first_step))
            self._curator = curator.Curator(
                self._config, self._workdir, self._job, self._logger, self._progress.say
            )
            step = self._train(state, first_step)
            parallel.together(lambda: None)  # the writer may take longer, the others wait
        finally:
            self._batches.close()
            self._progress.close()
            if self._logger:
                self._logger.close()
            if self._checkpoints:
                self._checkpoints.close()
        if step == 0:
            raise SystemExit(loop.NOTHING_TO_SAVE)
        if step < self._job.total_steps:
            records.say(f"Stopped after step {step:,} and saved. Resume with the same command.")
        elif parallel.is_writer():
            records.say(summary.summarise(self._workdir, self._config.collapse.min_feature_std))

    def _restore(self) -> tuple[pretrain.TrainState, int]:
        """The newest sound checkpoint, which one process reads, or else the initial state."""
        state = self._job.state

        def read() -> list[Any]:
            nonlocal state
            restored = snapshots.restore_newest(self._workdir, self._job.state, warn=records.say)
            if restored is None:
                return [0, None]
            state = restored.state
            records.say(f"Resuming from step {restored.step:,} of {self._workdir}.")
            return [restored.step, restored.iterator]

        step, iterator_state = parallel.on_writer(read)
        if iterator_state is not None:
            self._batches.set_state(iterator_state)
            self._bad_images.look(step)
        return parallel.broadcast(state), step

    def _open_files(self, first_step: int) -> None:
        self._logger = workdir_lib.Logger(
            self._workdir,
            first_step=first_step,
            others=trackers.make_trackers(self._config, self._workdir),
        )
        self._checkpoints = snapshots.Checkpoints(
            self._workdir,
            keep=self._config.keep_checkpoints,
            keep_every=self._config.keep_every_steps,
        )

    def _train(self, state: pretrain.TrainState, first_step: int) -> int:
        total_steps = self._job.total_steps
        with self._stop.interrupting(message=loop.NOTHING_TO_SAVE, ends=True):
            if self._is_probe_due(first_step):
                self._probe(first_step, state)
            self._progress.say("Compiling the training step...")
            vote = parallel.Vote()
            update, state = parallel.pmap_update(self._job.update), parallel.replicate(state)
            forecast = forecasts.make_forecast(self._config, self._job, update, state)
            self._progress.say(forecasts.describe(forecast, self._config))
        try:
            state, step = loop.run(
                update,
                state,
                self._feed(first_step),
                first_step=first_step,
                total_steps=total_steps,
                log_every=self._config.log_every_steps,
                on_metrics=self._log,
                hooks=[
                    loop.Hook(self._config.probe.every_steps, self._unless_last(self._try_probe)),
                    loop.Hook(self._config.checkpoint_every_steps, self._unless_last(self._save)),
                ],
                progress=self._progress,
                should_stop=lambda: vote.any(self._stop.is_made),
            )
        except loop.NonFiniteError as error:
            good = parallel.on_writer(self._last_good)
            key = f"optimizer.{self._config.optimizer.name}.base_learning_rate"
            raise loop.NonFiniteError(
                f"{error} Last good checkpoint: {good}. A smaller {key} or a longer warm-up may "
                "help; give it another --workdir."
            ) from None
        except collapse.CollapseError as error:
            last = parallel.on_writer(self._last_good)
            raise collapse.CollapseError(
                f"{error}\nStopped, as collapse.action says. Another config needs another "
                f"--workdir. Last checkpoint: {last}."
            ) from None
        if step > first_step:
            self._save(step, state)
        parallel.on_writer(lambda: self._checkpoints.finish())
        if step == total_steps and not summary.has_probe(self._workdir, step):
            with self._stop.interrupting(message="All is saved but the last probe.", ends=True):
                self._probe(step, state)
        return step

    def _is_probe_due(self, first_step: int) -> bool:
        """Whether training begins with a probe: the first one, or one that was interrupted."""
        every = self._config.probe.every_steps
        is_planned = every and first_step % every == 0 and first_step < self._job.total_steps
        is_missing = is_planned and not summary.has_probe(self._workdir, first_step)
        return first_step == 0 or bool(is_missing)

    def _try_probe(self, step: int, state: pretrain.TrainState) -> None:
        """Probes; if a signal comes meanwhile, leaves that to the command that resumes."""
        message = "Leaving the probe, then saving. Again to stop at once."
        with contextlib.suppress(signals.Interrupted), self._stop.interrupting(message=message):
            self._probe(step, state)

    def _feed(self, first_step: int) -> Iterator[Any]:
        """Batches by device; notes the bad images met on the way as soon as they are met."""
        for step in range(first_step + 1, self._job.total_steps + 1):
            try:
                batch = next(self._batches)
            finally:  # also when there are too many
                self._bad_images.look(step)
            self._curator.see_batch(step, batch, self._batches.bad_images)
            yield parallel.shard(batch)

    def _last_good(self) -> str:
        with contextlib.suppress(snapshots.SaveError):
            self._checkpoints.finish()
        return str(self._checkpoints.latest_path or "none yet")

    def _save(self, step: int, state: pretrain.TrainState) -> None:
        parallel.assert_replicated(state)
        if self._is_streamed:
            self._bad_images.share()
        if self._checkpoints:
            self._checkpoints.save(step, state, self._batches.get_state())

    def _unless_last(self, run: Callable[[int, Any], None]) -> Callable[[int, Any], None]:
        """A hook that leaves the last step out, which is saved and probed in any case."""
        return lambda step, state: run(step, state) if step < self._job.total_steps else None

    def _probe(self, step: int, state: pretrain.TrainState) -> None:
        measured = self._score(step, state)
        if self._logger:
            self._logger.write(step, measured.scalars)
        self._progress.say(summary.probe_line(step, measured.scalars))
        self._curator.see_probe(step, measured)

    def _log(self, step: int, scalars: dict[str, Any], projection: jax.Array) -> None:
        """Logs a step; spread and rank are those of the projections, which the loss compares."""
        features = np.asarray(projection).reshape(-1, projection.shape[-1])  # [D, b, P] -> [D b, P]
        features = parallel.gather_rows(features)  # [B, P]
        watched = collapse.Measures(
            metrics.feature_std(features),
            metrics.effective_rank(features),
            float(scalars["target_cosine"]),
        )
        row = {
            **{f"train/{name}": float(value) for name, value in scalars.items()},
            "train/feature_std": watched.feature_std,
            "train/effective_rank": watched.effective_rank,
            "train/images_per_second": self._progress.report(step, float(scalars["loss"])),
        }
        if self._is_streamed:
            self._bad_images.share()
            row["data/bad_images"] = self._bad_images.count(step)
        if self._logger:
            self._logger.write(step, row)
        warning = self._guard.check(step, watched)
        if warning:
            self._progress.say(warning)
