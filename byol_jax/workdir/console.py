"""Prints for people: lines, progress bars, sizes."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tqdm

from byol_jax.distributed import multihost

T = TypeVar("T")


def progress_bar(
    *,
    total: int | None,
    done: int = 0,
    unit: str,
    title: str,
    delay: float = 0,
    is_shown: bool = True,
) -> tqdm.tqdm:
    """A bar with the time left, on standard error; into a file it goes twice a minute.

    Args:
      total: of all; None if nobody knows.
      done: before.
      unit: of them.
      title: what is being done.
      delay: seconds that pass first, so that what is quick is not shown; what is shown after all
        goes into a file every ten seconds.
      is_shown: else nothing is printed.
    """
    return tqdm.tqdm(
        delay=delay,
        disable=not (is_shown and multihost.is_writer()),
        total=total,
        initial=done,
        unit=unit,
        unit_scale=True,
        desc=title,
        mininterval=0.1 if sys.stderr.isatty() else 10.0 if delay else 30.0,
        dynamic_ncols=True,
    )


def shown(bar: tqdm.tqdm, items: Iterable[T], step: int) -> Iterator[T]:
    """The same items; whenever one has been dealt with, the bar moves on by so many."""
    with bar:
        for item in items:
            yield item
            bar.update(min(step, bar.total - bar.n))


def say(text: str) -> None:
    """Prints a line to standard error without breaking a bar; of several processes the first."""
    if multihost.is_writer():
        tqdm.tqdm.write(text, file=sys.stderr)


def format_size(num_bytes: int) -> str:
    """A size for people to read."""
    if num_bytes < 2**30:
        return f"{num_bytes / 2**20:.1f} MiB"
    return f"{num_bytes / 2**30:.1f} GiB"
