"""File formats by suffix, and the media files of a folder."""

from pathlib import Path

STILL_SUFFIXES = (".png", ".jpg", ".jpeg")
PICTURE_SUFFIXES = (".gif", ".webp", *STILL_SUFFIXES)
"""Files that Pillow reads; .gif and .webp may be animations."""
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".ogv", ".ts", ".3gp"),
)
MEDIA_SUFFIXES = (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)


def media_files(folder: str | Path, recursive: bool = False) -> list[Path]:
    """The videos and pictures in a folder, and with `recursive` in its subfolders, sorted by path.

    Hidden files and folders are skipped. Raises ValueError if the folder does not exist or has no such file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"folder {folder} does not exist: check the path")
    paths = folder.rglob("*") if recursive else folder.iterdir()
    found = sorted(path for path in paths if path.suffix.lower() in MEDIA_SUFFIXES and path.is_file())
    visible = [path for path in found if not any(map(_is_hidden, path.relative_to(folder).parts))]
    if not visible:
        raise ValueError(
            f"folder {folder} has no video or picture: files ending in {', '.join(MEDIA_SUFFIXES)} are read"
        )
    return visible


def _is_hidden(name: str) -> bool:
    return name.startswith(".")
