"""The pretraining task: restores, trains, probes, logs and saves."""

import contextlib
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.cli import effects
from byol_jax.data import agreement, bad_images, datasets
from byol_jax.distributed import multihost, pmap
from byol_jax.host import signals
from byol_jax.metrics import representation
from byol_jax.training import (
    build,
    collapse_monitor,
    completion,
    loop,
    online_eval,
    precision,
    resource_estimate,
    run_files,
    run_saver,
    run_writer,
    summary,
    time_estimate,
    train_step,
)
from byol_jax.visualize import recorder
from byol_jax.workdir import console, run_folder, sessions

UsageError = config_lib.UsageError


def run(
    config: Any,
    workdir: pathlib.Path,
    *,
    train: datasets.Dataset | None = None,
    test: datasets.Dataset | None = None,
    callbacks: Sequence[run_writer.Callback] = (),
    typed: Collection[str] = (),
) -> bool:
    """Pretrains as the config says, or goes on where the workdir's newest checkpoint is.

    Args:
        config: of the run.
        workdir: its folder.
        train: images to train on, in place of those of ``config.data``.
        test: images that probes measure, likewise.
        callbacks: called with step and row after each row of metrics, in the first process.
        typed: dotted keys whose values a person gave on top of the preset.

    Returns:
        Whether the run has come to its end; else it was stopped, and is saved.

    Raises:
        UsageError: a mistake in the config, or a workdir that does not fit it; nothing is written.
        loop.NonFiniteError: the loss or a gradient stopped being a number.
        collapse_monitor.CollapseError: the projections have collapsed, and the config says to
            stop then.
        manager.SaveError: a checkpoint could not be written.
        workdir.WriteError: metrics could not be written.
        place.LeftError: the workdir was renamed or removed.
        loop.NothingDoneError: it was stopped before its first step.
        coordination.OtherProcessError: another process failed; only the first one uses the workdir.
    """
    filled = completion.complete(config, workdir, train=train, test=test, typed=typed)
    return train_as(filled, workdir, train=train, test=test, callbacks=callbacks, typed=typed)


def train_as(
    filled: completion.Complete,
    workdir: pathlib.Path,
    *,
    train: datasets.Dataset | None = None,
    test: datasets.Dataset | None = None,
    callbacks: Sequence[run_writer.Callback] = (),
    typed: Collection[str] = (),
) -> bool:
    """The same of a config that is complete; arguments and errors are those of `run`."""
    config, chosen = filled
    for note in effects.without_effect(config, typed):
        console.say(f"Note: {note}")
    config.model.dtype = multihost.on_writer(
        lambda: precision.dtype_of(config, workdir), what="reading the workdir"
    )
    with contextlib.ExitStack() as stack:
        job = _build(
            workdir,
            lambda card: build.build(
                config, card, train=train, test=test, typed=typed, chosen=chosen
            ),
        )
        console.say(time_estimate.describe_run(job, workdir))
        console.say(f"{precision.describe(job.settings.model.dtype)}\n")
        stored = config.to_dict()
        multihost.on_writer(lambda: _open(stack, workdir, stored), what="opening the workdir")
        stop = stack.enter_context(loop.StopRequest())
        writer = run_writer.RunWriter(job.settings, stored, workdir, job.images.card, callbacks)
        return _Run(job, workdir, writer, stop).run()


def _build(
    workdir: pathlib.Path, make: Callable[[run_folder.DataCard | None], build.Job]
) -> build.Job:
    """The parts of the run, alike on all processes."""

    def read() -> dict[str, Any] | None:
        card = run_files.read_card(workdir, warn=console.say)
        return card and card._asdict()

    known = multihost.on_writer(read, what="reading the workdir")
    card = known and run_folder.make_data_card(known)
    job = multihost.together(lambda: make(card), what="building the run")
    data, (train, test, card) = job.settings.data, job.images
    for split, images in ((data.train_split, train), (data.eval_split, test)):
        agreement.require_same_data(f"{data.name} ({split})", images)
    mean, std = card.mean, card.std
    agreement.require_same({"mean": mean, "std": std}, what="comparing statistics of the images")
    return job


def _open(stack: contextlib.ExitStack, workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Keeps the workdir for this run until the stack ends, if the config is the run's."""
    stack.enter_context(run_folder.lock(workdir))
    changes = run_files.changes(workdir, config, warn=console.say)
    if changes:
        console.say("Changes that accept_changes allows:\n  " + "\n  ".join(changes))


class _Run:
    """What the steps of one run share. Checkpoints between are written after all logs of a step.

    All processes go through the same steps and meet in each probe, log and save; the first one
    alone has a logger and checkpoints.
    """

    def __init__(
        self,
        job: build.Job,
        workdir: pathlib.Path,
        writer: run_writer.RunWriter,
        stop: loop.StopRequest,
    ):
        self._job, self._settings, self._workdir = job, job.settings, workdir
        self._writer, self._stop = writer, stop
        self._batches = build.make_train_batches(job.settings, job.images.train)
        self._score = build.make_probe(job)
        self._guard = collapse_monitor.make_guard(job.settings)
        self._is_streamed = isinstance(job.images.train, datasets.RecordDataset)
        self._is_probe_noted = False
        self._bad_images = bad_images.BadImages(self._batches, workdir)
        self._saver = run_saver.RunSaver(
            workdir, writer, self._batches, self._bad_images, is_streamed=self._is_streamed
        )

    def run(self) -> bool:
        """Trains to the end, or until a signal asks to stop; says whether it is the end."""
        state, first_step = self._saver.restore(self._job.state)
        self._progress = loop.Progress(
            first_step=first_step,
            total_steps=self._settings.total_steps,
            batch_size=self._settings.batch_size,
            is_shown=multihost.is_writer(),
        )
        try:
            multihost.on_writer(lambda: self._writer.open(first_step), what="opening the logs")
            self._curator = recorder.Curator(
                self._job, self._workdir, self._writer.logger, self._progress.say
            )
            step = self._train(state, first_step)
            # The writer may take longer, the others wait.
            multihost.together(lambda: None, what="the last logs")
        finally:
            self._batches.close()
            self._progress.close()
            self._writer.close()
        if step < self._settings.total_steps:
            console.say(summary.stopped(first_step, step))
        elif multihost.is_writer():
            console.say(summary.summarize(self._workdir, self._settings.collapse))
        return step >= self._settings.total_steps

    def _train(self, state: train_step.TrainState, first_step: int) -> int:
        total_steps, vote = self._settings.total_steps, multihost.Vote()
        try:
            with self._stop.interrupting(message=loop.NOTHING_TO_SAVE, ends=True):
                update, state = self._prepare(state, first_step)
        except signals.Interrupted:
            if first_step == 0:
                raise
            return first_step  # whose checkpoint is there
        try:
            state, step = loop.run(
                update,
                state,
                self._feed(first_step),
                first_step=first_step,
                total_steps=total_steps,
                log_every=self._settings.log_every_steps,
                on_metrics=self._log,
                hooks=[
                    loop.every(
                        self._settings.probe.every_steps, self._unless_last(self._try_probe)
                    ),
                    loop.every(
                        self._settings.checkpoint_every_steps, self._unless_last(self._saver.save)
                    ),
                ],
                progress=self._progress,
                should_stop=lambda: vote.any(self._stop.is_made or self._writer.is_left()),
            )
        except loop.NonFiniteError as error:
            key = f"optimizer.{self._settings.optimizer.name}.base_learning_rate"
            raise loop.NonFiniteError(
                f"{error} Last good checkpoint: {self._saver.last_good()}. A smaller {key} or a "
                "longer warm-up may help; give it another --workdir."
            ) from None
        except collapse_monitor.CollapseError as error:
            raise collapse_monitor.CollapseError(
                f"{error}\nStopped, as collapse.action says. Another config needs another "
                f"--workdir. Last checkpoint: {self._saver.last_good()}."
            ) from None
        if self._saver.is_left():
            self._saver.follow(state, step if step > first_step else None)
        if step > first_step:
            self._saver.save(step, state)
        self._saver.finish()
        if step == total_steps and not summary.has_probe(self._workdir, step):
            with self._stop.interrupting(message="All is saved but the last probe.", ends=True):
                self._probe(step, state)
        return step

    def _prepare(self, state: train_step.TrainState, first_step: int) -> tuple[Any, Any]:
        """All that is long before the first step."""
        if first_step < self._settings.total_steps:
            self._progress.say(time_estimate.describe_time(self._job, first_step))
        if self._is_probe_due(first_step):
            self._progress.say(f"Measuring the network of step {first_step:,}...")
            self._probe(first_step, state)
        self._progress.say("Compiling the training step...")
        update, state = pmap.pmap_update(self._job.update), pmap.replicate(state)
        forecast = resource_estimate.make_forecast(self._job, update, state)
        self._progress.say(resource_estimate.describe(forecast, self._settings))
        left = self._settings.total_steps - first_step
        if bound := time_estimate.describe_bound(self._settings, left, forecast):
            self._progress.say(bound)
        return update, state

    def _is_probe_due(self, first_step: int) -> bool:
        """Whether training begins with a probe: the first one, or one that was interrupted."""
        every = self._settings.probe.every_steps
        is_planned = every and first_step % every == 0 and first_step < self._settings.total_steps
        is_missing = is_planned and not summary.has_probe(self._workdir, first_step)
        return first_step == 0 or bool(is_missing)

    def _try_probe(self, step: int, state: train_step.TrainState) -> None:
        """Probes; if a signal comes meanwhile, leaves that to the command that resumes."""
        message = "Leaving the probe, then saving. Again to stop at once."
        with contextlib.suppress(signals.Interrupted), self._stop.interrupting(message=message):
            self._probe(step, state)

    def _feed(self, first_step: int) -> Iterator[Any]:
        """Batches by device; notes the bad images met on the way as soon as they are met."""
        for step in range(first_step + 1, self._settings.total_steps + 1):
            try:
                batch = next(self._batches)
            finally:  # also when there are too many
                self._bad_images.look(step)
            self._curator.see_batch(step, batch, self._batches.bad_images)
            yield pmap.shard(batch)

    def _unless_last(self, run: Callable[[int, Any], None]) -> Callable[[int, Any], None]:
        """A hook that leaves the last step out, which is saved and probed in any case."""
        return lambda step, state: run(step, state) if step < self._settings.total_steps else None

    def _probe(self, step: int, state: train_step.TrainState) -> None:
        measured = self._score(step, state)
        self._writer.log(step, measured.scalars)
        if multihost.is_writer():
            if measured.bad:
                run_folder.note_bad_images(self._workdir, measured.bad)
            self._note_probe(measured)
        self._progress.say(summary.probe_line(step, measured))
        self._curator.see_probe(step, measured)

    def _note_probe(self, measured: online_eval.Measured) -> None:
        """Once a session, for whoever asks what differences of its accuracies mean."""
        if measured.predicted is not None and not self._is_probe_noted:
            sessions.note_probe(self._workdir, num_images=int((measured.labels >= 0).sum()))
            self._is_probe_noted = True

    def _log(self, step: int, scalars: dict[str, Any], projection: jax.Array) -> None:
        """Logs a step; spread and rank are those of the projections, which the loss compares."""
        features = np.asarray(projection).reshape(-1, projection.shape[-1])  # [D, b, P] -> [D b, P]
        features = multihost.gather_rows(features, what=f"logging step {step}")  # [B, P]
        watched = collapse_monitor.Measures(
            representation.feature_std(features),
            representation.effective_rank(features),
            float(scalars["target_cosine"]),
        )
        row = {
            **summary.train_row(scalars),
            "train/feature_std": watched.feature_std,
            "train/effective_rank": watched.effective_rank,
            "train/images_per_second": self._progress.report(step, float(scalars["loss"])),
        }
        if self._is_streamed:
            self._bad_images.share()
            row["data/bad_images"] = self._bad_images.count(step)
        self._writer.log(step, row)
        warning = self._guard.check(step, watched)
        if warning:
            self._progress.say(warning)
