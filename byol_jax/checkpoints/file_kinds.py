"""Tells files that people take for weights from weights, by how they begin."""

import pathlib

from byol_jax.workdir import files


def recognize(path: pathlib.Path) -> str:
    """What a file is that can be no weights, for people; empty if it may be some."""
    with files.open_regular(path) as file:
        head = file.read(8)
    if not head:
        return "empty"
    if not any(head[4:]):  # the length of a header of safetensors, which may be any letters
        return ""
    return next((kind for start, kind in _BEGINNINGS.items() if head.startswith(start)), "")


_BEGINNINGS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"RIFF": "a WebP image or another RIFF file",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"%PDF": "a PDF",
    b"<": "a page of HTML or XML (was it downloaded in place of the weights?)",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file, such as Keras writes",
    b"\x1f\x8b": "compressed by gzip (unpack it first)",
    b"version ": "a pointer of Git LFS (run git lfs pull)",
}
