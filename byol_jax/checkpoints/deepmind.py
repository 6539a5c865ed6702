"""Reads DeepMind's released BYOL checkpoints (``.pkl``) without running code from them.

The files are dill pickles, which `pickles` follows without unpickling. The names below are all
that it may meet. No class of dill, byol, haiku, optax or jax is imported, so it does not matter
which versions wrote the file.
"""

import math
import os
from typing import Any, NamedTuple

import numpy as np

from byol_jax.checkpoints import safe_pickle

UnsupportedPickle = safe_pickle.UnsupportedPickle
Tree = dict[str, dict[str, Any]]

_FIELDS = ("online_params", "target_params", "online_state", "target_state")
_EVALUATION_FIELDS = ("backbone_params", "classif_params", "backbone_state")


class Checkpoint(NamedTuple):
    """A checkpoint as plain trees ``{module: {name: array}}`` without a device axis.

    The arrays cannot be written to. Of a checkpoint of linear evaluation or fine-tuning, the
    backbone is the online network, with the linear classifier as module ``classifier``; it has no
    target. `momentum` is that of LARS, None if the file has none.
    """

    step: int
    online_params: Tree
    target_params: Tree | None
    online_state: Tree
    target_state: Tree | None
    momentum: Tree | None


class StoredArray(NamedTuple):
    """An array that is still in its file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    data: bytes | safe_pickle.Block
    is_fortran: bool

    def load(self) -> np.ndarray:
        """Reads it."""
        data = self.data if type(self.data) is bytes else self.data.read()
        if len(data) != math.prod(self.shape) * self.dtype.itemsize:
            raise UnsupportedPickle(f"{len(data)} bytes do not fill an array of {self.shape}")
        return np.ndarray(self.shape, self.dtype, data, order="F" if self.is_fortran else "C")


def load_pickle(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a whole checkpoint that the reference wrote; never runs code from it.

    Raises:
      UnsupportedPickle: names the file and what is wrong with it, such as a global that
        checkpoints do not need.
    """
    found = open_pickle(path)
    trees = [
        load_tree(path, tree) if isinstance(tree, dict) else tree
        for tree in (found._asdict().values())
    ]
    return Checkpoint(*trees)


def open_pickle(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads what is in a checkpoint, but leaves its arrays in the file, as `StoredArray`.

    Raises:
      UnsupportedPickle: as `load_pickle`.
    """
    try:
        with open(path, "rb") as file:
            return _to_checkpoint(safe_pickle.follow(file, _NAMES), safe_pickle.Budget(path))
    except safe_pickle.DAMAGE as error:
        raise safe_pickle.explain(path, error, "a pickled checkpoint") from None


def load_tree(path: str | os.PathLike[str], tree: Tree) -> Tree:
    """Reads the arrays of a tree, one after the other, which is all the memory it takes.

    Args:
      path: of the file, for the error.
      tree: of `StoredArray`.

    Raises:
      UnsupportedPickle: an array that is damaged, or many that share the same bytes.
    """
    leaves = [leaf for leaves in tree.values() for leaf in leaves.values()]
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    try:
        if size > os.path.getsize(path):
            raise UnsupportedPickle("refuses to make more bytes than the file has")
        return {
            module: {name: leaf.load() for name, leaf in leaves.items()}
            for module, leaves in tree.items()
        }
    except safe_pickle.DAMAGE as error:
        raise safe_pickle.explain(path, error, "a pickled checkpoint") from None


# What the names in a file stand for. Values of other types cannot come into being.


class _DType(safe_pickle.Builder):
    """A number type; the file gives its code first, its byte order later."""

    def __init__(self, code: str, align: bool = False, copy: bool = True):
        code = code if type(code) is str else "()"
        if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
            raise UnsupportedPickle(f"refuses an array of dtype {code!r}: only numbers are safe")
        self.numpy = np.dtype("<" + code)

    def build(self, state: tuple) -> None:
        _require_tuple(state)
        _, order, *rest = state
        if order not in ("<", "|", "=") or rest != [None, None, None, -1, -1, 0]:
            raise UnsupportedPickle("refuses a dtype that is not a little-endian number")


class _Array(safe_pickle.Builder):
    """An array; the file asks for an empty one first, and fills it later."""

    value: StoredArray | None = None

    def build(self, state: tuple) -> None:
        _require_tuple(state)
        _, shape, dtype, fortran, data = state
        is_block = type(data) is safe_pickle.Block and not data.is_text
        if type(dtype) is not _DType or not (is_block or type(data) is bytes):
            raise UnsupportedPickle("refuses an array that is not a block of numbers")
        if type(fortran) is not bool or type(shape) is not tuple:
            raise UnsupportedPickle("refuses an array that is not a block of numbers")
        if len(shape) > 8 or any(type(size) is not int or size < 0 for size in shape):
            raise UnsupportedPickle("damaged: an array's shape is not up to eight sizes")
        size = math.prod(shape) * dtype.numpy.itemsize
        length = data.length if is_block else len(data)
        # In UTF-8 a byte takes one or two.
        if not (length / 2 if is_block and data.is_encoded else length) <= size <= length:
            raise UnsupportedPickle(f"{length} bytes do not fill an array of shape {shape}")
        self.value = StoredArray(shape, dtype.numpy, data, fortran)


def _require_tuple(state: Any) -> None:
    if type(state) is not tuple:
        raise UnsupportedPickle("refuses to set the state of a value that is not an array")


class _Record(safe_pickle.Maker):
    """A named tuple's class, reduced to its fields; its instances become dictionaries."""

    def __init__(self, name: str, fields: tuple, module: str, defaults: Any = None):
        if type(fields) is not tuple or any(type(field) is not str for field in fields):
            raise UnsupportedPickle("damaged: a named tuple's fields are not names")
        self.fields = fields

    def make(self, values: tuple) -> dict[str, Any]:
        return dict(zip(self.fields, values, strict=True))


_NDARRAY = object()  # stands for numpy.ndarray, and is only ever compared


def _empty_array(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _NDARRAY:
        raise UnsupportedPickle("refuses an array of another class than numpy.ndarray")
    return _Array()


def _filled_array(function: Any, args: tuple, state: tuple, extra: Any = None) -> _Array:
    # The file says which function makes the empty array, but only one may.
    if function is not _empty_array:
        raise UnsupportedPickle("refuses an array made by another function than numpy's")
    array = _empty_array(*args)
    array.build(state)
    return array


def _scalar(dtype: Any, data: Any) -> _Array:
    array = _Array()
    array.build((1, (), dtype, False, data))
    return array


def _mapping(mapping: dict) -> dict:
    if type(mapping) is not dict:
        raise UnsupportedPickle("refuses a haiku mapping that is not made from a dict")
    return mapping


_BUFFER = safe_pickle.Refusal(
    "holds an array as a pointer into a device of the process that wrote it; save it again there, "
    "with jax.device_get"
)
_NAMES: dict[str, Any] = {
    "_codecs.encode": safe_pickle.encode,
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _DType,
    "numpy._core.multiarray._reconstruct": _empty_array,
    "numpy._core.multiarray.scalar": _scalar,
    "dill._dill._create_array": _filled_array,
    "dill._dill._create_namedtuple": _Record,
    "jax._src.array._reconstruct_array": _filled_array,
    # Names in older versions of these libraries, from their source: no such file was at hand.
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy.core.multiarray.scalar": _scalar,
    "dill.dill._create_array": _filled_array,
    "dill.dill._create_namedtuple": _Record,
    "jax._src.device_array.reconstruct_device_array": _filled_array,
    "jax.interpreters.xla.reconstruct_device_array": _filled_array,
    "jax.interpreters.xla.DeviceArray": _BUFFER,
    "jax.interpreters.xla._DeviceArray": _BUFFER,
    "jaxlib.xla_extension.DeviceArray": _BUFFER,
    "jaxlib.xla_extension.Buffer": _BUFFER,
    "haiku._src.data_structures.frozendict": _mapping,
    "haiku._src.data_structures.FlatMapping": _mapping,
}


# From the values of a file to a checkpoint.


def _to_checkpoint(root: Any, budget: safe_pickle.Budget) -> Checkpoint:
    state = _entry(root, "experiment_state")
    step = _entry(root, "step")
    step = step.value.load() if type(step) is _Array else step
    if type(state) is dict and set(_EVALUATION_FIELDS) <= set(state):
        return _to_evaluation(int(step), state, budget)
    trees = {field: _to_tree(_entry(state, field), field, budget) for field in _FIELDS}
    momentum = [part["mu"] for part in _entry(state, "opt_state") if "mu" in part]
    return Checkpoint(
        step=int(step),
        momentum=_to_tree(momentum[0], "momentum", budget) if momentum else None,
        **trees,
    )


def _to_evaluation(step: int, state: dict[str, Any], budget: safe_pickle.Budget) -> Checkpoint:
    params, head, statistics = (
        _to_tree(state[field], field, budget) for field in _EVALUATION_FIELDS
    )
    params = {module: leaves for module, leaves in params.items() if module != "classifier"}
    if len(head) == 1:  # what pretraining calls classifier, haiku calls linear here
        params["classifier"] = next(iter(head.values()))
    return Checkpoint(step, params, None, statistics, None, None)


def _entry(mapping: Any, name: str) -> Any:
    if type(mapping) is not dict or name not in mapping:
        has = list(mapping)[:9] if type(mapping) is dict else "nothing with a name"
        raise UnsupportedPickle(f"not a checkpoint of pretraining: lacks {name!r}, has {has}")
    return mapping[name]


def _to_tree(modules: Any, what: str, budget: safe_pickle.Budget) -> Tree:
    if type(modules) is not dict or any(type(leaves) is not dict for leaves in modules.values()):
        raise UnsupportedPickle(f"{what} is not a tree of modules and arrays")
    tree: Tree = {module: {} for module in modules}
    for module, leaves in modules.items():
        budget.spend(len(module))
        for name, leaf in leaves.items():
            budget.spend(1)
            if type(leaf) is not _Array or leaf.value is None:
                raise UnsupportedPickle(f"{what} has an entry {module}/{name} that is no array")
            tree[module][name] = leaf.value
    return tree
