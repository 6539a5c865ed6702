"""``python -m byol_jax.report``: see `byol_jax.report.cli`."""

import os
import signal


def _interrupted(number: int, _frame: object) -> None:
    os.write(2, b"\nInterrupted.\n")
    os._exit(128 + number)


# Before the imports below, which take a moment; pages are written whole or not at all.
signal.signal(signal.SIGINT, _interrupted)

import sys

from byol_jax.report import cli

if __name__ == "__main__":
    try:
        cli.main(sys.argv[1:])
    finally:  # the interpreter's own end takes no handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
