"""What follows a task, however it ended."""

import contextlib
import pathlib
import time
from collections.abc import Iterator

from byol_jax import config as config_lib
from byol_jax.distributed import multihost
from byol_jax.host import signals
from byol_jax.report import cli
from byol_jax.workdir import console, sessions


def conclude(workdir: pathlib.Path, began: float, *, message: str = "") -> None:
    """Notes how a task that has measured something ended, and makes its page.

    Args:
      workdir: of the task.
      began: when the task did, of `time.time`.
      message: why it failed; empty if it did not.
    """
    written = [workdir / name for name in ("metrics.jsonl", "result.json")]
    is_new = any(path.exists() and path.stat().st_mtime >= began - 1 for path in written)
    if is_new and multihost.is_writer():
        sessions.note_end(workdir, began=began, message=message)
        page = cli.write_for(workdir)
        if page:
            console.say(f"Report: {page}")


@contextlib.contextmanager
def concluded(workdir: pathlib.Path) -> Iterator[None]:
    """Around a task that a program calls: leaves the process to its owner, ends with a page."""
    began = time.time()
    try:
        with signals.in_a_program():
            yield
    except config_lib.UsageError:
        raise
    except Exception as error:
        conclude(workdir, began, message=str(error))
        raise
    conclude(workdir, began)
