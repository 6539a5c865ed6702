"""Starts a task: ``python -m byol_jax.main_loop --config=configs/byol.py``.

Any key of the config can be overridden, as in ``--config.batch_size=128``. Configs are in
``configs/``; the text on top of each says what it does, on what hardware, and how long it takes.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

from byol_jax import config as config_lib
from byol_jax import loop, run_pretrain

TASKS = {"pretrain": run_pretrain.run}

_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/byol.py", "Config file, and after a colon its preset."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for checkpoints and metrics; default: runs/<task>-<preset>."
)


def main(_: Sequence[str]) -> None:
    """Runs the task that the config names."""
    config = _CONFIG.value
    task = config_lib.lookup(TASKS, config.task, key="task")
    workdir = pathlib.Path(_WORKDIR.value or f"runs/{config.task}-{config.preset}").expanduser()
    task(config, workdir)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; a wrong key, value or preset becomes one clear line."""
    try:
        return flags.FLAGS(list(argv))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise SystemExit(_exit_with(_explain(error))) from None


def _explain(error: Exception) -> str:
    return str(error)


def _exit_with(message: str) -> int:
    print(f"Error: {message}", file=sys.stderr)
    return 2


def run() -> None:
    """Entry point; mistakes end in a message and exit status 2, failed runs in status 1."""

    def guarded(argv: Sequence[str]) -> None:
        try:
            main(argv)
        except config_lib.UsageError as error:
            sys.exit(_exit_with(str(error)))
        except loop.NonFiniteError as error:
            print(f"Error: {error}", file=sys.stderr)
            sys.exit(1)

    app.run(guarded, flags_parser=parse_flags)


if __name__ == "__main__":
    run()
