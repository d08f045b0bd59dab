"""The format of caches: a folder of blocks that several processes write and every run reads.

`block-00000003.safetensors` holds the arrays of block_size items of a fixed order. `block-00000003.json`
describes them and is written after it, so a block with a .json is complete: a stopped writer continues with
the missing blocks, and several writers share them. `fingerprint.json` records what the cache was made of:
encoder, settings and captions.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from safetensors.numpy import save

from opensora.config_files import Range, checked, read_json, read_settings, shown, typed
from opensora.files import hash_file, write_atomic
from opensora.weights import TensorFile, WeightsError

FORMAT = 1
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".ckpt")
BLOCK = re.compile(r"block-(\d{8,})\.json")
REMEDY = "make a new cache in another folder"


@dataclass(frozen=True)
class Fingerprint:
    """The identity of a cache: its encoder, settings and captions.

    kind: "text" or "latents". encoder: digest of the weights. captions: digest of the texts of a text cache;
    latents do not depend on them. The cache has `count` items in blocks of `block_size`.
    """

    kind: str
    encoder: str
    settings: Mapping[str, Any]
    captions: str
    count: Annotated[int, Range(0, 2**40)]
    block_size: Annotated[int, Range(1, 2**20)]
    format: int = FORMAT

    @property
    def blocks(self) -> int:
        return -(-self.count // self.block_size)

    def require(
        self,
        folder: Path,
        encoder: str | None = None,
        settings: Mapping[str, Any] | None = None,
        captions: str | None = None,
    ) -> None:
        """Raise ValueError that names the differences. Parts and settings not given are not compared."""
        reasons = []
        if encoder is not None and encoder != self.encoder:
            reasons.append("other encoder weights")
        mine, theirs = dict(_flat(self.settings)), dict(_flat(settings or {}))
        changed = [
            f"{name} {shown(mine.get(name))}, not {shown(value)}"
            for name, value in theirs.items()
            if mine.get(name) != value
        ]
        if changed:
            reasons.append(f"other settings ({', '.join(changed)})")
        if captions is not None and captions != self.captions:
            reasons.append("other captions")
        if reasons:
            raise ValueError(f"the cache {folder} was made with {' and '.join(reasons)}: {REMEDY}")


@dataclass(frozen=True)
class Item:
    """An item of a cache as the .json of its block describes it.

    crc32: checksum of its array, None for an item without one, which was `rejected`. The others are for
    latents: path, size in bytes and time of change (ns) of the clip's file, its captions, and the number of
    its data set in the list.
    """

    key: str
    crc32: Annotated[int | None, Range(0, 2**32)] = None
    path: str = ""
    size: int | None = None
    time: int | None = None
    captions: tuple[str, ...] = ()
    source: Annotated[int, Range(0, 2**16)] = 0
    rejected: str = ""


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        yield from _flat(value) if isinstance(value, Mapping) else [(name, value)]


def encoder_digest(folder: str | Path) -> str:
    """sha256 over an encoder's configuration, tokenizer and weight files and their names."""
    folder = Path(folder)
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix in WEIGHT_SUFFIXES or path.name in ("config.json", "spiece.model")
    )
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + bytes.fromhex(hash_file(folder / name)))
    return digest.hexdigest()


class CacheWriter:
    """Writes the missing blocks of this process. Raises ValueError for a folder that holds something else."""

    def __init__(
        self, folder: str | Path, fingerprint: Fingerprint, dtype: str, rank: int = 0, world_size: int = 1
    ) -> None:
        self.folder, self.fingerprint, self._dtype = Path(folder), fingerprint, dtype
        self._rank, self._world_size = rank, world_size
        self.folder.mkdir(parents=True, exist_ok=True)
        # List the folder before looking for the fingerprint: another process may write it in between.
        foreign = any(path.name[0] != "." for path in self.folder.iterdir())
        place = self.folder / "fingerprint.json"
        if place.is_file():
            present = _read_fingerprint(self.folder)
            captions = fingerprint.captions if fingerprint.kind == "text" else None
            present.require(self.folder, fingerprint.encoder, fingerprint.settings, captions)
            if replace(present, captions=fingerprint.captions) != fingerprint:
                raise ValueError(
                    f"the cache {self.folder} was begun with another block_size or number of items "
                    f"({present.count}): {REMEDY}"
                )
        elif foreign:
            raise ValueError(f"{self.folder} holds files that are not a cache: choose another folder")
        else:
            write_atomic(place, lambda file: file.write(json.dumps(asdict(fingerprint), indent=1).encode()))

    def owns(self, block: int) -> bool:
        """True if a block is this process's."""
        return block % self._world_size == self._rank

    def wants(self, block: int) -> bool:
        """True if this process has to write a block."""
        return self.owns(block) and not (self.folder / f"{_name(block)}.json").is_file()

    def write(self, block: int, items: Sequence[Mapping[str, Any]], arrays: Mapping[str, np.ndarray]) -> None:
        """Write a block: items with a "key" each, and arrays by key.

        An item without an array is a rejected one. Raises WeightsError for values that the number format
        cannot hold.
        """
        with np.errstate(over="ignore"):  # reported below, with the name
            stored = {key: np.ascontiguousarray(value, self._dtype) for key, value in arrays.items()}
        for key, value in stored.items():
            if not np.isfinite(value).all():
                raise WeightsError(
                    f"the encoder gave values for {key} that {self._dtype} cannot hold: "
                    "check its weights, or use --dtype float32"
                )
        described = [
            {**item, "crc32": _crc32(stored[item["key"]])} if item["key"] in stored else dict(item)
            for item in items
        ]
        # An earlier block in this place is incomplete from here on.
        (self.folder / f"{_name(block)}.json").unlink(missing_ok=True)
        write_atomic(self.folder / f"{_name(block)}.safetensors", lambda file: file.write(save(stored)))
        self.describe(block, described)

    def describe(self, block: int, items: Sequence[Mapping[str, Any]]) -> None:
        """Write or replace the description of a block whose arrays are written."""
        content = json.dumps(items).encode()
        write_atomic(self.folder / f"{_name(block)}.json", lambda file: file.write(content))


class Cache:
    """A complete cache: `items` with an array, `rejected` ones without, both in order, and `read(key)`."""

    def __init__(self, folder: str | Path, kind: str) -> None:
        """Raises ValueError for a folder without a complete cache of this kind."""
        self.folder = Path(folder)
        self.fingerprint = _read_fingerprint(self.folder)
        if self.fingerprint.kind != kind:
            raise ValueError(
                f"{self.folder} is a cache of {self.fingerprint.kind}, not of {kind}: check the path"
            )
        count = self.fingerprint.blocks
        # The files that exist are counted, not those that the fingerprint promises.
        written = sorted(block for block in _written_blocks(self.folder) if block < count)
        if len(written) < count:
            raise ValueError(
                f"the cache {self.folder} is incomplete, {count - len(written)} of {count} blocks are "
                "missing: run its command again"
            )
        self.items: list[Item] = []
        self.rejected: list[Item] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._open = lru_cache(maxsize=64)(TensorFile)
        for block in written:
            for item in read_items(self.folder, block):
                if item.crc32 is None:
                    self.rejected.append(item)
                else:
                    self._places[item.key] = (block, item.crc32)
                    self.items.append(item)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def read(self, key: str) -> np.ndarray:
        """The array of an item as float32. Raises ValueError for a damaged file."""
        if key not in self._places:
            raise ValueError(f"the cache {self.folder} has no item {key}: {REMEDY}")
        block, checksum = self._places[key]
        path = self.folder / f"{_name(block)}.safetensors"
        file = self._open(path)
        value = file.read(key) if key in file.entries else None
        if value is None or _crc32(value) != checksum:
            raise ValueError(
                f"{path} is damaged at {key}: remove it and its .json, and run the cache's command again"
            )
        return value


def _read_fingerprint(folder: Path) -> Fingerprint:
    path = folder / "fingerprint.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no cache: make one with `opensora encode-latents` or `opensora embed-text`"
        )
    try:
        fingerprint = typed(Fingerprint, read_settings(path), path)
    except ValueError as error:
        raise ValueError(f"{error}; or {REMEDY}") from error
    if fingerprint.format != FORMAT:
        raise ValueError(
            f"{folder} has cache format {fingerprint.format}, this version reads {FORMAT}: {REMEDY}"
        )
    return fingerprint


def read_items(folder: Path, block: int) -> list[Item]:
    """The items of a complete block. Raises ValueError for a damaged file."""
    path = folder / f"{_name(block)}.json"
    items: list[Item] = checked(list[Item], read_json(path), path, "its content")
    return items


def _written_blocks(folder: Path) -> set[int]:
    return {int(found[1]) for path in folder.iterdir() if (found := BLOCK.fullmatch(path.name))}


def _name(block: int) -> str:
    return f"block-{block:08d}"


def _crc32(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values, np.float32).data)
