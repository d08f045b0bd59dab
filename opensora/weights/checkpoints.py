"""Checkpoint folders of a run: their names, and the manifest that lists the files of each.

<run>/checkpoints/step-00000100/manifest.json holds {file name: {"bytes": size, "sha256": digest}, ...}.
"""

import logging
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from opensora.config_files import read_settings
from opensora.files import hash_file
from opensora.weights.files import WeightsError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
REQUIRED = ("model.safetensors", "state.json")
NAME = re.compile(r"step-(\d{8}|[1-9]\d{8,})", re.ASCII)
SHARD = re.compile(r"((?:\w+-)?)optimizer-(\d{1,9})-of-(\d{1,9})\.safetensors", re.ASCII)
"""A rank's file of an optimizer's state; see shards.py."""
DAMAGED = "is missing or was changed after it was saved"


def step_of(folder: Path) -> int | None:
    """The step of a checkpoint folder; None for a link, a file, or a name of another form."""
    match = NAME.fullmatch(folder.name)
    return int(match[1]) if match and folder.is_dir() and not folder.is_symlink() else None


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run that has a manifest, or None. Names newer ones that do not count."""
    found = [path for path in (run / "checkpoints").glob("step-*") if NAME.fullmatch(path.name)]
    for folder in sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True):
        if step_of(folder) is None:
            log.warning("%s is not a real folder and does not count as a checkpoint", folder)
        elif not (folder / MANIFEST).is_file():
            log.warning("%s is incomplete, it has no %s, and does not count", folder, MANIFEST)
        else:
            return folder
    return None


def complete_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run that have every file of their manifests at its size, by step."""
    steps = {step: path for path in (run / "checkpoints").iterdir() if (step := step_of(path)) is not None}
    return [steps[step] for step in sorted(steps) if _has_all_files(steps[step])]


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of each file. Raises WeightsError if it is missing, damaged, or lacks a file."""
    path = folder / MANIFEST
    if not path.is_file():
        raise WeightsError(
            f"{folder} is not a complete checkpoint: it has no {MANIFEST}; name another step's folder"
        )
    try:
        content = read_settings(path)
    except ValueError:
        content = None
    if content is None or not all(_is_entry(*item) for item in content.items()):
        raise WeightsError(
            f"{path} is damaged: move {folder.name} away, or copy the checkpoint again; "
            "a run continues from the checkpoint before it"
        )
    missing = missing_file(content)
    if missing is not None:
        raise WeightsError(
            f"{path} does not list {missing}, so the checkpoint is not complete: "
            f"move {folder.name} away, and the run continues from the checkpoint before it"
        )
    return content


def missing_file(names: Iterable[str]) -> str | None:
    """A file that a checkpoint with the files `names` must have and lacks; None if it has all."""
    present = set(names)
    shards = (match for name in sorted(present) if (match := SHARD.fullmatch(name)))
    parts = (
        f"{match[1]}optimizer-{rank}-of-{match[3]}.safetensors"
        for match in shards
        for rank in range(int(match[3]))
    )
    return next((name for name in chain(REQUIRED, parts) if name not in present), None)


def check_files(folder: Path, names: Iterable[str] | None = None) -> None:
    """Compare files, by default all, with the manifest's digests. Raises WeightsError for the first other."""
    manifest = read_manifest(folder)
    for name in manifest if names is None else names:
        if name not in manifest or not _is_file(folder, name, manifest) or not _same(folder, name, manifest):
            raise WeightsError(
                f"{folder / name} {DAMAGED}: move {folder.name} away, "
                "and the run continues from the checkpoint before it"
            )


def check_weights(path: Path) -> None:
    """Raise WeightsError if a file of weights is in a checkpoint and differs from its manifest."""
    if (path.parent / MANIFEST).is_file() and (path.parent / "state.json").is_file():
        check_files(path.parent, [path.name])


def _is_entry(name: str, facts: Any) -> bool:
    plain = Path(name).name == name and "\0" not in name
    return (
        plain
        and isinstance(facts, dict)
        and type(facts.get("bytes")) is int
        and isinstance(facts.get("sha256"), str)
    )


def _has_all_files(folder: Path) -> bool:
    try:
        manifest = read_manifest(folder)
    except WeightsError:
        return False
    return all(_is_file(folder, name, manifest) for name in manifest)


def _is_file(folder: Path, name: str, manifest: dict[str, dict[str, Any]]) -> bool:
    path = folder / name
    return path.is_file() and path.stat().st_size == manifest[name]["bytes"]


def _same(folder: Path, name: str, manifest: dict[str, dict[str, Any]]) -> bool:
    return hash_file(folder / name) == manifest[name]["sha256"]
