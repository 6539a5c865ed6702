"""What an optimized program of XLA does, read from its text."""

import re
from typing import NamedTuple

# Instructions that start nothing on the device.
FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all partition-id replica-id "
    "opt-barrier while call conditional async-start async-done async-update add-dependency".split()
)
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?(\S+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?(\S+) \(.*\) -> .*\{")
_CALLED = re.compile(r"(?:to_apply|body|calls|true_computation|false_computation)=%?([\w.\-]+)")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")


class Counts(NamedTuple):
    """Of one step on one device.

    Attributes:
      launches: kernels and calls of libraries; the body of a loop counts once.
      all_reduces: operations that sum over devices.
      all_reduce_bytes: of their results.
    """

    launches: int
    all_reduces: int
    all_reduce_bytes: int


def count(text: str) -> Counts:
    """Reads the text of a compiled program (``compiled.as_text()``)."""
    computations, entry = _computations(text)
    launches = reduces = size = 0
    waiting, seen = [entry], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for kind, shape, rest in computations.get(name, ()):
            if kind in ("while", "call", "conditional", "async-start"):
                waiting += _CALLED.findall(rest)
            if kind in ("all-reduce", "all-reduce-start"):
                reduces += 1
                size += _bytes(shape)
            launches += kind not in FREE and not kind.endswith(("-done", "-update"))
    return Counts(launches, reduces, size)


def _computations(text: str) -> tuple[dict[str, list[tuple[str, str, str]]], str]:
    """Instructions (kind, shape, rest) by computation, and the name of the first of all."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    entry = current = ""
    for line in text.splitlines():
        if start := _COMPUTATION.match(line):
            current = start[2]
            found[current] = []
            entry = current if start[1] else entry
        elif instruction := _INSTRUCTION.match(line):
            _, shape, kind, rest = instruction.groups()
            found.setdefault(current, []).append((kind, shape, rest))
    return found, entry


def _bytes(shape: str) -> int:
    """Of all arrays of a result."""
    total = 0
    for dtype, sides in _ARRAY.findall(shape):
        bits = 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])
        size = 1
        for side in filter(None, sides.split(",")):
            size *= int(side)
        total += size * bits // 8
    return total
