"""Keeps quiet what Orbax and TensorStore print of errors that their callers raise as well."""

import logging
import re
import sys
from types import TracebackType
from typing import Any

# TensorStore reads and writes many arrays at once. When one fails, Orbax raises its error and
# closes the event loop; the threads of all others then find it closed, and print a trace each.
_LATE = "Event loop is closed"

_unraisable_hook: Any = None  # the one before ours, once ours is there


def leave_out() -> None:
    """From now on no trace is printed of what is raised as an exception; once is enough."""
    global _unraisable_hook
    logging.getLogger("absl").addFilter(_is_not_of_orbax)
    if sys.excepthook is sys.__excepthook__:  # else it is somebody's, as in a notebook
        sys.excepthook = _pass_over_exception
    if _unraisable_hook is None:
        _unraisable_hook, sys.unraisablehook = sys.unraisablehook, _pass_over_unraisable


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Its threads log, with traces, the errors that its callers raise."""
    return not re.search(r"[/\\]orbax[/\\]", record.pathname)


def _pass_over_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if str(error) != _LATE:
        sys.__excepthook__(kind, error, trace)


def _pass_over_unraisable(unraisable: Any) -> None:
    if str(unraisable.exc_value) != _LATE:
        _unraisable_hook(unraisable)
