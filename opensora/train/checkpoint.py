"""Checkpoints of a run: a folder per step, and a LATEST file that moves once the folder is complete.

<run>/checkpoints/step-00000100/*.safetensors   the task's state, a file per dict of arrays
                                state.json      the step and the loop's own state
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
    files: Mapping[str, Arrays],
    state: Mapping[str, Any],
    keep: int = 3,
    keep_every: int = 0,
    write_shard: Callable[[Path], None] | None = None,
    world: ProcessGroup | None = None,
) -> Path:
    """Write a complete checkpoint, move LATEST to it, and remove older ones. Returns its folder.

    files: arrays by file name, without suffix. keep: number of newest checkpoints to keep, 0 for all.
    keep_every: checkpoints of its multiples stay too, 0 for none. An incomplete checkpoint never replaces or
    removes a complete one. world: the processes that call this together, by default this one alone. Each
    writes its own part of the state by `write_shard(folder)`; when all have, the first writes `files` and the
    rest. Raises WeightsError if the disk is full; other errors of the disk are OSError.
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
            _finish(building, final, step, files, state)
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


def _finish(
    building: Path, final: Path, step: int, files: Mapping[str, Arrays], state: Mapping[str, Any]
) -> None:
    """Write what is missing in `building`, rename it to `final`, and move LATEST."""
    root = final.parent
    for name, arrays in files.items():
        content = save({key: np.asarray(value, order="C") for key, value in arrays.items()})
        _write(building / f"{name}.safetensors", content)
    _write_json(building / "state.json", {"step": step, **state})
    write_manifest(building)
    if final.exists():
        # A run continues from its newest complete checkpoint, so a folder of a later step is incomplete.
        os.rename(final, root / f".step-{step:08d}.replaced")
    os.rename(building, final)
    sync_folder(root)
    _write(root / "LATEST", f"{final.name}\n".encode())


def _remove_older(root: Path, keep: int, keep_every: int) -> None:
    for old in sorted(root.glob("step-*"))[:-keep]:
        if not keep_every or int(old.name.removeprefix("step-")) % keep_every:
            # First, so that what a kill leaves over is not taken for complete.
            (old / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(old)


def _disk_full(run: Path, step: int) -> str:
    newest = latest_checkpoint(run)
    kept = f"{newest} is complete" if newest else "the run has none yet"
    return (
        f"the disk of {run} is full, so the checkpoint of step {step} was not saved ({kept}): "
        "free space and start the command again"
    )


def load_checkpoint(folder: Path) -> tuple[dict[str, Arrays], dict[str, Any]]:
    """(arrays by file name without suffix, state of the loop) of a checkpoint folder.

    The optimizer's shards, a file per process, are joined to the state that one process would have written.
    Raises WeightsError for a missing or changed file.
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
                f"{path} is missing or was changed after it was saved: move {folder.name} away, "
                "and the run continues from the checkpoint before it"
            )
    files: dict[str, Arrays] = {
        prefix + ONE_SHARD: ShardedState(folder, prefix) for prefix in sharded_states(manifest)
    }
    for name in manifest:
        if name.endswith(".safetensors") and not sharded_states([name]):
            files[name.removesuffix(".safetensors")] = load_file(folder / name)
    return files, json.loads((folder / "state.json").read_text())


def write_manifest(folder: Path) -> None:
    """Write manifest.json, which marks the folder as complete: size and sha256 of every file in it."""
    _write_json(folder / "manifest.json", {path.name: _facts(path) for path in sorted(folder.iterdir())})


def _write(path: Path, content: bytes) -> None:
    write_atomic(path, lambda file: file.write(content))


def _write_json(path: Path, content: Any) -> None:
    _write(path, (json.dumps(content, indent=2) + "\n").encode())


def _facts(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
