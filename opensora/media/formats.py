"""File formats by suffix, and the media files of a folder."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

STILL_SUFFIXES = (".png", ".jpg", ".jpeg")
PICTURE_SUFFIXES = (".gif", ".webp", ".apng", *STILL_SUFFIXES)
"""Files that Pillow reads; all but .jpg may be animations."""
PICTURE_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
"""The formats that Pillow may try, whatever a file's suffix: others start programs or read other files."""
DEMUXERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "asf", "flv", "ogg", "ivf", "dv", "yuv4mpegpipe"),
    *("h264", "hevc", "mpegvideo", "m4v", "obu"),
)
"""The formats that FFmpeg may try: a playlist, for example, would open other files."""
MAX_PIXELS = 2**26
"""Pixels of a frame or picture; a small file may claim any size."""
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".ogv", ".ts", ".mts", ".m2ts", ".vob", ".3gp", ".3g2", ".asf", ".dv"),
    *(".ivf", ".h264", ".264", ".hevc", ".265", ".m2v", ".y4m"),
)
VideoFormat = Literal["mp4", "webm", "mov", "mkv", "gif", "webp", "png"]
"""Formats that videos are written in; png is a folder with a picture for each frame."""
SHEET = ".contact.png"
"""The end of the name of a contact sheet, which lies beside its video and is none itself."""
MEDIA_SUFFIXES = (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)
UNREAD_SUFFIXES = (".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".tga", ".svg")
"""Pictures that are not read; a folder that has some is told so."""

log = logging.getLogger(__name__)


def media_files(folder: str | Path, recursive: bool = False) -> list[Path]:
    """The videos and pictures in a folder, and with `recursive` in its subfolders, sorted by path.

    Links are followed. Hidden files and folders and contact sheets are skipped; other files that are skipped
    are logged. Raises ValueError if the folder does not exist or has no videos or pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        if folder.exists():
            raise ValueError(f"{folder} is a file: name the folder that holds it")
        raise ValueError(f"folder {folder} does not exist: check the path")
    found = []
    unread: Counter[str] = Counter()
    for path in _files(folder, recursive, {os.path.realpath(folder)}):
        suffix = path.suffix.lower()
        if suffix in UNREAD_SUFFIXES:
            unread[suffix] += 1
        elif suffix in MEDIA_SUFFIXES and not path.name.endswith(SHEET) and _is_file(path):
            found.append(path)
    if unread:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(unread.items()))
        log.warning("%s: %s not read, save them as .png or .jpg", folder, kinds)
    if not found:
        raise ValueError(
            f"folder {folder} has no video or picture: files ending in {', '.join(MEDIA_SUFFIXES)} are read"
        )
    return sorted(found)


def is_picture(name: str | Path, frames: int) -> bool:
    """True if a file is a picture, by its ending: an .mp4 or .gif of one frame is a short video."""
    return frames == 1 and Path(name).suffix.lower() in (*STILL_SUFFIXES, ".webp")


def result_path(folder: Path, name: str, kind: VideoFormat, still: bool) -> Path:
    """Where a result is written: a file, or a folder if it is a video as pictures. still: it is a picture."""
    if still:
        return folder / f"{name}.png"
    return folder / name if kind == "png" else folder / f"{name}.{kind}"


def file_url(path: str | Path) -> str:
    """A path for FFmpeg, which would take what precedes a colon for a protocol."""
    return f"file:{path}"


def require_pixels(height: int, width: int) -> None:
    """Raise ValueError for a frame that is larger than MAX_PIXELS."""
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"its frames of {height}x{width} are too large, at most {MAX_PIXELS:,} pixels are read"
        )


def _files(folder: Path, recursive: bool, above: set[str]) -> Iterator[Path]:
    """Visible files; `above` holds the real paths of the folders passed on the way down."""
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        log.warning("%s is skipped: %s", folder, error.strerror)
        return
    for path in paths:
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            yield path
        elif recursive:
            real = os.path.realpath(path)
            if real in above:
                log.warning("%s is skipped: it is a link to a folder above it", path)
            else:
                yield from _files(path, recursive, above | {real})


def _is_file(path: Path) -> bool:
    if not path.is_file():
        log.warning("%s is skipped: it is a link to a file that does not exist, or no file", path)
        return False
    return True
