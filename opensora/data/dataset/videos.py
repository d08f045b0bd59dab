"""Clips for training an autoencoder: squares cut out of videos, each a function of (seed, number) and of nothing else.

    train, held_out = split(find_videos("videos"), num_frames=17)
    clips = VideoClips(train, seed=0, num_frames=17, size=256)
    clips.clip(5)       # uint8 (T, H, W, 3)

Every video gives one clip in an epoch, in an order of the epoch's own.
"""

import logging
import os
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opensora.data.lists.records import scan
from opensora.data.transforms import center_crop, frame_indices, random_crop, resize
from opensora.demo_data.render import DemoClips
from opensora.media.reader import PICTURE_SUFFIXES, probe, read_video

log = logging.getLogger(__name__)

SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", *PICTURE_SUFFIXES)
EVERY_NTH = 20
"""Of that many videos one is held out; of fewer, the last tenth of each."""


class Part(NamedTuple):
    """Frames `first` to `last`, the latter not included, of a video; None is its end."""

    path: Path
    first: int = 0
    last: int | None = None


class VideoClips:
    """An endless sequence of clips. A video that cannot be read is named once, and the next of the epoch's order takes its place."""

    def __init__(
        self,
        parts: Sequence[Part],
        seed: int,
        num_frames: int,
        size: int,
        sample_rate: int = 1,
        dynamic_sample: bool = False,
        random_crop: bool = False,
    ) -> None:
        """size: height and width of a clip. sample_rate: every n-th frame; with dynamic_sample n is drawn from 1 to that."""
        self.parts, self.seed, self.num_frames, self.size = list(parts), seed, num_frames, size
        self.sample_rate, self.dynamic_sample, self.random_crop = sample_rate, dynamic_sample, random_crop
        self._named: set[Path] = set()

    def clip(self, number: int) -> np.ndarray:
        """uint8 (T, H, W, 3). Raises ValueError when no video can be read."""
        for attempt in range(len(self.parts)):
            part = self._part(number, attempt)
            try:
                return self._read(part, np.random.default_rng([self.seed, number]))
            except ValueError as error:
                if part.path not in self._named:
                    self._named.add(part.path)
                    log.warning("%s; other videos take its place", error)
        raise ValueError(
            f"none of the {len(self.parts)} videos can be read, the last tried was {part.path}: check the files"
        )

    def name(self, number: int) -> str:
        """The file that a clip is cut out of, if it can be read."""
        return str(self._part(number, 0).path)

    def _part(self, number: int, attempt: int) -> Part:
        epoch, place = divmod(number, len(self.parts))
        order = _order(self.seed, epoch, len(self.parts))
        return self.parts[order[(place + attempt) % len(order)]]

    def _read(self, part: Part, rng: np.random.Generator) -> np.ndarray:
        last = _number_of_frames(part.path) if part.last is None else part.last
        rate = int(rng.integers(1, self.sample_rate + 1)) if self.dynamic_sample else self.sample_rate
        try:
            indices = part.first + frame_indices(last - part.first, self.num_frames, rate, rng)
        except ValueError as error:
            raise ValueError(f"{part.path}: {error}") from error
        step = int(indices[1] - indices[0]) if self.num_frames > 1 else 1
        frames = read_video(part.path, self.num_frames, step, int(indices[0])).transpose(
            0, 3, 1, 2
        )  # (T, 3, H, W)
        side = min(frames.shape[2:])
        square = random_crop(frames, side, rng) if self.random_crop else center_crop(frames, side)
        # One frame at a time: 65 frames of 1080p in float32 take 1.6 GB.
        resized = [resize(frame[None].astype(np.float32), (self.size, self.size))[0] for frame in square]
        return np.round(np.stack(resized)).astype(np.uint8).transpose(0, 2, 3, 1)


class DemoPixels:
    """Clips of the demo data set without their captions."""

    def __init__(self, clips: DemoClips) -> None:
        self._clips = clips

    def clip(self, number: int) -> np.ndarray:
        """uint8 (T, H, W, 3)."""
        return self._clips[number].video

    def name(self, number: int) -> str:
        """Which draw of the data set it is."""
        return f"demo clip {number}"


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    order: list[int] = np.random.default_rng([seed, epoch, count]).permutation(count).tolist()
    return order


@cache
def _number_of_frames(path: Path) -> int:
    return probe(path).frames


def find_videos(path: str | Path) -> list[Path]:
    """A file itself, or the videos and pictures in a folder and those below it, in the order of their names. Raises ValueError for none."""
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"video_path {path} does not exist: name a folder of videos or a video")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not found:
        raise ValueError(f"{path} holds no videos: files must end in {', '.join(SUFFIXES)}")
    return found


def listed_videos(
    data_file: str | Path, column: str = "video", folder: str | Path | None = None
) -> list[Path]:
    """The files that a .csv, .json or .jsonl list names in `column`, from `folder` or from the list's own.

    Raises ValueError for a list that cannot be read, lacks the column, or names a file outside of that folder.
    """
    data_file = Path(data_file)
    root = Path(os.path.normpath(data_file.parent if folder is None else folder))
    paths = []
    for number, record in enumerate(scan(data_file), 1):
        name = record.content.get(column)
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"record {number} of {data_file} has no {column!r}: name the column of the files with --video_column"
            )
        path = Path(os.path.normpath(root / name))
        if not path.is_relative_to(root):
            raise ValueError(
                f"record {number} of {data_file} names {name}, which is outside of {root}: name its folder with --video_path"
            )
        paths.append(path)
    if not paths:
        raise ValueError(f"{data_file} names no videos")
    return paths


def split(paths: Sequence[Path], num_frames: int) -> tuple[list[Part], list[Part]]:
    """(what to train on, what to hold out): one video of twenty, or where there are fewer the last tenth of each that is long enough.

    A tail is no shorter than `num_frames`. Raises ValueError when nothing can be held out.
    """
    if len(paths) >= EVERY_NTH:
        held_out = set(range(EVERY_NTH - 1, len(paths), EVERY_NTH))
        return [Part(path) for i, path in enumerate(paths) if i not in held_out], [
            Part(paths[i]) for i in sorted(held_out)
        ]
    train, tails = [], []
    for path in paths:
        try:
            total = _number_of_frames(path)
        except ValueError:
            train.append(Part(path))  # it is named, and replaced, when a clip is cut out of it
            continue
        cut = total - max(total // 10, num_frames)
        train.append(Part(path, 0, cut) if cut >= num_frames else Part(path))
        if cut >= num_frames:
            tails.append(Part(path, cut, total))
    if not tails:
        raise ValueError(
            f"no video can be split into {num_frames} frames to train on and {num_frames} to hold out: name others to validate on with "
            "--validation_video_path"
        )
    return train, tails
