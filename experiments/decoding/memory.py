"""Memory that decoding takes, per pixel, for every kind of image; one process each.

    python -m experiments.decoding.memory [MEGAPIXELS]

Prints the peak of resident memory above that of the process with the file in memory, as bytes per
pixel, and what `bytes_needed` expects. Nothing may take more than that.
"""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import PIL.Image

from byol_jax.data import image_decoding


def _pixels(side: int, channels: int) -> np.ndarray:
    """Cheap to encode, but not all of one value."""
    rows = np.arange(side, dtype=np.uint8)
    return np.broadcast_to(rows[:, None, None], (side, side, channels)).copy()


def _save(image: PIL.Image.Image, name: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def _rgb(side: int) -> PIL.Image.Image:
    return PIL.Image.fromarray(_pixels(side, 3))


def _rgba(side: int) -> PIL.Image.Image:
    return PIL.Image.fromarray(_pixels(side, 4), "RGBA")


def _gray16(side: int) -> PIL.Image.Image:
    return PIL.Image.fromarray(_pixels(side, 1)[:, :, 0].astype(np.uint16) * 16)


def _turned() -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[274] = 6
    return exif


def _one_strip(image: PIL.Image.Image, **options) -> bytes:
    return _save(image, "TIFF", tiffinfo={278: image.height}, strip_size=1 << 31, **options)


def _animated(side: int) -> bytes:
    return _save(_rgba(side), "WEBP", save_all=True, append_images=[_rgb(side)] * 2, quality=1)


def _lossless(side: int, channels: int) -> bytes:
    """A lossless JPEG (SOF3), all of whose samples are the middle gray."""
    ids = b"RGBA"[:channels]
    frame = struct.pack(">BHHB", 8, side, side, channels) + b"".join(b"%c\x11\0" % i for i in ids)
    scan = bytes((channels,)) + b"".join(b"%c\0" % i for i in ids) + b"\1\0\0"
    parts = [(0xC3, frame), (0xC4, b"\0\1" + bytes(16)), (0xDA, scan)]
    head = b"".join(struct.pack(">BBH", 255, kind, 2 + len(part)) + part for kind, part in parts)
    return b"\xff\xd8" + head + bytes(-(-side * side * channels // 8)) + b"\xff\xd9"


def _png16(side: int, colors: int) -> bytes:
    """A PNG of 16 bits, of RGB (2), gray with alpha (4) or RGBA (6)."""
    channels = {2: 3, 4: 2, 6: 4}[colors]
    header = struct.pack(">IIBBBBB", side, side, 16, colors, 0, 0, 0)
    row = b"\0" + bytes(range(256)) * (side * channels * 2 // 256 + 1)
    rows = row[: 1 + side * channels * 2] * side
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in parts
    )


KINDS = {
    "JPEG": lambda n: _save(_rgb(n), "JPEG"),
    "JPEG, turned": lambda n: _save(_rgb(n), "JPEG", exif=_turned()),
    "JPEG, progressive 4:4:4": lambda n: _save(_rgb(n), "JPEG", progressive=True, subsampling=0),
    "JPEG, CMYK": lambda n: _save(_rgb(n).convert("CMYK"), "JPEG"),
    "JPEG, CMYK progressive": lambda n: _save(_rgb(n).convert("CMYK"), "JPEG", progressive=True),
    "JPEG, lossless": lambda n: _lossless(n, 3),
    "JPEG, lossless CMYK": lambda n: _lossless(n, 4),
    "PNG": lambda n: _save(_rgb(n), "PNG", compress_level=1),
    "PNG, turned": lambda n: _save(_rgb(n), "PNG", compress_level=1, exif=_turned()),
    "PNG, RGBA": lambda n: _save(_rgba(n), "PNG", compress_level=1),
    "PNG, RGBA turned": lambda n: _save(_rgba(n), "PNG", compress_level=1, exif=_turned()),
    "PNG, palette with alpha": lambda n: _save(_rgb(n).quantize(9), "PNG", transparency=1),
    "PNG, 16 bits": lambda n: _save(_gray16(n), "PNG", compress_level=1),
    "PNG, RGB of 16 bits": lambda n: _png16(n, 2),
    "PNG, gray with alpha of 16 bits": lambda n: _png16(n, 4),
    "PNG, RGBA of 16 bits": lambda n: _png16(n, 6),
    "TIFF": lambda n: _save(_rgb(n), "TIFF"),
    "TIFF, RGBA turned": lambda n: _save(_rgba(n), "TIFF", exif=_turned()),
    "TIFF, one deflated strip": lambda n: _one_strip(_rgba(n), compression="tiff_adobe_deflate"),
    "TIFF, 16 bits deflated": lambda n: _one_strip(_gray16(n), compression="tiff_adobe_deflate"),
    "TIFF, floats": lambda n: _save(_rgb(n).convert("F"), "TIFF"),
    "TIFF, JPEG": lambda n: _one_strip(_rgb(n), compression="jpeg"),
    "BMP": lambda n: _save(_rgb(n), "BMP"),
    "WEBP": lambda n: _save(_rgb(n), "WEBP", quality=1, method=0),
    "WEBP, lossless RGBA turned": lambda n: _save(
        _rgba(n), "WEBP", lossless=True, quality=0, method=0, exif=_turned()
    ),
    "WEBP, animated": _animated,
    "AVIF": lambda n: _save(_rgb(n), "AVIF", speed=10, quality=20),
    "AVIF, RGBA turned": lambda n: _save(_rgba(n), "AVIF", speed=10, exif=_turned()),
}


def measure(kind: str, side: int) -> None:
    """Prints bytes per pixel: measured, and expected."""
    encode = [sys.executable, "-m", "experiments.decoding.memory", "encode", kind, str(side)]
    data = subprocess.run(encode, check=True, capture_output=True).stdout
    image = image_decoding.EncodedImage(data, {"float": (0, 255)})
    image_decoding.EncodedImage(_save(_rgb(64), "JPEG")).decode()  # libraries are there already
    _reset_peak()
    before = _resident()
    image.decode()
    peak = int(_status("VmHWM"))
    pixels = side * side
    print(f"{(peak - before) * 1024 / pixels:.1f} {image.bytes_needed() / pixels:.1f}")


def _status(key: str) -> str:
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(key))


def _resident() -> int:
    return int(_status("VmRSS"))


def _reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def main() -> None:
    """All kinds, or what a child is told."""
    if sys.argv[1:2] == ["encode"]:
        sys.stdout.buffer.write(KINDS[sys.argv[2]](int(sys.argv[3])))
        return
    if sys.argv[1:2] == ["measure"]:
        measure(sys.argv[2], int(sys.argv[3]))
        return
    side = round((float(sys.argv[1]) * 1e6 if len(sys.argv) > 1 else 16e6) ** 0.5)
    print("| image | bytes per pixel | expected at most |\n|---|---|---|")
    for kind in KINDS:
        command = [sys.executable, "-m", "experiments.decoding.memory", "measure", kind, str(side)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = done.stdout.split() or [done.stderr.strip().splitlines()[-1], ""]
        print(f"| {kind} | {found[0]} | {found[1]} |", flush=True)


if __name__ == "__main__":
    main()
