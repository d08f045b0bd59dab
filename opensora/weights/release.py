"""Strict loading of a model: config.json, and weights that are checked by name and shape."""

import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from opensora.console import printable
from opensora.weights.checkpoints import check_weights
from opensora.weights.files import DTYPES, TensorFile, WeightsError, WeightsFile
from opensora.weights.mindspore_file import MindSporeFile
from opensora.weights.names import lies_beside, release_name
from opensora.weights.sources import open_file, read_object, require_folder, weight_files

log = logging.getLogger(__name__)

CONFIG = "config.json"
NAMES_SHOWN, LONGEST_NAME = 10, 200
FLOATING = ("F16", "BF16", "F32", "F64")
COUNTER = "num_batches_tracked"  # the only integers among PyTorch's weights
EMPTY: Mapping[str, str] = MappingProxyType({})


def load_config(folder: str | Path) -> dict[str, Any]:
    """The object in `folder`/config.json. Raises WeightsError if it is missing or not a JSON object."""
    folder = Path(folder)
    path = folder / CONFIG
    require_folder(folder)
    if not path.is_file():
        remedy = "check the path, or download the folder again"
        if inside := sorted(item.parent.name for item in folder.glob("*/config.json")):
            remedy = f"name one of the folders inside it: {', '.join(inside)}"
        raise WeightsError(f"{folder} has no config.json: {remedy}")
    return read_object(path)


def read_config(path: str | Path) -> dict[str, Any]:
    """The object in a .json file, or in the config.json of a folder. Raises WeightsError as `load_config`
    does.
    """
    return read_object(Path(path)) if Path(path).is_file() else load_config(path)


class TensorSource(Mapping[str, np.ndarray]):
    """The tensors of a model, checked by name and shape.

    Each is read on access; floating types become float32.
    """

    def __init__(self, where: Mapping[str, tuple[WeightsFile | None, str, tuple[int, ...]]]) -> None:
        """where: the file of every tensor (None for zeros), its name in that file, and its shape."""
        self._where = where
        self.dtypes = {
            name: "F32" if file is None else file.entries[stored].dtype
            for name, (file, stored, _) in where.items()
        }
        self.shapes = {name: tuple(shape) for name, (_, _, shape) in where.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        file, stored, shape = self._where[name]
        return np.zeros(shape, np.float32) if file is None else file.read(stored).reshape(shape)

    def shared(self) -> "SharedArrays":
        """All tensors, float32, in the memory of their files where these hold them so. Raises WeightsError as
        reading does.
        """
        arrays = SharedArrays()
        files = {id(file): file for file, _, _ in self._where.values() if file is not None}
        arrays.files = list(files.values())
        for name, (file, stored, shape) in self._where.items():
            arrays[name] = np.zeros(shape, np.float32) if file is None else file.share(stored).reshape(shape)
            arrays.drop_pages()  # which the check of the numbers has read
        return arrays

    def rows(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """The rows `numbers` (N,) of a table (R, ...): (N, ...). Other rows are not read."""
        file, stored, _ = self._where[name]
        return self[name][numbers] if file is None else file.read_rows(stored, numbers)

    def check_dtypes(self) -> None:
        """Raise WeightsError for a tensor whose storage type cannot be read."""
        for file, stored, _ in self._where.values():
            if file is not None:
                file.dtype(stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


class SharedArrays(dict[str, np.ndarray]):
    """Arrays by name that may lie in files."""

    files: list[WeightsFile]

    def drop_pages(self) -> None:
        """Drop what was read from memory; it is read again when it is used."""
        for file in self.files:
            file.drop_pages()


def open_weights(
    source: str | Path,
    stem: str = "diffusion_pytorch_model",
    *,
    expected: Mapping[str, tuple[int, ...]],
    ignore: Iterable[str] = (),
    aliases: Mapping[str, str] = EMPTY,
    unused: Iterable[str] = (),
    computed: Container[str] = (),
) -> TensorSource:
    """Open the tensors of a model, in the order of `expected`. Each is read on access.

    source: see `weight_files`. Names of other trainers and of the published version are mapped to the
    release's.
    expected: name and shape of every tensor of the model.
    ignore: prefixes of names that a file may contain and the model does not use.
    aliases: a second name for some tensors, which a file may have instead.
    unused: names that no computation reads. Files of other trainers may lack these tensors, which become
    zeros.

    Raises WeightsError, with all names in one message, for missing or unexpected tensors and for wrong
    shapes; also for damaged files, and for a checkpoint that differs from its manifest. Reading a tensor
    raises it for NaN.
    """
    files = [open_file(path) for path in weight_files(source, stem)]
    for file in files:
        check_weights(file.path)
    place = files[0].path if len(files) == 1 else Path(source)
    held = _by_release_name(files, place, set(expected) | set(aliases.values()))
    chosen = {
        name: aliases[name] if name not in held and aliases.get(name) in held else name for name in expected
    }
    found = {name: held[chosen[name]] for name in expected if chosen[name] in held}
    left = sorted(name for name in set(held) - set(chosen.values()) if name not in computed)
    ignored = [
        name
        for name in left
        if name.startswith(tuple(ignore)) or (not _is_release(held[name][0]) and lies_beside(name))
    ]
    unexpected = [name for name in left if name not in ignored]
    if ignored:
        log.info(
            "%s: ignored %d tensors that the model does not use (%s)", place, len(ignored), _some(ignored)
        )
    zeros = [] if all(map(_is_release, files)) else [name for name in unused if name not in found]
    missing = [name for name in expected if name not in found and name not in zeros]
    if faults := _faults(found, expected, missing, unexpected):
        remedy = "use the file that belongs to config.json"
        raise WeightsError(
            f"the tensors in {place} are not those of the model ({'; '.join(faults)}): {remedy}"
        )
    return TensorSource({name: (*found.get(name, (None, "")), shape) for name, shape in expected.items()})


def _is_release(file: WeightsFile) -> bool:
    return isinstance(file, TensorFile)


def _by_release_name(
    files: list[WeightsFile], place: Path, known: set[str]
) -> dict[str, tuple[WeightsFile, str]]:
    """The file of every tensor and its name there. A name that occurs twice is an error."""
    held: dict[str, tuple[WeightsFile, str]] = {}
    twice = []
    for file in files:
        for stored in file.entries:
            name = release_name(stored, known)
            if name in held:
                twice.append(name)
            held[name] = file, stored
    if twice:
        raise WeightsError(f"{place} holds {_some(sorted(twice))} more than once: download it again")
    return held


def _faults(
    found: Mapping[str, tuple[WeightsFile, str]],
    expected: Mapping[str, tuple[int, ...]],
    missing: list[str],
    unexpected: list[str],
) -> list[str]:
    misshapen, mistyped = [], []
    for name, (file, stored) in found.items():
        entry = file.entries[stored]
        if _plain(entry.shape, file) != _plain(expected[name], file):
            misshapen.append(f"{name} {list(entry.shape)} instead of {list(expected[name])}")
        if entry.dtype in DTYPES and entry.dtype not in FLOATING and not name.endswith(COUNTER):
            mistyped.append(f"{name} {entry.dtype} instead of F32, F16 or BF16")
    kinds = (
        (missing, "missing"),
        (unexpected, "unexpected"),
        (misshapen, "of another shape"),
        (mistyped, "of another type"),
    )
    return [f"{len(names)} {what}: {_some(names)}" for names, what in kinds if names]


def _plain(shape: tuple[int, ...], file: WeightsFile) -> list[int]:
    # One-dimensional convolutions of MindSpore have an axis of length 1 that the release does not have.
    return [size for size in shape if size != 1 or not isinstance(file, MindSporeFile)]


def _some(names: list[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    shown = [printable(name[:LONGEST_NAME]) for name in names[:NAMES_SHOWN]]
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
