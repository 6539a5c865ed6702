"""The task that runs the paper's evaluations of an encoder, and compares with its numbers."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from byol_jax import config as config_lib
from byol_jax.checkpoints import checksums, encoders
from byol_jax.cli import config_files, typed_values
from byol_jax.comparison import evaluations, rows
from byol_jax.evaluation import result_folder, resume
from byol_jax.studies import children, runner
from byol_jax.training import loop
from byol_jax.workdir import console, files, run_folder

UsageError = config_lib.UsageError

DONE = "done.json"  # which evaluations are finished, and of what
POLL_SECONDS = 0.2
_KEY = re.compile(r"([\w.]+)=(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Job:
    """An evaluation whose data is there.

    Attributes:
      evaluation: which.
      workdir: its folder.
      words: of its command.
    """

    evaluation: evaluations.Evaluation
    workdir: pathlib.Path
    words: list[str]


def run(config: Any, workdir: pathlib.Path) -> None:
    """Does what is left, and writes ``result.json`` with a row for each number of the paper.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used; nothing is written.
      runner.RunsFailedError: some evaluations failed; those that did not are on the page.
      resume.Stopped: there was a signal; rerun the same command to resume.
    """
    start = time.monotonic()
    top = pathlib.Path(config.data.dir).expanduser()
    if not config.data.dir or not top.is_dir():
        raise UsageError(f"Say where all sets are by --config.data.dir; '{top}' is no folder.")
    chosen = _chosen(config.only)
    keys = {name: _parse(name, config.options[name], chosen) for name in config.options}
    _, pinned = result_folder.place(config)
    encoder = encoders.load_encoder(pinned.checkpoint)
    places = {one.name: one.find(top.resolve()) for one in chosen}
    missing = [{"evaluation": one.name, "how to get it": one.get}
               for one in chosen if places[one.name] is None]  # fmt: skip
    jobs = [_job(one, pinned.checkpoint, {**places[one.name], **keys[one.keys]}, workdir)
            for one in chosen if places[one.name] is not None]  # fmt: skip
    _announce(jobs, missing)
    with result_folder.opened(workdir):
        done = _read_done(workdir)
        found, failed = _run_all(jobs, encoder, done, workdir)
        network = (encoder.card.encoder, encoder.card.width_multiplier)
        table = [
            row
            for one in chosen if one.name in found
            for row in rows.make_rows(one, found[one.name], network)
        ]  # fmt: skip
        result = _result(config, encoder, table, missing, failed, start)
        result_folder.write(workdir, result)
    console.say(describe(result))
    console.say(f"Written: {workdir / result_folder.FILE}")
    if failed:
        raise runner.RunsFailedError(
            f"{len(failed)} of {len(jobs)} evaluations failed, first {failed[0]['evaluation']}: "
            f"{failed[0]['why']}. The others are on the page; rerun the same command to try again."
        )


def _chosen(only: str) -> list[evaluations.Evaluation]:
    names = [name.strip() for name in only.split(",") if name.strip()]
    table = {one.name: one for one in evaluations.EVALUATIONS}
    groups = {one.keys for one in evaluations.EVALUATIONS}
    for name in names:
        if name not in groups:
            config_lib.lookup(table, name, key="only")
    return [one for one in table.values() if not names or {one.name, one.keys} & set(names)]


def _parse(group: str, text: str, chosen: Sequence[evaluations.Evaluation]) -> dict[str, str]:
    """Keys of evaluations from words, each checked against the config that takes it.

    Raises:
      UsageError: a word is no key=value, a key is unknown, or a value of another type.
    """
    found = {}
    for word in shlex.split(text):
        pair = _KEY.fullmatch(word)
        if not pair:
            raise UsageError(f"--config.options.{group} takes key=value with spaces, not '{word}'.")
        found[pair[1]] = pair[2]
    for one in chosen:
        if one.keys == group and found:
            kinds = config_files.kinds(config_files.load(one.config))
            for key, value in found.items():
                typed_values.check(key, config_files.kind_of_key(key, kinds), value)
    return found


def _job(
    one: evaluations.Evaluation, checkpoint: str, keys: Mapping[str, str], workdir: pathlib.Path
) -> Job:
    folder = workdir / one.name
    flags = [f"--config.{key}={value}" for key, value in keys.items()]
    words = ["python", "-m", "byol_jax.main_loop", f"--config={one.config}",
             f"--config.checkpoint={checkpoint}", f"--workdir={folder}", *flags]  # fmt: skip
    return Job(one, folder, words)


def _announce(jobs: Sequence[Job], missing: Sequence[Mapping[str, str]]) -> None:
    console.say(f"{len(jobs)} evaluations, one after the other:")
    for job in jobs:
        console.say(f"  {shlex.join(job.words)}")
    for row in missing:
        console.say(f"Skipped: {row['evaluation']}: {row['how to get it']}.")


def _run_all(
    jobs: Sequence[Job], encoder: encoders.Encoder, done: dict[str, Any], workdir: pathlib.Path
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Results by name, and which evaluations failed and why."""
    found, failed = {}, []
    for job in jobs:
        name = job.evaluation.name
        facts = {"words": job.words, "encoder": encoder.identity["sha256"]}
        if "began" in (done.get(name) or {}):  # a command that was killed has started it
            _wait_until_free(job)
        result, why = _finished(job, done.get(name), facts), ""
        if result is None:
            console.say(f"{name}: started; it prints to {job.workdir}.log")
            done[name] = facts | {"began": time.time()}
            files.write_text(workdir / DONE, json.dumps(done))
            why = _run_one(job, workdir)
            result = None if why else _read_result(job)
        if result is None:
            failed.append({"evaluation": name, "why": why or "it left no result"})
            console.say(f"{name}: failed: {failed[-1]['why']}")
            continue
        done[name] = facts | {"result": checksums.digest_json(result)}
        files.write_text(workdir / DONE, json.dumps(done))
        console.say(f"{name}: done")
        found[name] = result
    return found, failed


def _wait_until_free(job: Job) -> None:
    """Waits for the evaluation of a command that was killed, which goes on by itself.

    Raises:
      resume.Stopped: there was a signal.
    """
    is_said = False
    with loop.StopRequest() as stop:
        while job.workdir.is_dir() and not _is_free(job.workdir):
            if not is_said:
                console.say(f"{job.evaluation.name}: waiting for the process that is at work on it")
                is_said = True
            if stop.is_made:
                raise resume.Stopped("Stopped waiting. Rerun the same command to resume.")
            time.sleep(POLL_SECONDS)


def _is_free(folder: pathlib.Path) -> bool:
    try:
        with run_folder.lock(folder):
            return True
    except UsageError:
        return False


def _finished(job: Job, known: Any, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result of an evaluation that is finished, also by a process of a killed command."""
    result = _read_result(job)
    if (
        result is None
        or not isinstance(known, dict)
        or any(known.get(k) != v for k, v in facts.items())
    ):
        return None
    if "result" in known:
        return result if known["result"] == checksums.digest_json(result) else None
    written = (job.workdir / result_folder.FILE).stat().st_mtime
    return result if written >= known.get("began", float("inf")) else None


def _run_one(job: Job, workdir: pathlib.Path) -> str:
    """Runs a command to its end; says why it failed, or nothing.

    Raises:
      resume.Stopped: there was a signal, which was handed on.
    """
    environment = children.environment(
        os.environ, gpus=(), slot=0, jobs=1, cores=0, cache=workdir / "cache"
    )
    with loop.StopRequest() as stop:
        child = children.Child(
            job.words, pathlib.Path(f"{job.workdir}.log"), env=environment, processors=None
        )
        is_asked = False  # a second signal would end it without saving
        try:
            while child.status() is None:
                if stop.is_made and not is_asked:
                    child.ask_to_end()
                    is_asked = True
                time.sleep(POLL_SECONDS)
        except BaseException:
            child.kill()
            raise
        if stop.is_made:
            raise resume.Stopped(
                f"Stopped in {job.evaluation.name}, which has saved. Rerun the same command to "
                "resume."
            )
    return child.why() if child.status() else ""


def _read_done(workdir: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(files.read_bytes(workdir / DONE))
        return {name: row for name, row in found.items() if isinstance(row, dict)}
    except (OSError, ValueError, AttributeError):
        return {}


def _read_result(job: Job) -> dict[str, Any] | None:
    """The result in a job's folder; None if there is none to be read."""
    try:
        found = json.loads(files.read_bytes(job.workdir / result_folder.FILE))
        return found if isinstance(found, dict) else None
    except (OSError, ValueError):
        return None


def _result(
    config: Any,
    encoder: encoders.Encoder,
    table: Sequence[Mapping[str, str]],
    missing: Sequence[Mapping[str, str]],
    failed: Sequence[Mapping[str, str]],
    start: float,
) -> dict[str, Any]:
    is_as_it_is = not any(config.options.values())
    protocol = "the paper's" if is_as_it_is else "the paper's but for config.options"
    return {
        "task": config.task,
        "protocol": protocol,
        "rows": list(table),
        "missing": list(missing),
        "failed": list(failed),
        "checkpoint": encoder.identity,
        "config": config.to_dict(),
        "versions": run_folder.versions(),
        "seconds": round(time.monotonic() - start, 2),
    }


def describe(result: Mapping[str, Any]) -> str:
    """The table as text."""
    heads = ("evaluation", "measure", "paper", "ours", "difference")
    lines = [heads, *(tuple(row[head] for head in heads) for row in result["rows"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    identity = result["checkpoint"]
    name = f"{identity['encoder']} of {identity['path']}, protocol: {result['protocol']}"
    return "\n".join(["", name, *text])
