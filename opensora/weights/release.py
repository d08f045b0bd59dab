"""Strict loading of a model folder in the release's layout: config.json beside one weights file or its shards."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from opensora.weights.files import TensorFile, WeightsError

log = logging.getLogger(__name__)

NAMES_SHOWN = 10
EMPTY: Mapping[str, str] = MappingProxyType({})


def load_config(folder: str | Path) -> dict[str, Any]:
    """The object in `folder`/config.json. Raises WeightsError where folder or file is missing or is not such an object."""
    folder = Path(folder)
    path = folder / "config.json"
    _require_folder(folder)
    if not path.is_file():
        inside = sorted(item.parent.name for item in folder.glob("*/config.json"))
        remedy = f"name one of the folders inside it: {', '.join(inside)}" if inside else "check the path, or download the folder again"
        raise WeightsError(f"{folder} has no config.json: {remedy}")
    return _read_object(path)


class TensorSource(Mapping[str, np.ndarray]):
    """The tensors of a release, already checked by name and shape, each read when it is asked for: floating ones become float32."""

    def __init__(self, where: Mapping[str, tuple[TensorFile, str]]) -> None:
        """where: for every tensor its file, and its name there."""
        self._where = where

    def __getitem__(self, name: str) -> np.ndarray:
        file, stored = self._where[name]
        return file.read(stored)

    def rows(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """These rows (N,) of a table (R, ...), the others unread: (N, ...)."""
        file, stored = self._where[name]
        return file.read_rows(stored, numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def load_weights(
    source: str | Path,
    stem: str = "diffusion_pytorch_model",
    *,
    expected: Mapping[str, tuple[int, ...]],
    ignore: Iterable[str] = (),
    aliases: Mapping[str, str] = EMPTY,
) -> dict[str, np.ndarray]:
    """The tensors that `open_weights` finds, all read."""
    return dict(open_weights(source, stem, expected=expected, ignore=ignore, aliases=aliases))


def open_weights(
    source: str | Path,
    stem: str = "diffusion_pytorch_model",
    *,
    expected: Mapping[str, tuple[int, ...]],
    ignore: Iterable[str] = (),
    aliases: Mapping[str, str] = EMPTY,
) -> TensorSource:
    """The tensors of a release, in the order of `expected`, floating ones as float32, none of them read yet.

    source: a folder with `<stem>.safetensors` or its shards and `<stem>.safetensors.index.json`, or one .safetensors file.
    expected: name and shape of every tensor that the model has. ignore: prefixes of names that may lie in the file unused.
    aliases: for some names, another under which a file may hold the same tensor.
    Raises WeightsError for missing, unexpected or wrongly shaped tensors (all of them in one message) and for damaged files; reading
    a tensor raises it for NaN.
    """
    source, prefixes = Path(source), tuple(ignore)
    files = _open_all(source, stem)
    held = {name: file for file in files for name in file.entries}
    stored = {name: aliases[name] if name not in held and aliases.get(name) in held else name for name in expected}
    ignored = sorted(name for name in set(held) - set(stored.values()) if name.startswith(prefixes))
    if ignored:
        log.info("%s: %d tensors that this model does not use were left out (%s)", source, len(ignored), _some(ignored))

    missing = [name for name in expected if stored[name] not in held]
    unexpected = sorted(set(held) - set(stored.values()) - set(ignored))
    misshapen = [
        f"{name} {list(held[stored[name]].entries[stored[name]].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name not in missing and held[stored[name]].entries[stored[name]].shape != tuple(shape)
    ]
    faults = [f"{len(found)} {what}: {_some(found)}" for found, what in ((missing, "missing"), (unexpected, "unexpected")) if found]
    if misshapen:
        faults.append(f"{len(misshapen)} of another shape: {_some(misshapen)}")
    if faults:
        place = files[0].path if len(files) == 1 else source
        remedy = "use the file that belongs to config.json"
        raise WeightsError(f"the tensors in {place} are not those of the model ({'; '.join(faults)}): {remedy}")
    return TensorSource({name: (held[stored[name]], stored[name]) for name in expected})


def _open_all(source: Path, stem: str) -> list[TensorFile]:
    """The files that hold the weights. A name that occurs in two of them would make the result depend on their order."""
    if source.suffix == ".safetensors":
        return [TensorFile(source)]
    _require_folder(source)
    single, index = source / f"{stem}.safetensors", source / f"{stem}.safetensors.index.json"
    if single.is_file() or not index.is_file():
        return [TensorFile(single)]
    shards = _read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise WeightsError(f"{index} has no weight_map: download it again")
    outside = [name for name in shards.values() if not _is_plain_name(name)]
    if outside:
        raise WeightsError(f"{index} names {outside[0]!r}, which is not a file of its own folder: download it again from a place you trust")
    files = [TensorFile(source / name) for name in sorted(set(shards.values()))]
    counts = Counter(name for file in files for name in file.entries)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise WeightsError(f"{index}: more than one file holds {_some(twice)}: download the folder again")
    return files


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not valid JSON ({error}): download or save it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__} instead of an object: download or save it again")
    return content


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise WeightsError(f"model folder {folder} does not exist: check the path, or download the model first")


def _some(names: list[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
