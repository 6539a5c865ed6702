"""Reads the command line; whatever is wrong with it becomes one line that says what to type."""

import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from absl import flags, logging
from ml_collections import config_flags

from byol_jax import config as config_lib
from byol_jax.cli import config_files, typed_values
from byol_jax.distributed import lifeline
from byol_jax.workdir import bucket

UsageError = config_lib.UsageError

DEFAULT = "configs/byol.py"
# Tasks whose workdir may be an address in a bucket (`workdir.mirror`).
MIRRORED = (
    *("pretrain", "linear_eval", "semi_supervised", "transfer", "segmentation", "depth"),
    *("knn", "embed"),
)

_arguments: list[str] = []  # in which the flag of the config looks for keys
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, and after a colon its preset.", sys_argv=_arguments
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder for what a task writes, for training and evaluations also gs:// or s3://; default: "
    "runs/<task>-<preset>, of an evaluation also with what it evaluates.",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0, if there are several and this is no TPU pod, SLURM or alike.",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
SILENT_SECONDS = flags.DEFINE_float(
    "silent_seconds",
    lifeline.SILENT_SECONDS,
    "A process that the others have not heard of for so long counts as dead, and ends the run.",
)
FLAGS = (
    *("config", "workdir", "coordinator", "num_processes", "process_id", "silent_seconds", "help"),
)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; a wrong key, value, preset or file becomes a message."""
    try:
        _arguments[:] = arrange(list(argv), flags.FLAGS)
        left = flags.FLAGS(list(_arguments))
    except (flags.Error, TypeError, ValueError) as error:
        fail(" ".join(str(error).split()))
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # libraries' notes only on request
    if left[1:]:
        fail(f"Unexpected arguments: {' '.join(left[1:])}. Write --key=value without spaces.")
    return left


def config() -> Any:
    """The config of the command line, with the keys that were typed."""
    return _CONFIG.value


def typed() -> dict[str, Any]:
    """The values that were typed, by dotted key."""
    return config_flags.get_override_values(flags.FLAGS["config"])


def fail(message: str, *, status: int = 2) -> None:
    """Ends the process with a message."""
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(status)


def arrange(argv: list[str], known: flags.FlagValues) -> list[str]:
    """Checks the command line, and puts the config first, which may have been left out.

    Args:
      argv: with the program's name.
      known: flags that are defined.

    Raises:
      UsageError: naming what is wrong and what to type.
      flags.Error: of a file of flags.
    """
    argv = known.read_flags_from_files(argv, force_gnu=False)
    given = list(_configs(argv))
    if len(given) > 1:
        raise UsageError(f"--config is given {len(given)} times: {', '.join(given)}. Give one.")
    argument = given[0] if given else DEFAULT
    found = config_files.load(argument)
    words = _Words(config_files.kinds(found), known, may_mirror=found.task in MIRRORED)
    others = list(words.check(argv[1:]))
    name, *preset = argument.split(":", 1)
    path = ":".join([str(config_files.resolve(name)), *preset])
    return [argv[0], f"--config={path}", *others]


def _configs(argv: Sequence[str]) -> Iterator[str]:
    """What is given as --config."""
    for index, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name not in ("--config", "-config"):
            continue
        if not equals and index + 1 == len(argv):
            raise UsageError(f"--config has no value: type --config={DEFAULT}, for example.")
        yield value if equals else argv[index + 1]


class _Words:
    """Checks the words of a command line.

    Args:
      kinds: of the config's keys.
      known: flags that are defined.
      may_mirror: whether the workdir may be in a bucket.
    """

    def __init__(self, kinds: Mapping[str, type], known: flags.FlagValues, *, may_mirror: bool):
        self._kinds, self._known, self._may_mirror = kinds, known, may_mirror

    def check(self, words: Sequence[str]) -> Iterator[str]:
        """All words but the config.

        Raises:
          UsageError: naming what is wrong and what to type.
        """
        words = iter(words)
        for word in words:
            if word == "--":
                yield from (word, *words)
            elif not word.startswith("-"):
                self._refuse(word)
            elif word.lstrip("-").partition("=")[0] == "config":
                if "=" not in word:
                    next(words)
            else:
                yield from self._check_flag(word, words)

    def _check_flag(self, word: str, following: Iterator[str]) -> Iterator[str]:
        """A flag and, if it stands apart, its value."""
        name, equals, value = word.lstrip("-").partition("=")
        kind = self._kind(name, word)
        yield word
        if kind is bool and not equals:  # --name or --noname
            return
        if not equals:
            value = next(following, None)
            if value is None:
                raise UsageError(f"--{name} has no value: type --{name}=VALUE.")
            yield value
        section, _, key = name.partition(".")
        if name == "workdir" and not (self._may_mirror and bucket.is_address(value)):
            config_lib.require_local(value, flag="--workdir")
        if section == "config":
            typed_values.check(key, kind, value)

    def _kind(self, name: str, word: str) -> type:
        """The type of what a flag takes."""
        section, _, key = name.partition(".")
        if section == "config" or (section == "noconfig" and self._kinds.get(key) is bool):
            return config_files.kind_of_key(key, self._kinds)
        found = name if name in self._known else name.removeprefix("no")
        if found in self._known:
            return bool if self._known[found].boolean else str
        raise UsageError(f"Unknown flag --{name}.{self._hint(name, word)}")

    def _hint(self, name: str, word: str) -> str:
        """What an unknown flag was perhaps meant to be."""
        section, _, below = name.partition(".")
        is_config = below and config_files.nearest(section, ["config"])
        keys = config_files.nearest(below if is_config else name, self._kinds)
        near = [] if below else config_files.nearest(name, FLAGS)
        near = near or [f"config.{key}" for key in keys]
        value = "=".join(["", *word.split("=")[1:]])
        listed = " or ".join(f"--{flag}{value}" for flag in near)
        return f" Did you mean {listed}?" if listed else " --help lists all flags."

    def _refuse(self, word: str) -> NoReturn:
        key, equals, _ = word.partition("=")
        hint = "Write --key=value without spaces."
        if equals and config_files.nearest(key, self._kinds):
            hint = f"Did you mean --config.{word}?"
        elif pathlib.Path(word.partition(":")[0]).suffix == ".py":
            hint = f"Did you mean --config={word}?"
        raise UsageError(f"Unexpected arguments: {word}. {hint}")
