"""Atomic files: written under a temporary name, synced to the disk, then renamed."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from opensora.config_files import read_settings

BLOCK = 2**22


def write_atomic(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace `path` by what `write` writes. An error or a power cut leaves the old file or none."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        write(file)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path with the same suffix, which is renamed to `path` if the block succeeds."""
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync the folder itself, so that names of new files survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, content: Any) -> None:
    """Write indented UTF-8 JSON atomically."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    # Names of files may hold lone surrogates, which UTF-8 lacks. Their Python escapes are those of JSON.
    write_atomic(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def read_sidecar(path: str | Path) -> dict[str, Any]:
    """The object in a sidecar or summary; empty if the file is missing or holds something else."""
    try:
        return read_settings(path)
    except (OSError, ValueError):
        return {}


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_writable(folder: Path, option: str) -> None:
    """Try to write in the folder, or the nearest existing parent; some file systems ignore permissions.

    Leaves no file behind. Raises ValueError that names the option.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(
            f"{option} {folder} cannot be written ({error.strerror}): choose another folder"
        ) from error
