"""One command for all tasks: ``byol-jax TASK[:PRESET]``, or ``python -m byol_jax``."""

import sys
from collections.abc import Sequence

from byol_jax.cli import startup


def main() -> None:
    """Passes the words on to `main_loop`, `report` or `inspect`, and ends the process."""
    startup.listen()  # before imports that take a moment
    command, *words = sys.argv[1:] or ["--help"]
    if command == "report":
        _report(words)
    elif command == "inspect":
        _inspect(words)
    else:
        _run_task(command, words)


def _run_task(command: str, words: Sequence[str]) -> None:
    from byol_jax.cli import command_line, help_pages

    if command in (*help_pages.HELP, *help_pages.VERSION):
        named = [f"--config={_config(word)}" for word in words if not word.startswith("-")]
        startup.begin([sys.argv[0], *named, "--version" if "version" in command else "--help"])
    if command.startswith("-"):
        command_line.fail(f"Name a task before {command}; byol-jax --help lists them.")
    # The words of main_loop, which a session's notes say, too.
    sys.argv = [sys.argv[0], f"--config={_config(command)}", *words]
    startup.begin(sys.argv)
    from byol_jax import main_loop

    main_loop.start()


def _config(command: str) -> str:
    """TASK[:PRESET] or FILE.py[:PRESET] as a config; of another name the nearest is told."""
    from byol_jax import config as config_lib
    from byol_jax.cli import command_line, config_files, help_pages

    name = command.partition(":")[0]
    if not name.endswith(".py") and config_files.own(name) is None:
        valid = [*help_pages.task_names(), "report", "inspect"]
        command_line.fail(f"Unknown task: '{name}'.{config_lib.suggest(name, valid)}")
    return command


def _report(words: Sequence[str]) -> None:
    from byol_jax.host import signals
    from byol_jax.report import cli

    try:
        cli.main(words)
    finally:  # the interpreter's own end takes no handler
        signals.ignore()


def _inspect(words: Sequence[str]) -> None:
    startup.explain(words, "INSPECT")
    from byol_jax import inspect

    inspect.end(words)


if __name__ == "__main__":
    main()
