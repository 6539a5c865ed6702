"""JPEGs that no camera writes: lossless ones, changed headers, segments between segments."""

import struct

SOF0, SOF2, SOF3, DHT, SOS = 0xC0, 0xC2, 0xC3, 0xC4, 0xDA


def segment(marker, payload=b""):
    """A marker and what belongs to it."""
    return bytes((0xFF, marker)) + struct.pack(">H", 2 + len(payload)) + payload


def segments(data):
    """The segments (marker, payload) before the first scan's data, and the rest from there on."""
    found, place = [], 2
    while True:
        marker = data[place + 1]
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        found.append((marker, data[place + 4 : end]))
        place = end
        if marker == SOS:
            return found, data[place:]


def join(parts, rest):
    """The JPEG of what `segments` took apart."""
    return b"\xff\xd8" + b"".join(segment(*part) for part in parts) + rest


def frame(marker, height, width, components, *, precision=8):
    """A frame header; components are (id, sampling, quantization table)."""
    head = struct.pack(">BHHB", precision, height, width, len(components))
    return segment(marker, head + b"".join(map(bytes, components)))


def lossless(height, width, *, channels=3, precision=8):
    """A lossless JPEG (SOF3), all of whose samples are the middle gray."""
    ids = b"RGBA"[:channels]
    table = segment(DHT, b"\0" + bytes((1, *[0] * 15)) + b"\0")  # one code, of 1 bit: no difference
    header = frame(SOF3, height, width, [(i, 0x11, 0) for i in ids], precision=precision)
    scan = segment(SOS, bytes((channels,)) + b"".join(bytes((i, 0)) for i in ids) + b"\1\0\0")
    bits = bytes(-(-height * width * channels // 8))
    return b"\xff\xd8" + header + table + scan + bits + b"\xff\xd9"


def with_segments(data, *extra, before=SOF0):
    """The JPEG with whole segments, or any bytes, put in before the first of a marker."""
    place = data.index(bytes((0xFF, before)))
    return data[:place] + b"".join(extra) + data[place:]


def flat(height, width, samplings, *, marker=SOF0):
    """A baseline JPEG of any sampling, all of whose samples are the middle gray."""
    components = [(number, sampling, 0) for number, sampling in enumerate(samplings, 1)]
    quantization = segment(0xDB, b"\0" + bytes([1] * 64))
    # One code of 1 bit each: no difference, and no more coefficients of the block.
    tables = [segment(DHT, bytes((kind, 1, *[0] * 16))) for kind in (0x00, 0x10)]
    ids = b"".join(bytes((number, 0)) for number, _, _ in components)
    scan = segment(SOS, bytes((len(components),)) + ids + b"\0\x3f\0")
    header = frame(marker, height, width, components)
    bits = bytes(height * width)  # more than enough; what is left over is skipped
    parts = (b"\xff\xd8", quantization, header, *tables, scan, bits, b"\xff\xd9")
    return b"".join(parts)
