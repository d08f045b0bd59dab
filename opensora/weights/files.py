"""Files of weights, read one tensor at a time.

This module has the interface and the reader of safetensors.
"""

import json
import mmap
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "F16": "<f2",
    "BF16": "<u2",  # bits of a bfloat16, which numpy does not have
    "F32": "<f4",
    "F64": "<f8",
}
Arrays = Mapping[str, np.ndarray]
"""Arrays by the names of the weights."""
Shapes = dict[str, tuple[int, ...]]
"""Shapes by the names of the weights."""


class WeightsError(ValueError):
    """A model folder or a weights file cannot be used. The message names the file and the remedy."""


class TensorEntry(NamedTuple):
    """Type (as safetensors names it) and shape of a tensor, and the offset of its first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


class WeightsFile:
    """A file of named tensors; `entries` maps each name to its TensorEntry.

    Raises WeightsError for a missing file.
    """

    entries: dict[str, TensorEntry]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise WeightsError(f"{self.path} does not exist: check the path, or download the file again")

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`; floating types become float32.

        Raises WeightsError for a type that numpy does not have, and for NaN or infinite values.
        """
        return self._converted(name, self._stored(name, self.dtype(name)))

    def share(self, name: str) -> np.ndarray:
        """The array of `read`, mapped from the file if it is stored so; writing to it changes no file."""
        return self.read(name)

    def drop_pages(self) -> None:
        """Drop what `share` read from memory; it is read again when it is used."""

    def read_rows(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """The rows `numbers` (N,) of a table (R, ...), as from `read`: (N, ...). Other rows are not read."""
        entry = self.entries[name]
        rows = np.empty((len(numbers), *entry.shape[1:]), self.dtype(name))
        with open(self.path, "rb") as file:
            for i, number in enumerate(numbers):
                file.seek(entry.offset + int(number) * rows[i].nbytes)
                rows[i] = np.fromfile(file, rows.dtype, rows[i].size).reshape(rows.shape[1:])
        return self._converted(name, rows)

    def read_range(self, name: str, start: int, stop: int) -> np.ndarray:
        """The items start to stop of a vector, as from `read`: (stop - start,)."""
        dtype = self.dtype(name)
        offset = self.entries[name].offset + start * dtype.itemsize
        return self._converted(name, np.fromfile(self.path, dtype, stop - start, offset=offset))

    def _stored(self, name: str, dtype: np.dtype[Any]) -> np.ndarray:
        entry = self.entries[name]
        return np.fromfile(self.path, dtype, prod(entry.shape), offset=entry.offset).reshape(entry.shape)

    def dtype(self, name: str) -> np.dtype[Any]:
        """The dtype by which numpy reads the tensor. Raises WeightsError for a storage type that it lacks."""
        stored = self.entries[name].dtype
        if stored not in DTYPES:
            raise WeightsError(
                f"{self.path}: {name} is stored as {stored}, which cannot be read: "
                "save it as F32, F16 or BF16"
            )
        return np.dtype(DTYPES[stored])

    def _converted(self, name: str, values: np.ndarray) -> np.ndarray:
        if self.entries[name].dtype == "BF16":
            values = from_bfloat16(values)
        if values.dtype.kind == "f":
            with np.errstate(over="ignore", invalid="ignore"):
                values = values.astype(np.float32, copy=False)
            if not is_finite(values):
                raise WeightsError(
                    f"{self.path}: {name} holds NaN or infinite values: "
                    "use an earlier checkpoint, or download it again"
                )
        return values


class TensorFile(WeightsFile):
    """A safetensors file. Raises WeightsError for one that is missing, truncated or damaged."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        try:
            # Checks header, offsets and length. The library cannot read bfloat16 into numpy, so this class
            # does.
            with safe_open(self.path, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{self.path} is truncated or damaged ({error}): download or save it again"
            ) from error
        with open(self.path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        start = 8 + size
        self.entries = {
            name: TensorEntry(item["dtype"], tuple(item["shape"]), start + item["data_offsets"][0])
            for name, item in header.items()
        }
        self._memory: mmap.mmap | None = None

    def share(self, name: str) -> np.ndarray:
        dtype, (_, shape, offset) = self.dtype(name), self.entries[name]
        if dtype != np.float32 or offset % dtype.itemsize or not prod(shape):
            return self.read(name)
        if self._memory is None:
            with open(self.path, "rb") as file:
                self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return self._converted(name, np.frombuffer(self._memory, dtype, prod(shape), offset).reshape(shape))

    def drop_pages(self) -> None:
        if self._memory is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._memory.madvise(mmap.MADV_DONTNEED)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The float32 values of bfloat16 `bits` (uint16)."""
    return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bfloat16 bits (uint16) of finite float32 `values`, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def is_finite(values: np.ndarray) -> bool:
    """True if no value is NaN or infinite. Allocates no temporary array."""
    return not values.size or bool(np.isfinite(values.min()) and np.isfinite(values.max()))
