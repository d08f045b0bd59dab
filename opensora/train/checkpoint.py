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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from opensora.weights import WeightsError, latest_checkpoint, sync_folder, write_atomic

__all__ = ["latest_checkpoint", "load_checkpoint", "save_checkpoint", "write_manifest"]

Arrays = Mapping[str, np.ndarray]


def save_checkpoint(
    run: Path, step: int, groups: Mapping[str, Arrays], state: Mapping[str, Any], keep: int = 3, keep_every: int = 0
) -> Path:
    """Write a complete checkpoint, move LATEST to it, then remove older ones but the newest `keep` (0 keeps all).

    Multiples of `keep_every` stay (0: none does). What is incomplete never replaces or removes what is complete.
    Raises WeightsError where the disk is full; other errors of the disk are OSError.
    """
    root = run / "checkpoints"
    final = root / f"step-{step:08d}"
    building = root / f".step-{step:08d}.{os.getpid()}"
    for abandoned in root.glob(".step-*"):
        shutil.rmtree(abandoned)  # a kill left it
    try:
        building.mkdir(parents=True)
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
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WeightsError(_disk_full(run, step)) from error
        raise
    if keep:
        for old in sorted(root.glob("step-*"))[:-keep]:
            if not keep_every or int(old.name.removeprefix("step-")) % keep_every:
                (old / "manifest.json").unlink(missing_ok=True)  # first, so that what a kill leaves is not taken for complete
                shutil.rmtree(old)
    return final


def _disk_full(run: Path, step: int) -> str:
    newest = latest_checkpoint(run)
    kept = f"{newest} is complete" if newest else "the run has none yet"
    return f"the disk of {run} is full, so the checkpoint of step {step} was not saved ({kept}): free space and start the command again"


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """(groups of arrays, state) of a checkpoint folder. Raises WeightsError for a missing or changed file."""
    if not (folder / "manifest.json").is_file():
        raise WeightsError(f"{folder} is not a complete checkpoint: it has no manifest.json; name another step's folder")
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, facts in manifest.items():
        path = folder / name
        if not path.is_file() or _facts(path) != facts:
            raise WeightsError(
                f"{path} is missing or was changed after it was saved: move {folder.name} away, and the run continues from the one before"
            )
    groups = {name.removesuffix(".safetensors"): load_file(folder / name) for name in manifest if name.endswith(".safetensors")}
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
