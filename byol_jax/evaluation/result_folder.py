"""The folder of an evaluation: how it is called, who uses it, and what was found there before."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from byol_jax import config as config_lib
from byol_jax.checkpoints import classifiers, sources, step_folders
from byol_jax.distributed import multihost
from byol_jax.evaluation import kept
from byol_jax.workdir import console, files, run_folder

UsageError = config_lib.UsageError

FILE = "result.json"
EARLIER = "earlier"  # where results of other settings or encoders are set aside
RUNS = pathlib.Path("runs")


def place(config: Any) -> tuple[pathlib.Path, Any]:
    """The folder of an evaluation that was given none, and its config of one checkpoint.

    It is named after the task, the preset, a baseline, the encoder and the set, so that the same
    command finds it again and no two checkpoints share one. Of a run that goes on, the newest
    checkpoint is decided on here, for all processes.

    Args:
      config: of a task with the key ``checkpoint``.

    Raises:
      UsageError: there is no checkpoint.
    """
    found = multihost.on_writer(lambda: _find(config.checkpoint), what="looking for the checkpoint")
    pinned = ml_collections.ConfigDict(config.to_dict())
    pinned.checkpoint = found["path"]
    baseline = config.weights if "weights" in config else "checkpoint"
    words = [config.task, config.preset, found["name"]]
    words += [baseline] if baseline != "checkpoint" else []
    name = config.data.name if "name" in config.data else ""
    words += [name.removeprefix("tfds:")] if name else []
    return RUNS / "-".join(_plain(word) for word in words if word), pinned


def _find(path: str) -> dict[str, str]:
    """A checkpoint and a name that no other has."""
    if path and sources.is_foreign(path):
        file = pathlib.Path(path).expanduser()
        return {"path": path, "name": f"{file.stem}-{_digest(file)}"}
    folder = step_folders.find(path)
    run = folder.absolute().parent.parent
    is_here = run.parent.resolve() == RUNS.resolve()
    place = [] if is_here else [_digest(run)]
    return {"path": str(folder), "name": "-".join([run.name, f"step{folder.name}", *place])}


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]


def _plain(word: str) -> str:
    return re.sub(r"[^\w.-]", "_", word, flags=re.ASCII)[:80]


@contextlib.contextmanager
def opened(workdir: pathlib.Path, *names: str) -> Iterator[None]:
    """Keeps a folder for one evaluation; nothing in it has changed when this is refused.

    Args:
      workdir: of the evaluation.
      names: of what it is going to write, besides its result.

    Raises:
      UsageError: another run is using it, it cannot be written to, or it holds a file of such a
        name that no evaluation wrote.
    """
    with contextlib.ExitStack() as stack:
        multihost.on_writer(lambda: _require_ours(workdir, names), what="looking at the workdir")
        multihost.on_writer(
            lambda: stack.enter_context(run_folder.lock(workdir)), what="opening the workdir"
        )
        yield


def _require_ours(workdir: pathlib.Path, names: tuple[str, ...]) -> None:
    known = _read(workdir / FILE)
    for name in names:
        if name == classifiers.FOLDER:
            kept.require_ours(workdir)
        elif os.path.lexists(workdir / name) and name not in _files(known or {}):
            raise UsageError(
                f"{workdir / name} is not of the evaluation in this folder and is left as it is: "
                "move it away, or give another --workdir."
            )


def _files(result: Mapping[str, Any]) -> list[str]:
    """Names of the files that a result is about."""
    listed = result.get("files")
    named = [result.get("file"), *(listed if isinstance(listed, list) else [])]
    return [name for name in named if isinstance(name, str) and name == os.path.basename(name)]


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    """The result in a file; None if there is none."""
    try:
        result = json.loads(files.read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"Cannot read {path}: {error}. {_ADVICE}") from None
    if not isinstance(result, dict) or not isinstance(result.get("config"), dict):
        raise UsageError(f"{path} is no result of this program. {_ADVICE}")
    return result


_ADVICE = "Move it away, or give another --workdir."


def write(
    workdir: pathlib.Path, result: Mapping[str, Any], classifier: pathlib.Path | None = None
) -> None:
    """Writes ``result.json``; one of other settings or of another encoder is set aside, by name.

    Args:
      workdir: of the evaluation.
      result: what is written.
      classifier: what `kept.write` gave, which gets its place.

    Raises:
      UsageError: the folder cannot be written to, or its ``result.json`` is none of ours.
    """
    old = _read(workdir / FILE)
    if old is not None and _identity(old) != _identity(result):
        aside = _set_aside(workdir, old)
        console.say(f"Kept the earlier result, which is of another config or encoder, in {aside}.")
    if classifier is not None:
        kept.put(workdir, classifier)
    files.write_text(workdir / FILE, json.dumps(result, indent=2) + "\n")


def _identity(result: Mapping[str, Any]) -> Any:
    """What was measured: settings and encoder, wherever its checkpoint is."""
    config = {key: value for key, value in result["config"].items() if key != "checkpoint"}
    encoder = result.get("checkpoint")
    sha256 = encoder.get("sha256") if isinstance(encoder, Mapping) else None
    return json.loads(json.dumps([config, sha256]))


def _set_aside(workdir: pathlib.Path, old: Mapping[str, Any]) -> pathlib.Path:
    """Moves a result, and the files or classifier that go with it, to a folder of their own."""
    taken = (workdir / EARLIER).glob("*")
    number = 1 + max((int(path.name) for path in taken if path.name.isdigit()), default=0)
    aside = workdir / EARLIER / str(number)
    with files.writing(aside):
        aside.mkdir(parents=True)
        for name in _files(old):
            if (workdir / name).is_file():
                os.rename(workdir / name, aside / name)
        if old.get("classifier") and classifiers.is_ours(workdir / classifiers.FOLDER):
            os.rename(workdir / classifiers.FOLDER, aside / classifiers.FOLDER)
        os.rename(workdir / FILE, aside / FILE)
    return aside
