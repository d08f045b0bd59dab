"""Checkpoints of a run: a folder per step that counts only when it is complete, and a LATEST file that moves after it.

<run>/checkpoints/step-00000100/*.safetensors   what the task gave, a file a group of arrays
                                state.json      the step and the task's own numbers
                                manifest.json   size and sha256 of every file, written last
<run>/checkpoints/LATEST                        name of the newest complete folder
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from opensora.files import sync_folder, write_atomic
from opensora.parallel.collectives import ProcessGroup
from opensora.weights import WeightsError, latest_checkpoint
from opensora.weights.shards import ShardedState, sharded_states

__all__ = ["latest_checkpoint", "load_checkpoint", "save_checkpoint", "write_manifest"]

Arrays = Mapping[str, np.ndarray]
ONE_SHARD = "optimizer-0-of-1"


def save_checkpoint(
    run: Path,
    step: int,
    groups: Mapping[str, Arrays],
    state: Mapping[str, Any],
    keep: int = 3,
    keep_every: int = 0,
    write_shard: Callable[[Path], None] | None = None,
    world: ProcessGroup | None = None,
) -> Path:
    """Write a complete checkpoint, move LATEST to it, then remove older ones but the newest `keep` (0 keeps all).

    Multiples of `keep_every` stay (0: none does). What is incomplete never replaces or removes what is complete.
    The processes of `world` (default: this one alone) call this together: each writes what it holds a part of by `write_shard(folder)`,
    and when all are done, the first writes the rest. Raises WeightsError where the disk is full; other errors of the disk are OSError.
    """
    world = world or ProcessGroup()
    root = run / "checkpoints"
    final = root / f"step-{step:08d}"
    building = root / f".step-{step:08d}.{world.agree(os.getpid())[0]}"
    try:
        if world.index == 0:
            for abandoned in root.glob(".step-*"):
                shutil.rmtree(abandoned)  # a kill left it
            building.mkdir(parents=True)
        world.agree()
        if write_shard is not None:
            write_shard(building)
        world.agree()
        if world.index == 0:
            _complete(building, final, step, groups, state)
    except OSError as error:
        if world.index == 0:
            shutil.rmtree(building, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WeightsError(_disk_full(run, step)) from error
        raise
    if keep and world.index == 0:
        _remove_older(root, keep, keep_every)
    world.agree()
    return final


def _complete(
    building: Path, final: Path, step: int, groups: Mapping[str, Arrays], state: Mapping[str, Any]
) -> None:
    """Write all that is missing in `building`, rename it, and move LATEST."""
    root = final.parent
    for name, arrays in groups.items():
        content = save({key: np.asarray(value, order="C") for key, value in arrays.items()})
        write_atomic(building / f"{name}.safetensors", lambda file, content=content: file.write(content))  # type: ignore[misc]
    _write_json(building / "state.json", {"step": step, **state})
    write_manifest(building)
    if final.exists():
        # A run continues from its newest complete checkpoint, so a later one is incomplete, and may be moved out of the way.
        os.rename(final, root / f".step-{step:08d}.replaced")
    os.rename(building, final)
    sync_folder(root)
    write_atomic(root / "LATEST", lambda file: file.write(f"{final.name}\n".encode()))


def _remove_older(root: Path, keep: int, keep_every: int) -> None:
    for old in sorted(root.glob("step-*"))[:-keep]:
        if not keep_every or int(old.name.removeprefix("step-")) % keep_every:
            (old / "manifest.json").unlink(
                missing_ok=True
            )  # first, so that what a kill leaves is not taken for complete
            shutil.rmtree(old)


def _disk_full(run: Path, step: int) -> str:
    newest = latest_checkpoint(run)
    kept = f"{newest} is complete" if newest else "the run has none yet"
    return f"the disk of {run} is full, so the checkpoint of step {step} was not saved ({kept}): free space and start the command again"


def load_checkpoint(folder: Path) -> tuple[dict[str, Arrays], dict[str, Any]]:
    """(groups of arrays, state) of a checkpoint folder. Raises WeightsError for a missing or changed file.

    An optimizer's state in several files, one of each process, is put together as the group that one process would have written.
    """
    if not (folder / "manifest.json").is_file():
        raise WeightsError(
            f"{folder} is not a complete checkpoint: it has no manifest.json; name another step's folder"
        )
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, facts in manifest.items():
        path = folder / name
        if not path.is_file() or _facts(path) != facts:
            raise WeightsError(
                f"{path} is missing or was changed after it was saved: move {folder.name} away, and the run continues from the one before"
            )
    groups: dict[str, Arrays] = {
        prefix + ONE_SHARD: ShardedState(folder, prefix) for prefix in sharded_states(manifest)
    }
    for name in manifest:
        if name.endswith(".safetensors") and not sharded_states([name]):
            groups[name.removesuffix(".safetensors")] = load_file(folder / name)
    return groups, json.loads((folder / "state.json").read_text())


def write_manifest(folder: Path) -> None:
    """Write manifest.json, which says that the folder is complete: size and sha256 of every file in it."""
    _write_json(folder / "manifest.json", {path.name: _facts(path) for path in sorted(folder.iterdir())})


def _write_json(path: Path, content: Any) -> None:
    write_atomic(path, lambda file: file.write((json.dumps(content, indent=2) + "\n").encode()))


def _facts(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
