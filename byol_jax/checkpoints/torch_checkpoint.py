"""Reads tensors from files of PyTorch and of safetensors, without PyTorch.

A ``.pt``, ``.pth`` or ``.ckpt`` file is a zip archive with a pickle inside, which names its
tensors; their numbers lie beside it. (Before PyTorch 1.6: pickles one after the other, then the
numbers.) `pickles` follows them without unpickling. Tensors stay in the file until they are loaded.
"""

import math
import os
import pathlib
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from byol_jax.checkpoints import safe_pickle
from byol_jax.workdir import files

_ZIP_DAMAGE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error)
_DEPTH = 8  # of dictionaries
_MOST_AXES = 8  # of a tensor
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class StoredTensor(NamedTuple):
    """A tensor that is still in its file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def load(self) -> np.ndarray:
        """Reads it."""
        return self.read()


Tensors = dict[str, StoredTensor]


def open_tensors(path: str | os.PathLike[str]) -> Tensors:
    """All tensors of a file by their names; those of nested dictionaries have dots in them.

    Raises:
      safe_pickle.UnsupportedPickle: the file is damaged, hostile, or of another kind.
    """
    try:
        if zipfile.is_zipfile(path):
            return dict(_flatten(_open_zip(path), safe_pickle.Budget(path)))
        with open(path, "rb") as file:
            head = file.read(8)
            file.seek(0)
            # A file of safetensors begins with a length, whose lowest byte may be any.
            if head[:1] == b"\x80" and any(head[4:]):
                return dict(_flatten(_open_legacy(file), safe_pickle.Budget(path)))
        return _open_safetensors(path)
    except (*safe_pickle.DAMAGE, *_ZIP_DAMAGE, safetensors.SafetensorError) as error:
        raise safe_pickle.explain(path, error, "a file of tensors") from None


def save_safetensors(
    path: str | os.PathLike[str], tensors: dict[str, np.ndarray], *, metadata: dict[str, str]
) -> None:
    """Writes tensors by their names.

    Raises:
      files.WriteError: no space, or the folder cannot be written to.
    """
    whole = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    try:
        safetensors_numpy.save_file(whole, path, metadata=metadata)
    except safetensors.SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        reason = OSError(int(code[1]), os.strerror(int(code[1]))) if code else OSError(str(error))
        raise files.WriteError(pathlib.Path(path), reason) from None
    os.chmod(path, 0o644)  # others write their files for everybody to read


def _open_safetensors(path: str | os.PathLike[str]) -> Tensors:
    def read(name: str) -> np.ndarray:
        with safetensors.safe_open(path, "numpy") as file:
            return file.get_tensor(name)

    tensors = {}
    with safetensors.safe_open(path, "numpy") as file:
        for name in file.keys():  # noqa: SIM118, it is no dictionary
            part = file.get_slice(name)
            kind = _SAFETENSORS.get(part.get_dtype())
            if kind is None:
                raise safe_pickle.UnsupportedPickle(f"{name} is of dtype {part.get_dtype()}")
            shape = tuple(part.get_shape())
            tensors[name] = StoredTensor(shape, np.dtype(kind), lambda name=name: read(name))
    return tensors


_SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


# PyTorch's own files.


class _Storage(NamedTuple):
    """Numbers that tensors lie in."""

    dtype: np.dtype
    count: int
    read: Callable[[int, int], bytes]  # from which byte, how many


class _Dictionary(dict, safe_pickle.Builder):
    """An ordered dictionary, whose attributes (a state dict's versions) are of no account."""

    def build(self, state: Any) -> None:
        if type(state) is not dict:
            raise safe_pickle.UnsupportedPickle("refuses to set the state of a dictionary")


class _DictionaryMaker(safe_pickle.Maker):
    def make(self, values: tuple) -> Any:
        if values:
            raise safe_pickle.UnsupportedPickle("refuses a dictionary that is made from values")
        return _Dictionary()

    def __call__(self, *values: Any) -> Any:
        return self.make(values)


def _tensor(storage: Any, offset: int, shape: tuple, strides: tuple, *_: Any) -> StoredTensor:
    if type(storage) is not _Storage or type(shape) is not tuple or type(strides) is not tuple:
        raise safe_pickle.UnsupportedPickle("refuses a tensor that is not made from a storage")
    numbers = (offset, *shape, *strides)
    is_row = len(shape) == len(strides) <= _MOST_AXES
    if not is_row or any(type(n) is not int or not 0 <= n < 1 << 63 for n in numbers):
        raise safe_pickle.UnsupportedPickle("damaged: a tensor's shape is not a row of sizes")
    size = math.prod(shape)
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if size else 0
    if size > storage.count or last >= max(storage.count, 1):
        raise safe_pickle.UnsupportedPickle(f"a tensor of shape {shape} does not fit its storage")

    def read() -> np.ndarray:
        item = storage.dtype.itemsize
        count = last - offset + 1 if size else 0
        flat = np.frombuffer(storage.read(offset * item, count * item), storage.dtype)
        steps = tuple(stride * item for stride in strides)
        return np.lib.stride_tricks.as_strided(flat, shape, steps).copy()

    return StoredTensor(shape, storage.dtype, read)


def _parameter(tensor: Any, *_: Any) -> StoredTensor:
    if type(tensor) is not StoredTensor:
        raise safe_pickle.UnsupportedPickle("refuses a parameter that is not a tensor")
    return tensor


_DTYPES = {
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
}
_NAMES: dict[str, Any] = {
    "collections.OrderedDict": _DictionaryMaker(),
    # What Lightning keeps hyper-parameters in.
    "lightning_fabric.utilities.data.AttributeDict": _DictionaryMaker(),
    "pytorch_lightning.utilities.parsing.AttributeDict": _DictionaryMaker(),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    **{name: np.dtype(kind) for name, kind in _DTYPES.items()},
}
_KEY_TYPES = (str, int)


def _open_zip(path: str | os.PathLike[str]) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
    found = [name for name in members if name.endswith("/data.pkl")]
    if len(found) != 1:
        raise safe_pickle.UnsupportedPickle("a zip archive, but not one that torch.save wrote")
    root = found[0].removesuffix("data.pkl")

    def storage(identifier: Any) -> _Storage:
        dtype, key, count = _identify(identifier)
        start, length = _locate(path, members.get(f"{root}data/{key}"))
        if length != count * dtype.itemsize:
            raise safe_pickle.UnsupportedPickle(f"damaged: storage {key} is not {count} numbers")
        return _Storage(dtype, count, lambda offset, size: _bytes(path, start + offset, size))

    byteorder = members.get(f"{root}byteorder")
    if byteorder and _bytes(path, _locate(path, byteorder)[0], 6) != b"little":
        raise safe_pickle.UnsupportedPickle("refuses numbers that are not little-endian")
    start, length = _locate(path, members[found[0]])
    with open(path, "rb") as file:
        file.seek(start)
        return safe_pickle.follow(file, _NAMES, persistent=storage, key_types=_KEY_TYPES)


def _locate(path: str | os.PathLike[str], info: zipfile.ZipInfo | None) -> tuple[int, int]:
    """Where the bytes of a member of an archive begin, and how many there are."""
    if info is None or info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise safe_pickle.UnsupportedPickle("damaged, or compressed: torch.save does not compress")
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise safe_pickle.UnsupportedPickle(
            "damaged: a member of the archive is not where it should be"
        )
    names = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    start = info.header_offset + 30 + names
    if start + info.file_size > os.path.getsize(path):
        raise safe_pickle.UnsupportedPickle("damaged: it ends in the middle")
    return start, info.file_size


def _bytes(path: str | os.PathLike[str], offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise safe_pickle.UnsupportedPickle("damaged: it ends in the middle")
    return data


def _identify(identifier: Any) -> tuple[np.dtype, str, int]:
    """Type, key and count of a storage."""
    if type(identifier) is not tuple or len(identifier) < 5 or identifier[0] != "storage":
        raise safe_pickle.UnsupportedPickle("refuses an identifier that is not of a storage")
    _, dtype, key, _, count = identifier[:5]
    if not isinstance(dtype, np.dtype) or type(key) is not str or type(count) is not int:
        raise safe_pickle.UnsupportedPickle("refuses a storage of another type than numbers")
    return dtype, key, count


def _open_legacy(file: IO[bytes]) -> Any:
    """Three pickles about the format, one of the value, one of keys; then the storages."""
    path = pathlib.Path(file.name)
    if safe_pickle.follow(file, {}) != _LEGACY_MAGIC:
        raise safe_pickle.UnsupportedPickle("a pickle, but not one that torch.save wrote")
    safe_pickle.follow(file, {})
    system = safe_pickle.follow(file, {})
    if type(system) is not dict or system.get("little_endian") is not True:
        raise safe_pickle.UnsupportedPickle("refuses numbers that are not little-endian")
    places: dict[str, int] = {}
    sizes: dict[str, int] = {}

    def storage(identifier: Any) -> _Storage:
        dtype, key, count = _identify(identifier)
        sizes[key] = count * dtype.itemsize
        return _Storage(dtype, count, lambda offset, size: _bytes(path, places[key] + offset, size))

    value = safe_pickle.follow(file, _NAMES, persistent=storage, key_types=_KEY_TYPES)
    keys = safe_pickle.follow(file, {})
    position = file.tell()
    for key in keys:
        places[key] = position + 8
        position += 8 + sizes[key]
    if position > os.path.getsize(path):
        raise safe_pickle.UnsupportedPickle("damaged: it ends in the middle")
    return value


def _flatten(
    value: Any, budget: safe_pickle.Budget, prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, StoredTensor]]:
    """Tensors and their names, `_DEPTH` dictionaries deep; what is shared is counted each time."""
    if not isinstance(value, dict) or depth > _DEPTH:
        return
    for key, item in value.items():
        name = f"{prefix}{key}"
        budget.spend(1)
        if type(item) is StoredTensor:
            budget.spend(len(name))
            yield name, item
        elif isinstance(item, dict):
            budget.spend(len(name))
            yield from _flatten(item, budget, f"{name}.", depth + 1)
