"""Clips to be reconstructed or compared: which files of a folder, which of their frames, at what size."""

import csv
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from opensora.data.transforms import center_crop, short_side_resize, to_float
from opensora.media.reader import PICTURE_SUFFIXES, VIDEO_SUFFIXES, iter_frames

MEDIA_SUFFIXES = (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)
COLUMNS = ("video", "path")
FRAMES_AT_ONCE = 16  # that are resized together, so that a clip is held in floats only in part

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """Which frames of a file, and their size. Raises ValueError that names the option."""

    num_frames: int
    """At most so many."""
    sample_rate: int = 1
    """Every so many frames one."""
    resolution: int | None = None
    """Pixels that the shorter side is resized to."""
    crop_size: int | None = None
    """Side of the square that is cut out of the middle, after resizing."""
    multiple: int = 1
    """Height and width are cut to multiples of it."""

    def __post_init__(self) -> None:
        for name in ("num_frames", "sample_rate", "resolution", "crop_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} is too small: use 1 or more")
        if self.crop_size is not None and self.crop_size % self.multiple:
            near = max(round(self.crop_size / self.multiple), 1) * self.multiple
            raise ValueError(
                f"crop_size {self.crop_size} is not a multiple of {self.multiple}, the autoencoder's stride: use {near}"
            )
        if self.crop_size is not None and self.resolution is not None and self.crop_size > self.resolution:
            raise ValueError(
                f"crop_size {self.crop_size} is larger than resolution {self.resolution}: use {self.resolution} or less"
            )

    def read(self, path: Path, start: int = 0) -> np.ndarray:
        """The frames from `start`, uint8 (T, H, W, 3), as many as there are up to num_frames. Raises ValueError that names the file."""
        frames = islice(iter_frames(path, self.sample_rate, start), self.num_frames)
        parts = []
        while chunk := list(islice(frames, FRAMES_AT_ONCE)):
            parts.append(self._fit(path, np.stack(chunk)))
        if not parts:
            raise ValueError(f"{path} has no frame {start}: it is damaged or empty")
        return np.concatenate(parts)

    def _fit(self, path: Path, frames: np.ndarray) -> np.ndarray:
        if self.resolution is not None and min(frames.shape[1:3]) != self.resolution:
            resized = short_side_resize(to_float(frames), self.resolution)  # (T, C, H, W)
            frames = np.rint(np.clip(resized, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        height, width = frames.shape[1:3]
        size = (height // self.multiple * self.multiple, width // self.multiple * self.multiple)
        if self.crop_size is not None:
            size = (self.crop_size, self.crop_size)
        if not all(size) or size[0] > height or size[1] > width:
            least = self.crop_size or self.multiple
            raise ValueError(
                f"{path} has frames of {height}x{width}, less than {least}x{least}: enlarge them with --resolution {least}"
            )
        return center_crop(frames.transpose(0, 3, 1, 2), size).transpose(0, 2, 3, 1)


def media_files(folder: Path) -> list[Path]:
    """Video and picture files of a folder by their endings, in order of their names; hidden ones and subfolders are passed over.

    Raises ValueError for a folder that does not exist or has none.
    """
    if not folder.is_dir():
        raise ValueError(f"folder {folder} does not exist: check the path")
    found = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    media = sorted(path for path in found if path.suffix.lower() in MEDIA_SUFFIXES)
    if not media:
        raise ValueError(
            f"folder {folder} has no video or picture: files that end in {', '.join(MEDIA_SUFFIXES)} are read"
        )
    return media


def listed_files(listing: Path, folder: Path) -> list[Path]:
    """The files of a folder that a list names: a line each (.txt), a column video or path, else the first (.csv), or .json, an
    array of names or of objects with "path". Raises ValueError for another list and for names outside the folder or twice in the list.
    """
    try:
        names = _read_list(listing)
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(
            f"data_file_path {listing} cannot be read ({error}): give a .txt, .csv or .json list of files"
        ) from error
    if not names:
        raise ValueError(f"data_file_path {listing} names no file: write one a line")
    paths = []
    for name in names:
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(
                f"data_file_path {listing} names {name!r}, which is outside {folder}: write paths relative to the folder"
            )
        if path in paths:
            raise ValueError(f"data_file_path {listing} names {name!r} twice: remove one")
        paths.append(path)
    return paths


def _read_list(listing: Path) -> list[str]:
    text = listing.read_text(encoding="utf-8-sig")
    if listing.suffix == ".csv":
        rows = csv.DictReader(text.splitlines())
        column = next(
            (name for name in COLUMNS if name in (rows.fieldnames or ())), (rows.fieldnames or ("",))[0]
        )
        return [row[column] for row in rows if row[column]]
    if listing.suffix == ".json":
        content = json.loads(text)
        if not isinstance(content, list):
            raise ValueError(f"it holds a {type(content).__name__}")
        return [_path_of(item) for item in content]
    if listing.suffix != ".txt":
        raise ValueError("its ending is unknown")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _path_of(item: Any) -> str:
    name = item.get("path") if isinstance(item, dict) else item
    if not isinstance(name, str):
        raise ValueError(f"{item!r} names no file")
    return name


def read_ahead(
    read: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Callable[[], Result]]]:
    """Each item with a function that returns what `read` makes of it, or raises what it raised; `workers` items are read beforehand."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        rest = iter(items)
        for item in islice(rest, max(workers, 1)):
            waiting.append((item, pool.submit(read, item)))
        while waiting:
            item, future = waiting.popleft()
            yield item, future.result
            waiting.extend((following, pool.submit(read, following)) for following in islice(rest, 1))
