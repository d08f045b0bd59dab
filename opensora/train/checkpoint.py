"""Checkpoints of a run: a folder per step that counts only when it is complete, and a LATEST file that moves after it.

<run>/checkpoints/step-00000100/*.safetensors   what the task gave, a file a group of arrays
                                state.json      the step and the task's own numbers
                                manifest.json   size and sha256 of every file, written last
<run>/checkpoints/LATEST                        name of the newest complete folder
"""

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


def save_checkpoint(run: Path, step: int, groups: Mapping[str, Arrays], state: Mapping[str, Any], keep: int = 3) -> Path:
    """Write a complete checkpoint, move LATEST to it, then remove all but the newest `keep` of this run's own (0 keeps all)."""
    root = run / "checkpoints"
    final = root / f"step-{step:08d}"
    building = root / f".step-{step:08d}.{os.getpid()}"
    for abandoned in root.glob(".step-*"):
        shutil.rmtree(abandoned)  # a kill left it
    building.mkdir(parents=True)
    try:
        for name, arrays in groups.items():
            content = save({key: np.asarray(value, order="C") for key, value in arrays.items()})
            write_atomic(building / f"{name}.safetensors", lambda file, content=content: file.write(content))  # type: ignore[misc]
        _write_json(building / "state.json", {"step": step, **state})
        write_manifest(building)
        if final.exists():
            shutil.rmtree(final)
        os.rename(building, final)
    except OSError:
        shutil.rmtree(building, ignore_errors=True)
        raise
    sync_folder(root)
    write_atomic(root / "LATEST", lambda file: file.write(f"{final.name}\n".encode()))
    if keep:
        for old in sorted(root.glob("step-*"))[:-keep]:
            shutil.rmtree(old)
    return final


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """(groups of arrays, state) of a checkpoint folder. Raises WeightsError for a missing or changed file."""
    if not (folder / "manifest.json").is_file():
        raise WeightsError(f"{folder} is not a complete checkpoint: it has no manifest.json; name another step's folder")
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, facts in manifest.items():
        path = folder / name
        if not path.is_file() or _facts(path) != facts:
            raise WeightsError(f"{path} is missing or was changed after it was saved: resume from another step's folder")
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
