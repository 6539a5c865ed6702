"""Grayscale, and colors, of more than 8 bits: which values are black and white.

Microscopes and scanners write 12 bits into 16, signed numbers and floats. What a file says of its
values decides, if it says something; else what was measured over the whole set, `range_of`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Kind of values (unsigned, signed, float): those that are black and white.
Ranges = Mapping[str, tuple[float, float]]

FULL = (0, 65535)  # of unsigned values of which nothing is known
OUTLIERS = 0.001  # fraction of an image's signed or float values beyond each end of its range

# TIFF's tags.
_BITS, _SAMPLE_FORMAT, _PHOTOMETRIC = 258, 339, 262
_SIGNED_FORMAT, _WHITE_IS_ZERO = 2, 0
_STATED = ((340, 341), (280, 281))  # S(Min|Max)SampleValue, (Min|Max)SampleValue


def kind(image: Any) -> str | None:
    """``unsigned``, ``signed`` or ``float``: what the values of Pillow's image are; None: bytes."""
    if image.mode == "F":
        return "float"
    if not image.mode.startswith("I"):
        return None
    is_signed = _tag(image, _SAMPLE_FORMAT) == _SIGNED_FORMAT
    return "signed" if image.mode == "I" and is_signed else "unsigned"


def values(image: Any, kind: str) -> np.ndarray:
    """The values of a part of Pillow's image, [H, W]."""
    found = np.asarray(image)
    # Pillow has no mode of 32 unsigned bits and gives them as signed ones.
    return found.view(np.uint32) if kind == "unsigned" and found.dtype == np.int32 else found


def stated_range(image: Any) -> tuple[float, float] | None:
    """The values that are black and white by the tags of a TIFF; None if they do not say it.

    A largest value that is the largest of its number of bits (65535 of 16) says nothing: 12 bits
    in 16 are often written with it.
    """
    bits = _tag(image, _BITS) or 0
    is_unsigned = kind(image) in ("unsigned", None)  # None: colors
    if is_unsigned and bits not in (8, 16, 32):
        return (0, 2**bits - 1) if bits else None
    for tags in _STATED:
        low, high = (_tag(image, tag) for tag in tags)
        low = 0 if low is None and is_unsigned else low
        numbers = (int, float)
        if not (isinstance(low, numbers) and isinstance(high, numbers)):
            continue
        if np.isfinite([low, high]).all() and low < high and high not in _ends(bits):
            return float(low), float(high)
    return None


def _ends(bits: int) -> tuple[int, ...]:
    return (2**bits - 1, 2 ** max(bits - 1, 0) - 1)


def is_inverted(image: Any) -> bool:
    """Whether a TIFF says that its least value is white."""
    return _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO


def _tag(image: Any, number: int) -> Any:
    found = getattr(image, "tag_v2", {}).get(number)
    return found[0] if isinstance(found, tuple) and found else found


def significant_bits(data: bytes) -> int | None:
    """What a PNG's chunk sBIT says of its gray values; None without one."""
    place = data.find(b"sBIT", 0, data.find(b"IDAT") if b"IDAT" in data[:65536] else 65536)
    return data[place + 4] if place >= 0 and 0 < data[place + 4] < 16 else None


def is_scaled_up(parts: Sequence[np.ndarray], bits: int) -> bool:
    """Whether values of so many bits fill 16, as PNG wants it, or stand in them as they were."""
    rest = (1 << (16 - bits)) - 1
    fits = all(part.max(initial=0) < 1 << bits for part in parts)
    return not fits or not any((part & rest).any() for part in parts)


class Summary(NamedTuple):
    """The finite values of an image.

    Attributes:
      low, high: the least and the largest, but for `OUTLIERS` at each end.
      largest: of all.
    """

    low: float
    high: float
    largest: float


def summarize(sample: np.ndarray) -> Summary:
    """The summary of an image's values, [H, W]."""
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return Summary(0.0, 0.0, 0.0)
    low, high = np.quantile(sample, (OUTLIERS, 1 - OUTLIERS))
    return Summary(float(low), float(high), float(sample.max()))


def range_of(kind: str, summaries: Sequence[Summary]) -> tuple[float, float]:
    """The values that are black and white in a set, by some of its images.

    Unsigned values, and signed ones of which next to none is negative: from 0 to the largest that
    as many bits can hold as the largest value needs (8 at least). Floats of which next to none is
    negative: from 0 to the next power of two. Others: from the least to the largest. Of signed
    values and floats outliers do not count.

    Args:
      kind: as in `kind`.
      summaries: of images.
    """
    low, high = min(s.low for s in summaries), max(s.high for s in summaries)
    if kind == "unsigned" or (kind == "signed" and low >= 0):
        largest = max(s.largest for s in summaries)
        return 0, 2 ** max(8, int(largest).bit_length()) - 1
    if low >= 0:
        return 0, 2.0 ** math.ceil(math.log2(high)) if high else 1
    return low, high if high > low else low + 1


def describe(ranges: Ranges) -> str:
    """A line for people on what was measured."""
    parts = [f"{kind} values {low:g} to {high:g}" for kind, (low, high) in ranges.items()]
    return f"Pixels of more than 8 bits: {', '.join(parts)} become black to white."


def to_bytes(sample: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as uint8: 256 steps of one size from low to high, of whole numbers both included."""
    is_whole = sample.dtype.kind in "iu"
    steps = 256 / (high - low + is_whole)
    wide = np.nan_to_num(sample.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.clip(np.floor((wide - low) * steps), 0, 255).astype(np.uint8)
