"""Atomic files, written under a temporary name, synced to the disk, then renamed; and locks of folders.

A temporary file or folder is called `.opensora-<random><suffix>`. Its process holds a lock on it, so that the
next process in the folder can tell what a dead one left behind.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from opensora.config_files import read_settings

BLOCK = 2**22
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""The errors of a disk, or of a user's share of it, that is full."""
LARGEST_JOURNAL = 2**30
LOCK = ".lock"
SCRATCH = re.compile(r"\.opensora-[0-9a-f]{16}(\..*)?", re.DOTALL)


def write_atomic(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace `path` by what `write` writes. An error or a power cut leaves the old file or none."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        write(file)


@contextmanager
def atomic_path(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """A temporary path with the same suffix, which is renamed to `path` if the block succeeds.

    durable: survive a power cut. A cache, which checks what it reads, need not wait for the disk.
    """
    path = Path(path)
    temporary = path.with_name(f".opensora-{secrets.token_hex(8)}{path.suffix[:16]}")
    with naming(path):
        # Exclusive: an existing file or link of that name is never opened.
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _try_lock(descriptor)
            yield temporary
            if durable:
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)
        if durable:
            sync_folder(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path to an error of the system that names none, or a temporary file, such as a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (not error.filename or SCRATCH.fullmatch(Path(error.filename).name)):
            raise OSError(
                error.errno, os.strerror(error.errno), str(path)
            ) from error  # FFmpeg's are read-only
        raise


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent`, which is removed at the end of the block."""
    folder = parent / f".opensora-{secrets.token_hex(8)}"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _try_lock(descriptor)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def remove_scratch(folder: Path) -> None:
    """Remove the temporary files and folders in `folder` that processes left which no longer run."""
    for path in folder.iterdir():
        if not SCRATCH.fullmatch(path.name) or path.is_symlink():
            continue
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if _try_lock(descriptor) is True:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        finally:
            os.close(descriptor)


@contextmanager
def folders_made(folder: Path) -> Iterator[None]:
    """Make the folder and its parents; at the end of the block, remove those of them that stayed empty."""
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for empty in made:
                empty.rmdir()


@contextmanager
def only_writer(folder: Path, option: str) -> Iterator[None]:
    """Make the folder, and keep other processes that call this out of it until the block or process ends.

    Also removes what dead processes left behind, and at the end what stayed empty. Raises ValueError, which
    names the option, if another process is in the block.
    """
    with folders_made(folder):
        descriptor = _lock_folder(folder)
        if descriptor is None:
            raise ValueError(
                f"another process is writing to {folder}: wait until it ends, or choose another {option}"
            )
        try:
            remove_scratch(folder)
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            os.close(descriptor)


def _lock_folder(folder: Path) -> int | None:
    """An open and locked file in the folder; None if another process has it."""
    while True:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        if _try_lock(descriptor) is False:
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.lstat(folder / LOCK)):
                return descriptor
        os.close(descriptor)  # the process before this one removed its file in the meantime


def _try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder until it is closed; None if its file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


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


def read_json_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """The objects in a journal of this project, a file of JSON lines; none if it is missing.

    A line that is no object is passed over: a kill or a full disk cut it short. Raises ValueError for a file
    that is too large for a journal.
    """
    path = Path(path)
    if not path.is_file():
        return
    if path.stat().st_size > LARGEST_JOURNAL:
        raise ValueError(
            f"{path} is larger than {LARGEST_JOURNAL:,} bytes, which no journal is: move it away"
        )
    with open(path, "rb") as file:
        while line := file.readline(BLOCK):
            with suppress(ValueError, RecursionError):
                content = json.loads(line)
                if isinstance(content, dict):
                    yield content


def read_array(path: Path, remedy: str) -> np.ndarray:
    """The array in a .npy file, whose values are read when they are used.

    Raises ValueError, which ends with the remedy, for a file that is missing or damaged.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # the format's header is a Python literal: its parser raises anything
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} is an archive and not an array: {remedy}")
    return array


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
