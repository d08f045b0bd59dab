"""A safe reader for the pickles in PyTorch's files: it builds descriptions of tensors and plain containers
only.

A pickle is a program for a stack machine, and Python's reader lets that program call any function. This
reader knows the few instructions that a dict of tensors needs, calls the functions in CALLABLES only, and
rejects the rest.
"""

import struct
from collections.abc import Callable
from math import prod
from mmap import mmap
from typing import Any, NamedTuple

from opensora.weights.files import WeightsError

# Storage classes of PyTorch, and the types of their items in the words of safetensors.
STORAGES = {
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.DoubleStorage": "F64",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
}
LARGEST = 2**62
# Some thousand tensors take half a megabyte. Without a limit, a file of nothing but instructions could fill
# the memory.
LONGEST = 4 * 2**20


class Storage(NamedTuple):
    """A block of items of one type: its key in the file, and the number of items that are used."""

    dtype: str
    key: str
    items: int


class Described(NamedTuple):
    """A tensor as a view of a storage; offset and strides count items."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Refused(Exception):
    """The pickle contains something that a file of weights does not."""


class _Mark:
    pass


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(
        type(value) is int and 0 <= value < LARGEST for value in values
    ):
        raise _Refused("a tensor with a size that is not one")
    return values


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Described:
    """A view of a storage.

    It must lie inside the storage and have no more items, so that a small file cannot claim much memory.
    """
    if not isinstance(storage, Storage):
        raise _Refused("a tensor without a storage")
    (offset,), shape, strides = _whole_numbers((offset,)), _whole_numbers(shape), _whole_numbers(strides)
    if len(shape) != len(strides) or len(shape) > 16:
        raise _Refused("a tensor whose strides do not fit its shape")
    count = prod(shape)
    # The index after the last item; an empty view may begin at the end of its storage.
    end = offset
    if count:
        end += 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if end > storage.items or count > storage.items:
        raise _Refused(
            f"a tensor of shape {list(shape)} that reaches beyond its storage of {storage.items} items"
        )
    return Described(storage, offset, shape, strides)


def _parameter(data: Any, *_: Any) -> Described:
    if not isinstance(data, Described):
        raise _Refused("a parameter that is no tensor")
    return data


def _ordered_dict(*items: Any) -> dict[Any, Any]:
    if items:
        raise _Refused("an OrderedDict with arguments")
    return {}


def _size(values: Any) -> tuple[int, ...]:
    return _whole_numbers(tuple(values) if isinstance(values, list) else values)


def _device(*_: Any) -> None:
    return None


CALLABLES: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    "torch.device": _device,
}
CONSTANTS = {
    f"torch.{name}"
    for name in (
        "float32",
        "float16",
        "bfloat16",
        "float64",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
    )
}


class _Global(NamedTuple):
    name: str


def _describe(value: object) -> str:
    # Not its repr: nested lists that share items are small in a file but endless in print.
    return value.name if isinstance(value, _Global) else f"a {type(value).__name__}"


class Machine:
    """Runs the instructions of the pickle that starts at data[position].

    Afterwards `position` is the end of the pickle, and `storages` has its storages by their keys.
    """

    def __init__(self, data: bytes | mmap, position: int = 0) -> None:
        self.data = data
        self.position = position
        self.limit = min(position + LONGEST, len(data))
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, where: object) -> Any:
        """The object that the pickle describes.

        Raises WeightsError, which names the file `where`, for other content.
        """
        try:
            while (code := self._take(1)) != b".":
                if code not in _INSTRUCTIONS:
                    raise _Refused(f"the pickle instruction {code!r}")
                _INSTRUCTIONS[code](self)
            return self._pop()
        except _Refused as error:
            what = f"it holds {error}, which is not read because only tensors and plain containers are safe"
            raise WeightsError(
                f"{where} cannot be used: {what}; save the weights alone as .safetensors"
            ) from None
        except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
            raise WeightsError(
                f"{where} is truncated or damaged (its pickle cannot be followed): download it again"
            ) from error

    def _take(self, count: int) -> bytes:
        start, self.position = self.position, self.position + count
        if count < 0 or self.position > self.limit:
            raise IndexError
        return self.data[start : self.position]

    def _number(self, form: str) -> int:
        (value,) = struct.unpack("<" + form, self._take(struct.calcsize("<" + form)))
        return int(value)

    def _text(self, length: int) -> None:
        self._push(self._take(length).decode())

    def _line(self) -> str:
        end = self.data.find(b"\n", self.position, self.limit)
        return self._take(max(end, self.position) + 1 - self.position)[:-1].decode()

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _pop(self) -> Any:
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise IndexError
        return value

    def _pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while not isinstance(value := self.stack.pop(), _Mark):
            values.append(value)
        return values[::-1]

    def _tuple(self, count: int) -> None:
        values = [self._pop() for _ in range(count)][::-1]
        self._push(tuple(values))

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError
        return self.stack[-1]

    def _set_items(self, pairs: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int | float):
                raise _Refused(f"a dict with a {type(key).__name__} for a key")
            target[key] = value

    def _append(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError
        full = f"{module}.{name}"
        if full not in CALLABLES and full not in STORAGES and full not in CONSTANTS:
            raise _Refused(f"the global {full[:100]!r}")
        self._push(_Global(full))

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if (
            not isinstance(function, _Global)
            or function.name not in CALLABLES
            or not isinstance(arguments, tuple)
        ):
            raise _Refused(f"a call of {_describe(function)}")
        self._push(CALLABLES[function.name](*arguments))

    def _build(self) -> None:
        # Attributes of a dict, such as `_metadata` of a state_dict, are ignored.
        self._pop()
        self._top(dict)

    def _storage(self) -> None:
        # The fourth item is the device; in older files the last is a part of a storage.
        kind, dtype, key, _, count, *view = self._pop()
        if (
            kind != "storage"
            or not isinstance(dtype, _Global)
            or dtype.name not in STORAGES
            or any(part is not None for part in view)
        ):
            raise _Refused(f"a storage of {_describe(dtype)}")
        if not isinstance(key, str):
            raise TypeError
        (count,) = _whole_numbers((count,))
        self.storages[key] = Storage(STORAGES[dtype.name], key, count)
        self._push(self.storages[key])

    def _remember(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def _global_from_stack(self) -> None:
        name, module = self._pop(), self._pop()
        self._global(module, name)


_INSTRUCTIONS: dict[bytes, Callable[[Machine], object]] = {
    b"\x80": lambda m: m._number("B"),  # protocol
    b"\x95": lambda m: m._number("Q"),  # frame
    b"(": lambda m: m._push(_Mark()),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"J": lambda m: m._push(m._number("i")),
    b"K": lambda m: m._push(m._number("B")),
    b"M": lambda m: m._push(m._number("H")),
    b"\x8a": lambda m: m._push(int.from_bytes(m._take(m._number("B")), "little", signed=True)),
    b"G": lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    b"X": lambda m: m._text(m._number("I")),
    b"\x8c": lambda m: m._text(m._number("B")),
    b"U": lambda m: m._text(m._number("B")),  # text of Python 2
    b"T": lambda m: m._text(m._number("i")),
    b"}": lambda m: m._push({}),
    b"]": lambda m: m._push([]),
    b")": lambda m: m._push(()),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"t": lambda m: m._push(tuple(m._pop_to_mark())),
    b"a": lambda m: m._append([m._pop()]),
    b"e": lambda m: m._append(m._pop_to_mark()),
    b"s": lambda m: m._set_items([m._pop(), m._pop()][::-1]),
    b"u": lambda m: m._set_items(m._pop_to_mark()),
    b"q": lambda m: m._remember(m._number("B")),
    b"r": lambda m: m._remember(m._number("I")),
    b"\x94": lambda m: m._remember(len(m.memo)),
    b"h": lambda m: m._push(m.memo[m._number("B")]),
    b"j": lambda m: m._push(m.memo[m._number("I")]),
    b"c": lambda m: m._global(m._line(), m._line()),
    b"\x93": lambda m: m._global_from_stack(),
    b"R": lambda m: m._call(),
    b"b": lambda m: m._build(),
    b"Q": lambda m: m._storage(),
}
