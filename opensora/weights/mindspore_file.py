"""MindSpore's .ckpt files: protocol buffer messages, each with a name and a tensor or a part of one."""

import binascii
import mmap
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from opensora.files import naming
from opensora.weights.files import DTYPES, TensorEntry, WeightsError, WeightsFile

TYPES = {
    "Bool": "BOOL", "UInt8": "U8", "Int8": "I8", "Int16": "I16", "Int32": "I32", "Int64": "I64",
    "Float16": "F16", "BFloat16": "BF16", "Float32": "F32", "Float64": "F64",
}  # fmt: skip
VARINT, BYTES = 0, 2  # the wire types in these messages
CHECKSUM, CHECKSUM_LENGTH = b"crc_num", 17
PART = 512 * 2**20  # the framework's limit for messages, since some readers reject larger ones


class _Field(NamedTuple):
    """A field with a value, or with the bytes start to end and the value -1."""

    number: int
    value: int
    start: int
    end: int


class MindSporeFile(WeightsFile):
    """An unencrypted file of mindspore.save_checkpoint, MindSpore 2.3 or later.

    Raises WeightsError for a damaged file.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.entries = {}
        self._parts: dict[str, list[tuple[int, int]]] = {}
        try:
            with (
                naming(self.path),
                open(self.path, "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                end = self._end(data)
                for message in _fields(data, 0, end):
                    self._add(data, message)
        except (IndexError, ValueError) as error:
            if isinstance(error, WeightsError):
                raise
            raise self._damaged() from error
        for name, entry in self.entries.items():
            # A type that cannot be read is an error only when the tensor is read.
            if entry.dtype not in DTYPES:
                continue
            length = sum(length for _, length in self._parts[name])
            if length != prod(entry.shape) * np.dtype(DTYPES[entry.dtype]).itemsize:
                raise self._damaged()

    def read_rows(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """The rows (N,) of a table (R, ...): (N, ...)."""
        return super().read_rows(name, numbers) if len(self._parts[name]) == 1 else self.read(name)[numbers]

    def _stored(self, name: str, dtype: np.dtype[Any]) -> np.ndarray:
        values = np.empty(prod(self.entries[name].shape), dtype)
        done = 0
        with open(self.path, "rb") as file:
            for offset, length in self._parts[name]:
                file.seek(offset)
                file.readinto(values.view(np.uint8)[done : done + length].data)
                done += length
        return values.reshape(self.entries[name].shape)

    def _end(self, data: mmap.mmap) -> int:
        """The end of the messages. If a checksum follows, it must be right."""
        end = len(data) - CHECKSUM_LENGTH
        if end < 0 or data[end : end + len(CHECKSUM)] != CHECKSUM:
            return len(data)
        checksum = 0
        with open(self.path, "rb") as file:
            for start in range(0, end, 2**20):
                checksum = binascii.crc32(file.read(min(2**20, end - start)), checksum)
        if checksum != int.from_bytes(data[end + len(CHECKSUM) :], "big"):
            raise self._damaged()
        return end

    def _add(self, data: mmap.mmap, message: _Field) -> None:
        name, tensor = "", None
        for field in _fields(data, message.start, message.end):
            if field.number == 1:
                name = _text(data, field)
            elif field.number == 2:
                tensor = field
        if message.number != 1 or not name:
            raise IndexError
        if tensor is None:
            return  # a hash table of embeddings
        shape: list[int] = []
        kind, content = "", None
        for field in _fields(data, tensor.start, tensor.end):
            if field.number == 1:
                shape += [field.value] if field.value >= 0 else _varints(data, field)
            elif field.number == 2:
                kind = _text(data, field)
            elif field.number == 3:
                content = field
        if len(shape) > 16 or content is None:
            raise IndexError
        length = content.end - content.start
        if shape == [0] and length:
            shape = []  # the framework writes a scalar like this
        entry = TensorEntry(TYPES.get(kind, kind or "an unknown type"), tuple(shape), content.start)
        known = self.entries.setdefault(name, entry)
        if known.shape != entry.shape or known.dtype != entry.dtype:
            raise IndexError
        self._parts.setdefault(name, []).append((content.start, length))

    def _damaged(self) -> WeightsError:
        return WeightsError(
            f"{self.path} is truncated, damaged, encrypted, or not a checkpoint of MindSpore or PyTorch: "
            "download it again"
        )


def write_checkpoint(
    file: BinaryIO, weights: Mapping[str, np.ndarray], rename: Callable[[str], str] = str
) -> None:
    """Write a .ckpt file for MindSpore's load_checkpoint, with names from `rename`.

    Floating weights are stored as float32, integers as int64. Each weight is read once.
    """
    for name in weights:
        value = weights[name]
        kind, dtype = (b"Float32", "<f4") if value.dtype.kind == "f" else (b"Int64", "<i8")
        value = value.astype(dtype, copy=False)
        content, label = value.reshape(-1).view(np.uint8), rename(name).encode()
        dims = b"".join(_varint_field(1, size) for size in value.shape or (0,))
        for start in range(0, max(len(content), 1), PART):
            part = content[start : start + PART]
            tensor = dims + _bytes_head(2, len(kind)) + kind + _bytes_head(3, len(part))
            head = _bytes_head(1, len(label)) + label + _bytes_head(2, len(tensor) + len(part)) + tensor
            file.write(_bytes_head(1, len(head) + len(part)) + head)
            file.write(part.data)


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[_Field]:
    """The fields of a message. Raises IndexError for other content."""
    while position < end:
        tag, position = _varint(data, position, end)
        value, position = _varint(data, position, end)
        if tag & 7 == VARINT:
            yield _Field(tag >> 3, value, position, position)
        elif tag & 7 == BYTES and position + value <= end:
            yield _Field(tag >> 3, -1, position, position + value)
            position += value
        else:
            raise IndexError


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= end or shift > 63:
            raise IndexError
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _varints(data: mmap.mmap, field: _Field) -> list[int]:
    values, position = [], field.start
    while position < field.end:
        value, position = _varint(data, position, field.end)
        values.append(value)
    return values


def _text(data: mmap.mmap, field: _Field) -> str:
    if field.end - field.start > 4096:
        raise IndexError
    return data[field.start : field.end].decode()


def _varint_field(number: int, value: int) -> bytes:
    return _encoded(number << 3 | VARINT) + _encoded(value)


def _bytes_head(number: int, length: int) -> bytes:
    return _encoded(number << 3 | BYTES) + _encoded(length)


def _encoded(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
