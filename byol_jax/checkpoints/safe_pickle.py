"""Follows pickle files without unpickling them, so that no file can run code.

To unpickle is to call whatever a file names. Here `pickletools` says what the opcodes are, and a
small machine follows those that files of arrays need. Each name in a file stands for a function of
ours that builds a plain value; any other name or opcode is refused. Long strings of bytes, which
arrays are made of, stay in the file until they are asked for: what is not needed takes no memory.
"""

import os
import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, NamedTuple

_SHORT = 4096  # bytes; what is longer stays in the file
_MOST_WORK = 1 << 24  # letters of names: a hundred thousand tensors
_LENGTH_BYTES = {"BINUNICODE": 4, "BINUNICODE8": 8, "BINBYTES": 4, "BINBYTES8": 8}


class UnsupportedPickle(ValueError):
    """The file is damaged, hostile, or does not hold what it is read for."""


class Block(NamedTuple):
    """Bytes that are still in the file.

    Attributes:
      path: of the file.
      offset: where they begin.
      length: how many there are in the file.
      is_text: they are text in UTF-8.
      is_encoded: they are such text, of which each character stands for a byte.
    """

    path: str
    offset: int
    length: int
    is_text: bool
    is_encoded: bool = False

    def read(self) -> bytes:
        """The bytes that it stands for."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.length)
        return data.decode("utf-8").encode("latin1") if self.is_encoded else data


class Budget:
    """Bounds what is made of a file by its size: what it shares, and shares again, is counted.

    Args:
      path: of the file.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._left = min(os.path.getsize(path), _MOST_WORK)

    def spend(self, amount: int) -> None:
        """Counts an entry of so many letters.

        Raises:
          UnsupportedPickle: there are more than any honest file of that size has.
        """
        self._left -= amount
        if self._left < 0:
            raise UnsupportedPickle("refuses to make more of it than it holds")


class Refusal(NamedTuple):
    """What a name stands for that is known, but refused for a reason."""

    reason: str


class Builder:
    """A value whose state the file sets later, by `build`."""

    def build(self, state: Any) -> None:
        """Takes the state."""
        raise NotImplementedError


class Maker:
    """A class of the file, of which `make` makes an instance."""

    def make(self, values: tuple) -> Any:
        """An instance, as a plain value."""
        raise NotImplementedError


def follow(
    file: IO[bytes],
    names: Mapping[str, Any],
    *,
    persistent: Callable[[Any], Any] | None = None,
    key_types: tuple[type, ...] = (str,),
) -> Any:
    """Follows the pickle that begins at the file's position; returns the value that it holds.

    Args:
      file: of bytes, with a name.
      names: what globals of the file stand for; those that are callable may be called.
      persistent: gives the value of an identifier that is kept outside of the pickle.
      key_types: of dictionaries.

    Raises:
      UnsupportedPickle: a name or an opcode that is refused.
      ValueError, TypeError, LookupError: a damaged file.
    """
    machine = _Machine(os.fstat(file.fileno()).st_size, names, persistent, key_types)
    return machine.run(file)


def explain(path: str | os.PathLike[str], error: Exception, what: str) -> UnsupportedPickle:
    """The error to raise for a file, whatever following it raised."""
    if isinstance(error, UnsupportedPickle):
        return UnsupportedPickle(f"{os.fspath(path)}: {error}")
    return UnsupportedPickle(f"{os.fspath(path)}: damaged, or not {what} ({error})")


DAMAGE = (ValueError, TypeError, LookupError, OverflowError, MemoryError)  # what damage leads to


def encode(text: Any, encoding: Any) -> Any:
    """Stands for ``_codecs.encode``, by which pickles of protocol 2 hold bytes."""
    if encoding != "latin1":
        raise UnsupportedPickle("refuses to encode bytes other than by latin1")
    if type(text) is Block and text.is_text:
        return text._replace(is_text=False, is_encoded=True)
    if type(text) is not str:
        raise UnsupportedPickle("refuses to encode what is not text")
    return text.encode("latin1")


def _opcodes(file: IO[bytes], size: int) -> Iterator[tuple[str, Any, int]]:
    while True:
        position = file.tell()
        opcode = pickletools.code2op.get(file.read(1).decode("latin1"))
        if opcode is None:
            raise ValueError(f"no opcode at byte {position}")
        if opcode.name in _LENGTH_BYTES:
            argument = _long_argument(file, opcode, size)
        else:
            argument = opcode.arg.reader(file) if opcode.arg else None
        yield opcode.name, argument, position
        if opcode.name == "STOP":
            return


def _long_argument(file: IO[bytes], opcode: Any, size: int) -> Any:
    start = file.tell()
    head = _LENGTH_BYTES[opcode.name]
    length = int.from_bytes(file.read(head), "little")
    if start + head + length > size:
        raise ValueError(f"{length} bytes are expected at byte {start}, the file ends before that")
    if length <= _SHORT:
        file.seek(start)
        return opcode.arg.reader(file)
    file.seek(length, os.SEEK_CUR)
    return Block(file.name, start + head, length, is_text="UNICODE" in opcode.name)


class _Machine:
    """The part of pickle's stack machine that files of arrays use."""

    def __init__(self, size: int, names: Mapping[str, Any], persistent: Any, key_types: tuple):
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.size, self.names, self.persistent, self.key_types = size, names, persistent, key_types
        self.functions = [value for value in names.values() if callable(value)]
        # A short string can be read once and encoded often: no more comes out than went in.
        self.budget = size

    def run(self, file: IO[bytes]) -> Any:
        for name, argument, position in _opcodes(file, self.size):
            step = _STEPS.get(name)
            if step is None:
                raise UnsupportedPickle(f"refuses {name} at byte {position}")
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
        if name not in self.names:
            raise UnsupportedPickle(f"refuses to load {name!r}, which no checkpoint needs")
        if isinstance(self.names[name], Refusal):
            raise UnsupportedPickle(f"refuses {name!r}: it {self.names[name].reason}")
        self.stack.append(self.names[name])

    def stack_global(self) -> None:
        names = self.pop(2)
        if any(type(name) is not str for name in names):
            raise UnsupportedPickle("refuses a global whose name is not text")
        self.look_up(".".join(names))

    def reduce(self) -> None:
        function, args = self.pop(2)
        if not any(function is known for known in self.functions) or type(args) is not tuple:
            raise UnsupportedPickle("refuses to call something that is not a function")
        result = function(*args)
        if type(result) is bytes:
            self.budget -= len(result)
            if self.budget < 0:
                raise UnsupportedPickle("refuses to make more bytes than the file has")
        self.stack.append(result)

    def new_object(self) -> None:
        cls, values = self.pop(2)
        if not isinstance(cls, Maker) or type(values) is not tuple:
            raise UnsupportedPickle("refuses an object that is not a named tuple")
        self.stack.append(cls.make(values))

    def build(self) -> None:
        target, state = self.pop(2)
        if not isinstance(target, Builder):
            raise UnsupportedPickle("refuses to set the state of a value that is not an array")
        target.build(state)
        self.stack.append(target)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or any(type(k) not in self.key_types for k in items[::2]):
            raise UnsupportedPickle("refuses a dictionary whose keys are not text")
        target.update(zip(items[::2], items[1::2], strict=True))

    def append_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise UnsupportedPickle("refuses to append to what is not a list")
        self.stack[-1].extend(items)

    def persistent_value(self) -> None:
        if self.persistent is None:
            raise UnsupportedPickle("refuses BINPERSID: nothing is kept outside of this pickle")
        self.stack.append(self.persistent(*self.pop(1)))


_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
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
    "EMPTY_LIST": lambda m, arg: m.stack.append([]),
    "APPEND": lambda m, arg: m.append_items(m.pop(1)),
    "APPENDS": lambda m, arg: m.append_items(m.pop_to_mark()),
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
    "BINPERSID": lambda m, arg: m.persistent_value(),
}
