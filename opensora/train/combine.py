"""`opensora combine`: one checkpoint from the shards that a parallel run wrote."""

import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from opensora.files import scratch_folder, sync_folder, write_atomic
from opensora.models.formats import FORMATS, find_format
from opensora.train.checkpoint import write_manifest
from opensora.weights import WeightsError, latest_checkpoint, load_config, save_tensors
from opensora.weights.checkpoints import MANIFEST, check_files
from opensora.weights.files import WeightsFile
from opensora.weights.mindspore_file import write_checkpoint
from opensora.weights.names import release_name
from opensora.weights.release import FLOATING
from opensora.weights.shards import ShardedState, sharded_states
from opensora.weights.sources import open_file

log = logging.getLogger(__name__)

RANK = re.compile(r"rank_(\d{1,9})")
FULL = "full_0.ckpt"
WHOLE = "optimizer-0-of-1.safetensors"


def combine(source: Path, target: Path, model_config: str | None = None) -> Path:
    """Combine the shards in `source`.

    source: a checkpoint or run folder, or the published version's folder with rank_0, rank_1, ... of .ckpt
    files.

    model_config: folder of the config.json for .ckpt files, by default the published model's. Returns the
    path written: the folder `target`, or `target`/rank_0/full_0.ckpt. Raises WeightsError for shards that are
    missing or do not fit, and if the target exists.
    """
    if source.name == "ckpt" and not source.is_dir() and (source.parent / "checkpoints").is_dir():
        raise WeightsError(
            f"{source.parent} is a run, and its checkpoints hold the whole model: use the run folder as it is"
        )
    if not source.is_dir():
        raise WeightsError(f"folder {source} does not exist: check the path after --src")
    if any(RANK.fullmatch(path.name) for path in source.iterdir()):
        return _combine_ranks(source, target, model_config)
    checkpoint = latest_checkpoint(source) if (source / "checkpoints").is_dir() else source
    if checkpoint is None or not (checkpoint / MANIFEST).is_file():
        raise WeightsError(
            f"{source} holds neither a complete checkpoint nor folders rank_0, rank_1, ...: "
            "check the path after --src"
        )
    return _combine_checkpoint(checkpoint, target)


def _combine_checkpoint(checkpoint: Path, target: Path) -> Path:
    """Copy the checkpoint, with the optimizer's state in one file. The target is complete or absent."""
    if target.exists():
        raise WeightsError(f"{target} exists: choose another --dest, or remove it first")
    if (checkpoint / WHOLE).is_file():
        raise WeightsError(f"{checkpoint} is not sharded: use it as it is")
    prefixes = sharded_states(path.name for path in checkpoint.iterdir()) or {""}
    states = {prefix: ShardedState(checkpoint, prefix) for prefix in prefixes}
    check_files(checkpoint)
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(target.parent) as building:
        for prefix, state in states.items():
            save_tensors(building / f"{prefix}{WHOLE}", state)
        for path in checkpoint.iterdir():
            if path.is_file() and path.name != MANIFEST and not sharded_states([path.name]):
                shutil.copyfile(path, building / path.name)
        write_manifest(building)
        os.rename(building, target)
    sync_folder(target.parent)
    log.info("%s: a checkpoint for one device, from %s", target, checkpoint)
    return target


def _combine_ranks(source: Path, target: Path, model_config: str | None) -> Path:
    """Join parameters that are split along their first axis.

    The full shape of a parameter gives its number of parts.
    """
    files = [open_file(path) for path in _rank_files(source)]
    kind = FORMATS[find_format(files[0].path)]
    config = load_config(model_config) if model_config is not None else kind.release_config(files[0].path)
    whole = kind.shapes(config)
    path = target / "rank_0" / FULL
    if path.exists():
        raise WeightsError(f"{path} exists: choose another --dest, or remove it first")
    weights = _JoinedRanks(files, whole)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: write_checkpoint(file, weights))
    log.info("%s: %d parameters from %d ranks", path, len(weights), len(files))
    return path


def _rank_files(source: Path) -> list[Path]:
    """The newest checkpoint (by name) that all ranks have, for each rank."""
    folders = {int(match[1]): path for path in source.iterdir() if (match := RANK.fullmatch(path.name))}
    missing = next((rank for rank in range(max(folders) + 1) if rank not in folders), None)
    if missing is not None:
        raise WeightsError(
            f"{source} lacks rank_{missing}: copy the folders of all {max(folders) + 1} ranks into it"
        )
    names = [
        {path.name for path in folders[rank].glob("*.ckpt") if path.name != FULL} for rank in sorted(folders)
    ]
    common = set.intersection(*names)
    if not common:
        raise WeightsError(
            f"the ranks in {source} have no .ckpt file of the same name: "
            "copy the files of one step into every folder"
        )
    newest = max(common, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    if len(common) > 1:
        log.info("%s: combining %s, the newest of %d checkpoints", source, newest, len(common))
    return [folders[rank] / newest for rank in sorted(folders)]


class _JoinedRanks(Mapping[str, np.ndarray]):
    """Every parameter of the ranks' files, joined on access."""

    def __init__(self, files: list[WeightsFile], whole: Mapping[str, tuple[int, ...]]) -> None:
        weights = [name for name, entry in files[0].entries.items() if entry.dtype in FLOATING]
        self._parts = {name: files[: self._count(name, files, whole)] for name in weights}

    def _count(self, name: str, files: list[WeightsFile], whole: Mapping[str, tuple[int, ...]]) -> int:
        """The number of ranks that hold a part of this parameter each; further ranks hold copies."""
        part = files[0].entries[name].shape
        full = whole.get(release_name(name, whole), part)
        if part == full:
            return 1
        count = full[0] // part[0] if part and full and part[0] else 0
        same = all(name in file.entries and file.entries[name].shape == part for file in files[:count])
        if not 0 < count <= len(files) or (part[0] * count, *part[1:]) != full or not same:
            remedy = "copy all ranks again, or name the right --model_config"
            raise WeightsError(
                f"{files[0].path}: {name} has shape {list(part)}, which cannot make {list(full)}: {remedy}"
            )
        return count

    def __getitem__(self, name: str) -> np.ndarray:
        parts = [file.read(name) for file in self._parts[name]]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)
