"""What a command does before it imports JAX, which takes seconds: signals, help, flags.

Whatever else is needed is imported by functions, once signals are heard.
"""

from collections.abc import Sequence
from typing import NoReturn

from byol_jax.host import signals, streams


def listen() -> None:
    """From now on a signal ends the process, and streams may go."""
    streams.protect()
    signals.end_without_work()


def begin(argv: Sequence[str]) -> None:
    """Answers ``--help`` and ``--version``, or parses the flags; each may end the process.

    Args:
      argv: with the program's name.
    """
    listen()
    from byol_jax import config
    from byol_jax.cli import command_line, help_pages

    try:
        page = help_pages.answer(argv[1:])
    except config.UsageError as error:
        command_line.fail(str(error))
    if page is not None:
        _show(page)
    command_line.parse_flags(argv)


def explain(words: Sequence[str], page: str) -> None:
    """Answers ``--help`` and ``--version`` of a command without a config, and ends the process.

    Args:
      words: without the program's name.
      page: the name of its text in `help_pages`.
    """
    listen()
    from byol_jax.cli import help_pages

    text = help_pages.answer(words, page=getattr(help_pages, page))
    if text is not None:
        _show(text)


def _show(text: str) -> NoReturn:
    print(text)
    signals.ignore()
    streams.finish(0)
