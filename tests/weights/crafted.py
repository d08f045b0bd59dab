"""Files that nobody's trainer writes: pickles and archives put together by hand."""

import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

BACK = ((), None)


class Called:
    """Pickles as a call of a function by its name, as an attacker's object does."""

    def __init__(self, module: str, name: str, *arguments: object) -> None:
        self.head = b"c" + module.encode() + b"\n" + name.encode() + b"\n"
        self.arguments = arguments


def pickled(value: object) -> bytes:
    """A pickle of protocol 2 of containers, numbers, texts, and Called."""
    return b"\x80\x02" + _pickled(value) + b"."


def _pickled(value: object) -> bytes:
    if isinstance(value, Called):
        return value.head + _pickled(tuple(value.arguments)) + b"R"
    if isinstance(value, dict):
        return b"}(" + b"".join(_pickled(key) + _pickled(item) for key, item in value.items()) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_pickled, value)) + b"t"
    if isinstance(value, Persistent):
        return _pickled(value.facts) + b"Q"
    if isinstance(value, bytes):
        return value  # instructions as they are
    return pickle.dumps(value, 2)[2:-1]


class Persistent:
    """Pickles as a reference to something outside of the pickle."""

    def __init__(self, *facts: object) -> None:
        self.facts = facts


def storage(key: str = "0", count: int = 6, kind: bytes = b"ctorch\nFloatStorage\n") -> Persistent:
    return Persistent("storage", kind, key, "cpu", count)


def tensor(where: object, offset: object = 0, shape: object = (2, 3), strides: object = (3, 1)) -> Called:
    return Called("torch._utils", "_rebuild_tensor_v2", where, offset, shape, strides, False, {})


def archive(
    path: Path,
    content: object,
    values: bytes = bytes(24),
    compression: int = zipfile.ZIP_STORED,
    **more: bytes,
) -> Path:
    """A file like torch.save's with this content and one storage, "0". more: other members by name."""
    members = {
        "model/data.pkl": pickled(content),
        "model/byteorder": b"little",
        "model/data/0": values,
        "model/version": b"3\n",
        **more,
    }
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def good(path: Path) -> Path:
    return archive(path, {"x": tensor(storage())}, np.arange(6, dtype="<f4").tobytes())


def safetensors(path: Path, dtype: str, shape: list[int], data: bytes) -> Path:
    header = json.dumps({"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path
