"""Files of PyTorch (.pt, .pth, .bin, some .ckpt): a zip of a pickle and raw storages, or the older format."""

import logging
import mmap
import struct
import zipfile
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from opensora.weights.files import DTYPES, TensorEntry, WeightsError, WeightsFile
from opensora.weights.pickled import LONGEST, Described, Machine, Storage

log = logging.getLogger(__name__)

ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
"""A pickled number with which files of the older format begin."""
LOCAL_HEADER = struct.Struct("<4s22xHH")
# Keys under which trainers nest the weights. The moving average comes first: it is for sampling.
WRAPPERS = ("ema", "params_ema", "params", "state_dict", "model", "model_state_dict", "module")
Extents = dict[str, tuple[int, int]]
"""Offset and length in bytes of every storage, by its key."""


class TorchFile(WeightsFile):
    """A file of torch.save with a dict of tensors, which may be nested under WRAPPERS. No code in it is run.

    Raises WeightsError for a file that is damaged, has a zip that PyTorch does not write, or contains more
    than tensors and plain containers.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        with open(self.path, "rb") as file:
            start = file.read(len(LEGACY))
        if start.startswith(ZIP):
            content, stored = self._open_zip()
        elif start == LEGACY:
            content, stored = self._open_legacy()
        else:
            raise WeightsError(
                f"{self.path} is not a file of PyTorch that can be read: "
                "save the weights again as .safetensors"
            )
        self.entries = {}
        self._views: dict[str, Described] = {}
        for name, tensor in self._state_dict(content).items():
            item_size = np.dtype(DTYPES[tensor.storage.dtype]).itemsize
            offset, length = stored.get(tensor.storage.key, (0, -1))
            if tensor.storage.items * item_size > length:
                raise self._damaged(f"the values of {name} are missing")
            self.entries[name] = TensorEntry(
                tensor.storage.dtype, tensor.shape, offset + tensor.offset * item_size
            )
            self._views[name] = tensor

    def read_rows(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """The rows (N,) of a table (R, ...): (N, ...)."""
        return super().read_rows(name, numbers) if self._is_contiguous(name) else self.read(name)[numbers]

    def _stored(self, name: str, dtype: np.dtype[Any]) -> np.ndarray:
        if self._is_contiguous(name):
            return super()._stored(name, dtype)
        view = self._views[name]
        span = 1 + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))
        values = np.fromfile(self.path, dtype, span, offset=self.entries[name].offset)
        strides = [stride * dtype.itemsize for stride in view.strides]
        return np.ascontiguousarray(
            np.lib.stride_tricks.as_strided(values, view.shape, strides, writeable=False)
        )

    def _is_contiguous(self, name: str) -> bool:
        shape, strides = self._views[name].shape, self._views[name].strides
        plain = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
        return not prod(shape) or all(
            size == 1 or stride == step for size, stride, step in zip(shape, strides, plain, strict=True)
        )

    def _open_zip(self) -> tuple[Any, Extents]:
        try:
            members = self._members()
        except (
            zipfile.BadZipFile,
            struct.error,
            NotImplementedError,
            ValueError,
            OSError,
            EOFError,
            OverflowError,
        ) as error:
            if isinstance(error, WeightsError):
                raise
            raise self._damaged(str(error)) from error
        root = next(iter(members), "").partition("/")[0]
        if f"{root}/data.pkl" not in members:
            raise WeightsError(
                f"{self.path} has no data.pkl and is not a file of PyTorch: "
                "save the weights again as .safetensors"
            )
        pickled = self._bytes(*members[f"{root}/data.pkl"])
        if self._bytes(*members.get(f"{root}/byteorder", (0, 0))) not in (b"", b"little"):
            raise WeightsError(
                f"{self.path} was saved on a big-endian machine: save the weights again as .safetensors"
            )
        prefix = f"{root}/data/"
        stored = {
            name.removeprefix(prefix): where for name, where in members.items() if name.startswith(prefix)
        }
        return Machine(pickled).run(self.path), stored

    def _members(self) -> Extents:
        """Offset and length of the content of every member.

        Rejects zip features that PyTorch does not use.
        """
        members: Extents = {}
        with zipfile.ZipFile(self.path) as archive, open(self.path, "rb") as file:
            end = 0
            for info in sorted(archive.infolist(), key=lambda item: item.header_offset):
                if (
                    info.filename.startswith("/")
                    or ".." in info.filename.split("/")
                    or "\\" in info.filename
                    or "\0" in info.orig_filename
                ):
                    raise WeightsError(
                        f"{self.path} names {info.orig_filename[:80]!r}, a path outside of it: "
                        "do not use this file"
                    )
                if (
                    info.compress_type != zipfile.ZIP_STORED
                    or info.file_size != info.compress_size
                    or info.flag_bits & 1
                ):
                    raise WeightsError(
                        f"{self.path} is compressed or encrypted, which PyTorch's files never are: "
                        "do not use this file"
                    )
                file.seek(info.header_offset)
                magic, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
                start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
                if magic != ZIP or info.header_offset < end or info.filename in members:
                    raise self._damaged("its parts overlap")
                end = start + info.file_size
                members[info.filename] = start, info.file_size
            if end > self.path.stat().st_size:
                raise self._damaged("its parts reach beyond its end")
        return members

    def _open_legacy(self) -> tuple[Any, Extents]:
        """Five pickles (magic number, protocol, machine, content, storage keys), then the storages."""
        stored: Extents = {}
        with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            position, results = 0, []
            storages: dict[str, Storage] = {}
            for _ in range(5):
                machine = Machine(data, position)
                results.append(machine.run(self.path))
                position = machine.position
                storages |= machine.storages
            machine_facts, content, keys = results[2:]
            if (
                not isinstance(machine_facts, dict)
                or machine_facts.get("little_endian") is not True
                or not isinstance(keys, list)
            ):
                raise self._damaged("it does not say how it was written")
            for key in keys:
                if key not in storages or key in stored or position + 8 > len(data):
                    raise self._damaged("its list of storages is wrong")
                length = (
                    int.from_bytes(data[position : position + 8], "little")
                    * np.dtype(DTYPES[storages[key].dtype]).itemsize
                )
                stored[key] = position + 8, length
                position += 8 + length
            if position > len(data):
                raise self._damaged("it ends too early")
        return content, stored

    def _state_dict(self, content: Any) -> dict[str, Described]:
        taken: list[str] = []
        while isinstance(content, dict) and not any(
            isinstance(value, Described) for value in content.values()
        ):
            inner = next((name for name in WRAPPERS if isinstance(content.get(name), dict)), None)
            if inner is None or len(taken) == len(WRAPPERS):
                break
            taken.append(inner)
            content = content[inner]
        items = content.items() if isinstance(content, dict) else ()
        found = {name: value for name, value in items if isinstance(value, Described)}
        if not found or not all(isinstance(name, str) for name in found):
            raise WeightsError(
                f"{self.path} holds no tensors under names: save the model's state_dict, or use another file"
            )
        if taken:
            log.info("%s: using the weights under %s", self.path, "/".join(taken))
        return found

    def _bytes(self, offset: int, length: int) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(min(length, LONGEST))

    def _damaged(self, what: str) -> WeightsError:
        return WeightsError(f"{self.path} is truncated or damaged ({what}): download or save it again")
