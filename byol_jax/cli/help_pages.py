"""Texts of ``--help``, made from the sources they describe, without importing JAX."""

import ast
import pathlib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

import byol_jax
from byol_jax import config as config_lib
from byol_jax.cli import config_files

WIDTH = 100
HELP = ("help", "-h", "-help", "--help", "-?")
VERSION = ("--version", "-version")
_PACKAGE = pathlib.Path(byol_jax.__file__).parent
# Where the tables are whose names are listed.
ENCODERS = (_PACKAGE / "models" / "resnet.py", "ENCODERS")
OBJECTIVES = (_PACKAGE / "objectives" / "table.py", "OBJECTIVES")
STUDY = _PACKAGE / "studies" / "study.py"  # with the keys that all studies have

# Their configs are those of byol.py and a few keys.
PRESETS_OF_BYOL = ("preview", "bench_input", "estimate")

_USAGE = """\
byol_jax {version}: Bootstrap Your Own Latent in JAX.

Usage:
  byol-jax TASK[:PRESET] [--config.KEY=VALUE ...] [--workdir=FOLDER]
  byol-jax report RUN ...      a page of what runs have learned, or plots
  byol-jax inspect PATH        what a checkpoint is, and what can be done with it
  byol-jax TASK --help         what a task does, and its keys
Without the script: python -m byol_jax, or python -m byol_jax.main_loop --config=configs/TASK.py."""
_FLAGS = """\
Flags besides --config.KEY=VALUE:
  --workdir=FOLDER     for what a task writes, of training and evaluations also gs:// or s3://;
                       default: runs/TASK-PRESET, of an evaluation also with what it evaluates
  --coordinator=HOST:PORT --num_processes=N --process_id=I
                       of several processes, where JAX does not find them by itself
  --silent_seconds=S   after which a process without a sign of life counts as dead
  --flagfile=FILE      more flags, one a line
  --help --version"""


INSPECT = """\
Usage: byol-jax inspect PATH, or python -m byol_jax.inspect PATH

Says what a checkpoint is, and what can be done with it. PATH is the workdir of a run, one of its
checkpoints/<step>, an export, a .pkl file of DeepMind's, or a file of PyTorch or safetensors."""


def answer(words: Sequence[str], *, page: str = "") -> str | None:
    """What to print instead of running; None if the words ask for no help.

    Args:
      words: of the command line; with ``--config=FILE`` help is that of a config.
      page: of a command without configs.

    Raises:
      UsageError: there is no such config.
    """
    words = words[: words.index("--")] if "--" in words else words
    if any(word in VERSION for word in words):
        return f"byol_jax {byol_jax.__version__}"
    if not any(word in HELP for word in words):
        return None
    if page:
        return page
    named = [word.partition("=")[2] for word in words if re.match("--?config=.", word)]
    return task(named[-1]) if named else overview()


def overview() -> str:
    """Tasks with their presets, encoders and objectives."""
    lines = [_USAGE.format(version=byol_jax.__version__), "", "Tasks:"]
    for name in task_names():
        path = config_files.own(name)
        lines += _wrapped(f"  {name:<16}", _summary(path).split(), indent=19)
        presets = _presets(path)
        if presets:
            lines += _wrapped(f"{'':<19}presets:", _listed(presets), indent=21)
    lines += ["", *_wrapped("Encoders (--config.model.encoder):", _listed(names(*ENCODERS)))]
    lines += [
        *_wrapped("Objectives (--config.objective.name):", _listed(names(*OBJECTIVES))),
        "",
        _FLAGS,
    ]
    return "\n".join(lines)


def task(argument: str) -> str:
    """What a config says of itself, and its keys with their values.

    Args:
      argument: ``FILE`` or ``FILE:PRESET``.

    Raises:
      UsageError: there is no such config or preset.
    """
    config = config_files.load(argument)
    path = config_files.resolve(argument.partition(":")[0])
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or str(path)
    notes = dict(_comments(path))
    if path.parent == config_files.OURS and task_name(path.stem) in PRESETS_OF_BYOL:
        notes = dict(_comments(config_files.OURS / "byol.py")) | notes
    keys = config_lib.flatten(config.to_dict())
    if config.task == "study":  # the others say what is studied
        notes = dict(_comments(STUDY))
        keys = {key: value for key, value in keys.items() if notes.get(key)}
    shown = f", preset {config.preset}" if config.preset else ""
    lines = [text.strip(), "", f"Keys (--config.KEY=VALUE) and their values{shown}:"]
    for key, value in keys.items():
        if key not in ("task", "preset"):
            row = f"  {key} = {'unset' if value is None else repr(value)}"
            note = _note(key, notes)
            lines.append(f"{row:<44}  # {note}" if note else row)
    return "\n".join([*lines, "", _FLAGS])


def task_name(config: str) -> str:
    """The name of the task of one of the project's own configs."""
    return {file: name for name, file in config_files.OTHER_NAMES.items()}.get(config, config)


def task_names() -> list[str]:
    """Of all the project's own configs, the one that makes encoders first."""
    found = [task_name(path.stem) for path in config_files.ours()]
    return sorted(found, key=lambda name: (name != "pretrain", name))


def names(path: pathlib.Path, table: str) -> list[str]:
    """Keys of a dictionary of a module, read without running it; of another value none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        is_it = getattr(targets[0], "id", None) == table
        if is_it and isinstance(node.value, ast.Dict):
            return [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
    return []


def _summary(path: pathlib.Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n", 1)[0]


def _presets(path: pathlib.Path) -> list[str]:
    if path.stem in PRESETS_OF_BYOL:
        return ["as pretrain"]
    return [name for name in names(path, "PRESETS") if name]  # "" is the config without one


def _listed(words: Sequence[str]) -> list[str]:
    return [f"{word}," for word in words[:-1]] + list(words[-1:])


def _wrapped(title: str, words: Sequence[str], *, indent: int = 2) -> list[str]:
    return textwrap.wrap(
        " ".join(words),
        width=WIDTH,
        initial_indent=f"{title} ",
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )


def _comments(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Keys that are assigned to, also by way of their section, with the comment behind it, or "".

    The first assignment of a file comes last: those of presets come after it in the file.
    """
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)]
    for node in sorted(nodes, key=lambda node: -node.lineno):
        if isinstance(node.targets[0], ast.Attribute):
            note = lines[node.end_lineno - 1].encode()[node.end_col_offset :].partition(b"#")[2]
            target = ast.unparse(node.targets[0]).removeprefix("config.")
            yield target, note.decode().strip()


def _note(key: str, notes: Mapping[str, str]) -> str:
    """The comment of a key; both views are filled by one function."""
    return notes.get(key, "") or notes.get(re.sub(r"augment\.view[12]", "view", key), "")
