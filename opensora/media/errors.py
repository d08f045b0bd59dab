"""Errors of files in plain words, without FFmpeg's numbers and a library's own terms."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av.error
from PIL import UnidentifiedImageError

from opensora.files import DISK_FULL
from opensora.media.formats import MEDIA_SUFFIXES, PICTURE_SUFFIXES

UNTELLING = (av.error.InvalidDataError, av.error.EOFError, av.error.ArgumentError, av.error.MemoryError)
"""Errors that FFmpeg raises for data that make no sense to it."""
DAMAGED = "it is damaged or cut off"
CONTENTS = (
    (0, b"\x89PNG", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"GIF8", ".gif"),
    (8, b"WEBP", ".webp"),
    (4, b"ftyphei", ".heic"),
    (4, b"ftypavi", ".avif"),
    (4, b"ftyp", ".mp4"),
    (0, b"\x1aE\xdf\xa3", ".mkv"),
    (8, b"AVI ", ".avi"),
    (0, b"%PDF", ".pdf"),
    (0, b"PK\x03\x04", ".zip"),
    (0, b"<!DOCTYPE", ".html"),
    (0, b"<html", ".html"),
)
"""Kinds of files: the offset of the bytes that identify one, the bytes, and its usual ending."""


def reading_fault(path: Path, error: Exception) -> str:
    """The reason why a file cannot be read. error: the exception of a decoder or of one of our checks."""
    if type(error) is ValueError:  # of our own
        return str(error)
    if isinstance(error, av.error.FFmpegError | UnidentifiedImageError):
        return _decoding_fault(path, error)
    if isinstance(error, OSError) and error.errno is not None:
        return str(error.strerror)
    return f"{DAMAGED} ({error})"


def _decoding_fault(path: Path, error: Exception) -> str:
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    found = _content(path)
    is_other = (found in PICTURE_SUFFIXES) != (path.suffix.lower() in PICTURE_SUFFIXES)
    if found and (is_other or found not in MEDIA_SUFFIXES):
        return f"its content is that of a {found} file"
    if isinstance(error, av.error.FFmpegError) and not isinstance(error, UNTELLING):
        return f"{DAMAGED} ({error.strerror})"
    return DAMAGED if found else f"{DAMAGED}, or of a format that is not read"


def _content(path: Path) -> str:
    """The usual ending of a file with this content, or "" for one that is not known."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return ""
    return next((suffix for at, mark, suffix in CONTENTS if start[at:].startswith(mark)), "")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the path in errors of the block, which writes it: OSError if the disk is full, else ValueError."""
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        if error.errno in DISK_FULL:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from error
