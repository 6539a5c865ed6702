"""Reads DeepMind's released BYOL checkpoints (``.pkl``) without running code from them.

The files are dill pickles, and to unpickle is to call whatever a file names. So nothing is
unpickled here: `pickletools` splits the file into opcodes, and a small machine follows those that
the checkpoints need. It knows a few names, each standing for a function below that builds a plain
value; any other name, opcode or kind of array is refused. No class of dill, byol, haiku, optax or
jax is imported, so it does not matter which versions wrote the file.
"""

import math
import os
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Tree = dict[str, dict[str, np.ndarray]]

_STATE_FIELDS = ("online_params", "target_params", "online_state", "target_state")


class UnsupportedPickle(ValueError):
    """The file is damaged, hostile, or not a checkpoint of BYOL's pretraining."""


class Checkpoint(NamedTuple):
    """A checkpoint as plain trees ``{module: {name: array}}`` without a device axis.

    The arrays cannot be written to. `momentum` is that of LARS, None if the file has none.
    """

    step: int
    online_params: Tree
    target_params: Tree
    online_state: Tree
    target_state: Tree
    momentum: Tree | None


def load_pickle(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint that the reference's pretraining wrote; never runs code from it.

    Raises:
      UnsupportedPickle: names the file and what is wrong with it, such as a global that
        checkpoints do not need.
    """
    try:
        return _to_checkpoint(_Machine(budget=os.path.getsize(path)).run(path))
    except UnsupportedPickle as error:
        raise UnsupportedPickle(f"{os.fspath(path)}: {error}") from None
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError) as error:
        raise UnsupportedPickle(
            f"{os.fspath(path)}: damaged, or not a pickled checkpoint ({error})"
        ) from error


# What the names in a file stand for. Values of other types cannot come into being.


class _DType:
    """A number type; the file gives its code first, its byte order later."""

    def __init__(self, code: str, align: bool = False, copy: bool = True):
        code = code if type(code) is str else "()"
        if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
            raise UnsupportedPickle(f"refuses an array of dtype {code!r}: only numbers are safe")
        self.numpy = np.dtype("<" + code)

    def build(self, state: tuple) -> None:
        _, order, *rest = state
        if order not in ("<", "|", "=") or rest != [None, None, None, -1, -1, 0]:
            raise UnsupportedPickle("refuses a dtype that is not a little-endian number")


class _Array:
    """An array; the file asks for an empty one first, and fills it later."""

    value: np.ndarray | None = None

    def build(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        if type(dtype) is not _DType or type(data) is not bytes or type(fortran) is not bool:
            raise UnsupportedPickle("refuses an array that is not a block of numbers")
        if len(shape) > 8 or any(type(size) is not int or size < 0 for size in shape):
            raise UnsupportedPickle("damaged: an array's shape is not up to eight sizes")
        if len(data) != math.prod(shape) * dtype.numpy.itemsize:
            raise UnsupportedPickle(f"{len(data)} bytes do not fill an array of shape {shape}")
        self.value = np.ndarray(shape, dtype.numpy, data, order="F" if fortran else "C")


class _Record:
    """A named tuple's class, reduced to its fields; its instances become dictionaries."""

    def __init__(self, name: str, fields: tuple, module: str, defaults: Any = None):
        if type(fields) is not tuple or any(type(field) is not str for field in fields):
            raise UnsupportedPickle("damaged: a named tuple's fields are not names")
        self.fields = fields


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


def _encode(text: str, encoding: str) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise UnsupportedPickle("refuses to encode bytes other than by latin1")
    return text.encode("latin1")


def _mapping(mapping: dict) -> dict:
    if type(mapping) is not dict:
        raise UnsupportedPickle("refuses a haiku mapping that is not made from a dict")
    return mapping


_NAMES: dict[str, Any] = {
    "_codecs.encode": _encode,
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
    "haiku._src.data_structures.frozendict": _mapping,
    "haiku._src.data_structures.FlatMapping": _mapping,
}
_FUNCTIONS = [function for function in _NAMES.values() if function is not _NDARRAY]


class _Machine:
    """The part of pickle's stack machine that checkpoints use."""

    def __init__(self, budget: int):
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        # A string can be read once and encoded often: no more bytes come out than went in.
        self.budget = budget

    def run(self, path: str | os.PathLike[str]) -> Any:
        """Follows the file to its end; the last value on the stack is what it holds."""
        with open(path, "rb") as file:
            for opcode, argument, position in pickletools.genops(file):
                step = _OPCODES.get(opcode.name)
                if step is None:
                    raise UnsupportedPickle(f"refuses {opcode.name} at byte {position}")
                step(self, argument)
        return self.stack.pop()

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise UnsupportedPickle("damaged: the stack is empty")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def pop_to_mark(self) -> list[Any]:
        return self.pop(len(self.stack) - self.marks.pop())

    def look_up(self, name: str) -> None:
        if name not in _NAMES:
            raise UnsupportedPickle(f"refuses to load {name!r}, which no checkpoint needs")
        self.stack.append(_NAMES[name])

    def stack_global(self) -> None:
        names = self.pop(2)
        if any(type(name) is not str for name in names):
            raise UnsupportedPickle("refuses a global whose name is not text")
        self.look_up(".".join(names))

    def reduce(self) -> None:
        function, args = self.pop(2)
        if not any(function is known for known in _FUNCTIONS) or type(args) is not tuple:
            raise UnsupportedPickle("refuses to call something that is not a function")
        result = function(*args)
        if type(result) is bytes:
            self.budget -= len(result)
            if self.budget < 0:
                raise UnsupportedPickle("refuses to make more bytes than the file has")
        self.stack.append(result)

    def new_object(self) -> None:
        record, values = self.pop(2)
        if type(record) is not _Record or type(values) is not tuple:
            raise UnsupportedPickle("refuses an object that is not a named tuple")
        self.stack.append(dict(zip(record.fields, values, strict=True)))

    def build(self) -> None:
        target, state = self.pop(2)
        if type(target) not in (_DType, _Array) or type(state) is not tuple:
            raise UnsupportedPickle("refuses to set the state of a value that is not an array")
        target.build(state)
        self.stack.append(target)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or any(type(key) is not str for key in items[::2]):
            raise UnsupportedPickle("refuses a dictionary whose keys are not text")
        target.update(zip(items[::2], items[1::2], strict=True))


_OPCODES: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, arg: None),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE")
        + ("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        lambda m, arg: m.stack.append(arg),
    ),
    "NONE": lambda m, arg: m.stack.append(None),
    "NEWTRUE": lambda m, arg: m.stack.append(True),
    "NEWFALSE": lambda m, arg: m.stack.append(False),
    "EMPTY_TUPLE": lambda m, arg: m.stack.append(()),
    "TUPLE1": lambda m, arg: m.stack.append(tuple(m.pop(1))),
    "TUPLE2": lambda m, arg: m.stack.append(tuple(m.pop(2))),
    "TUPLE3": lambda m, arg: m.stack.append(tuple(m.pop(3))),
    "TUPLE": lambda m, arg: m.stack.append(tuple(m.pop_to_mark())),
    "EMPTY_DICT": lambda m, arg: m.stack.append({}),
    "SETITEM": lambda m, arg: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, arg: m.set_items(m.pop_to_mark()),
    "MARK": lambda m, arg: m.marks.append(len(m.stack)),
    "MEMOIZE": lambda m, arg: m.memo.update({len(m.memo): m.stack[-1]}),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda m, arg: m.memo.update({arg: m.stack[-1]})),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, arg: m.stack.append(m.memo[arg])),
    "GLOBAL": lambda m, arg: m.look_up(arg.replace(" ", ".")),
    "STACK_GLOBAL": lambda m, arg: m.stack_global(),
    "REDUCE": lambda m, arg: m.reduce(),
    "NEWOBJ": lambda m, arg: m.new_object(),
    "BUILD": lambda m, arg: m.build(),
}


# From the values of a file to a checkpoint.


def _to_checkpoint(root: Any) -> Checkpoint:
    state = _entry(root, "experiment_state")
    trees = {field: _to_tree(_entry(state, field), field) for field in _STATE_FIELDS}
    momentum = [part["mu"] for part in _entry(state, "opt_state") if "mu" in part]
    step = _entry(root, "step")
    step = step.value if type(step) is _Array else step
    return Checkpoint(
        step=int(step),
        momentum=_to_tree(momentum[0], "momentum") if momentum else None,
        **trees,
    )


def _entry(mapping: Any, name: str) -> Any:
    if type(mapping) is not dict or name not in mapping:
        has = list(mapping)[:9] if type(mapping) is dict else "nothing with a name"
        raise UnsupportedPickle(f"not a checkpoint of pretraining: lacks {name!r}, has {has}")
    return mapping[name]


def _to_tree(modules: Any, what: str) -> Tree:
    if type(modules) is not dict or any(type(leaves) is not dict for leaves in modules.values()):
        raise UnsupportedPickle(f"{what} is not a tree of modules and arrays")
    tree: Tree = {module: {} for module in modules}
    for module, leaves in modules.items():
        for name, leaf in leaves.items():
            if type(leaf) is not _Array or leaf.value is None:
                raise UnsupportedPickle(f"{what} has an entry {module}/{name} that is no array")
            tree[module][name] = leaf.value
    return tree
