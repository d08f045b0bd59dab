"""Checkpoints of a run: a folder per step, and a LATEST file that moves once the folder is complete.

<run>/checkpoints/step-00000100/*.safetensors   the task's state, a file per dict of arrays
                                state.json      the step and the loop's own state
                                manifest.json   size and sha256 of every file, written last
<run>/checkpoints/LATEST                        name of the newest complete folder
"""

import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import load_file, save

from opensora.files import DISK_FULL, hash_file, sync_folder, write_atomic
from opensora.parallel.collectives import ProcessGroup
from opensora.weights import Arrays, WeightsError, latest_checkpoint
from opensora.weights.checkpoints import (
    MANIFEST,
    check_files,
    complete_checkpoints,
    missing_file,
    read_manifest,
    step_of,
)
from opensora.weights.shards import ShardedState, sharded_states
from opensora.weights.sources import read_object

__all__ = ["latest_checkpoint", "load_checkpoint", "save_checkpoint", "write_manifest"]

log = logging.getLogger(__name__)

HIDDEN = re.compile(r"\.step-\d{8,}\.[0-9a-z]+")
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
    keep_every: checkpoints of its multiples stay too, 0 for none. Only complete checkpoints of earlier steps
    are counted and removed; a link, or a folder of another name, is left alone. world: the processes that
    call this together, by default this one alone. Each writes its own part of the state by
    `write_shard(folder)`; when all have, the first writes `files` and the rest. Raises WeightsError if the
    disk is full; other errors of the disk are OSError.
    """
    world = world or ProcessGroup()
    root = run / "checkpoints"
    final = root / f"step-{step:08d}"
    building = _hidden(final, world.agree(secrets.token_hex(8))[0])
    try:
        if world.index == 0:
            root.mkdir(parents=True, exist_ok=True)
            remove_leftovers(run)
            building.mkdir()
        world.agree()
        if write_shard is not None:
            write_shard(building)
        world.agree()
        if world.index == 0:
            _finish(building, final, step, files, state)
    except OSError as error:
        if world.index == 0:
            shutil.rmtree(building, ignore_errors=True)
        if error.errno in DISK_FULL:
            raise WeightsError(_disk_full(run, step)) from error
        raise
    if keep and world.index == 0:
        _remove_older(run, final, keep, keep_every)
    world.agree()
    return final


def _hidden(folder: Path, token: str) -> Path:
    """The name of a checkpoint while it is written or removed."""
    return folder.with_name(f".{folder.name}.{token}")


def remove_leftovers(run: Path) -> None:
    """Remove what a killed process was writing or removing. Call it only as the run's one writer."""
    for path in (run / "checkpoints").glob(".step-*"):
        if HIDDEN.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


def _finish(
    building: Path, final: Path, step: int, files: Mapping[str, Arrays], state: Mapping[str, Any]
) -> None:
    """Write what is missing in `building`, rename it to `final`, and move LATEST."""
    root = final.parent
    for name, arrays in files.items():
        content = save({key: np.asarray(value, order="C") for key, value in arrays.items()})
        _write(building / f"{name}.safetensors", content)
    _write_json(building / "state.json", {"step": step, **state})
    write_manifest(building, (f"{name}.safetensors" for name in files))
    if final.exists() or final.is_symlink():
        # Not of this run, which continues from its newest checkpoint: it may be someone's.
        aside = final.with_name(f"{final.name}.replaced-{secrets.token_hex(4)}")
        os.rename(final, aside)
        log.warning("%s was in the way of a new checkpoint and is now %s", final, aside)
    os.rename(building, final)
    sync_folder(root)
    _write(root / "LATEST", f"{final.name}\n".encode())


def _remove_older(run: Path, final: Path, keep: int, keep_every: int) -> None:
    saved = step_of(final)
    assert saved is not None
    steps = {step: path for path in complete_checkpoints(run) if (step := step_of(path) or 0) <= saved}
    for step in sorted(steps)[:-keep]:
        if not keep_every or step % keep_every:
            # First, so that what a kill leaves over is not taken for a checkpoint.
            removed = _hidden(steps[step], secrets.token_hex(8))
            os.rename(steps[step], removed)
            shutil.rmtree(removed)


def _disk_full(run: Path, step: int) -> str:
    newest = latest_checkpoint(run)
    kept = f"{newest} is complete" if newest else "the run has none yet"
    return (
        f"the disk of {run} is full, so the checkpoint of step {step} was not saved ({kept}): "
        "free space and start the command again"
    )


class StateFiles(dict[str, Arrays]):
    """Arrays by file name, without suffix. Raises WeightsError for a file that the checkpoint lacks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __missing__(self, name: str) -> Arrays:
        raise WeightsError(
            f"{self._folder} has no {name}.safetensors, which this training continues: "
            "name a checkpoint of the same kind of training, or start a new run"
        )


def load_checkpoint(folder: Path) -> tuple[StateFiles, dict[str, Any]]:
    """(arrays by file name without suffix, state of the loop) of a checkpoint folder.

    The optimizer's shards, a file per process, are joined to the state that one process would have written.
    Raises WeightsError for a missing or changed file.
    """
    check_files(folder)
    manifest = read_manifest(folder)
    files = StateFiles(folder)
    for prefix in sharded_states(manifest):
        files[prefix + ONE_SHARD] = ShardedState(folder, prefix)
    for name in manifest:
        if name.endswith(".safetensors") and not sharded_states([name]):
            files[name.removesuffix(".safetensors")] = load_file(folder / name)
    state = read_object(folder / "state.json")
    if type(state.get("step")) is not int or state["step"] < 0:
        raise WeightsError(f"{folder / 'state.json'} has no step: copy the checkpoint again")
    return files, state


class Shaped(Protocol):
    """An array or tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def check_same_shapes(network: Mapping[str, Shaped], saved: Mapping[str, Shaped]) -> None:
    """Raise WeightsError unless the saved weights have the names and shapes of the network's."""
    faults = [
        f"{name} is {_shape(saved, name)} there and {_shape(network, name)} here"
        for name in sorted(network.keys() | saved.keys())
        if _shape(network, name) != _shape(saved, name)
    ]
    if faults:
        raise WeightsError(
            f"the checkpoint is of another network ({len(faults)} weights differ; {faults[0]}): "
            "continue with the options of its run, or choose another --output_dir"
        )


def _shape(weights: Mapping[str, Shaped], name: str) -> str:
    return str(list(weights[name].shape)) if name in weights else "missing"


def write_manifest(folder: Path, expected: Iterable[str] = ()) -> None:
    """Write manifest.json, which marks the folder as complete: size and sha256 of every file in it.

    Raises WeightsError if one of the `expected` files, or one that every checkpoint has, is not there.
    """
    manifest = {path.name: _facts(path) for path in sorted(folder.iterdir())}
    missing = next((name for name in expected if name not in manifest), missing_file(manifest))
    if missing is not None:
        raise WeightsError(f"{folder / missing} vanished while the checkpoint was written: start again")
    _write_json(folder / MANIFEST, manifest)


def _write(path: Path, content: bytes) -> None:
    write_atomic(path, lambda file: file.write(content))


def _write_json(path: Path, content: Any) -> None:
    _write(path, (json.dumps(content, indent=2) + "\n").encode())


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": hash_file(path)}
