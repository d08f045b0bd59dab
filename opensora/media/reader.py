"""Read videos, animations, pictures, and folders of numbered pictures.

Frames are numpy uint8 (T, H, W, 3), RGB, upright, at a constant rate. All functions count frames on the
file's timeline (`timeline.py`); with `fps`, they count at that rate.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opensora.media import pictures, sequences, video
from opensora.media.errors import reading_fault
from opensora.media.formats import PICTURE_SUFFIXES, media_files

FrameSize = tuple[int, int]  # height, width
Facts = pictures.PictureFacts | sequences.SequenceFacts | video.VideoFacts
SETTLED = 2 * 10**9  # nanoseconds; a file that changed since may change again without a new time
MAX_BYTES = 2**32  # of an array that `read_video` returns


class VideoInfo(NamedTuple):
    """Number of frames, frames per second, and size in pixels."""

    frames: int
    fps: float
    height: int
    width: int


def probe(path: str | Path, fps: float | None = None) -> VideoInfo:
    """Length, rate and size of a video or picture.

    fps: count the frames at this rate. Raises ValueError that names a file that cannot be read.
    """
    return _info(_facts(Path(path)), fps)


def read_video(
    path: str | Path,
    num_frames: int | None = None,
    sample_rate: int = 1,
    start: int = 0,
    fps: float | None = None,
) -> np.ndarray:
    """Read frames start, start + sample_rate, ... of a video or picture -> uint8 (T, H, W, 3).

    Without `num_frames` it reads to the end. fps: resample the video to this rate first; frame k is the one
    shown at k/fps seconds. Transparent pictures and videos are put on white. Raises ValueError that names a
    file that cannot be read, has too few frames or is too large.
    """
    path = Path(path)
    facts = _facts(path)
    info = _info(facts, fps)
    length = len(range(start, info.frames, sample_rate)) if num_frames is None else num_frames
    if not length or start + (length - 1) * sample_rate >= info.frames:
        needed = start + (max(length, 1) - 1) * sample_rate + 1
        raise ValueError(
            f"{path} is too short: {needed} frames are needed (from frame {start}, every {sample_rate}), "
            f"it has {info.frames}"
        )
    shape = (length, info.height, info.width, 3)
    if np.prod(shape, dtype=float) > MAX_BYTES:
        raise ValueError(
            f"{path}: {length} frames of {info.height}x{info.width} take more than {MAX_BYTES // 2**30} GiB: "
            "read fewer at once"
        )
    frames = np.empty(shape, np.uint8)
    slots = facts.timeline.slots(start, sample_rate, fps)
    for number, frame in enumerate(islice(_frames(path, facts, slots, None), length)):
        frames[number] = frame
    return frames


def read_result(path: str | Path) -> np.ndarray:
    """Read a video or picture, or a folder of pictures as a video -> uint8 (T, H, W, 3).

    Raises ValueError for what cannot be read, and for pictures of several sizes.
    """
    if not Path(path).is_dir():
        return read_video(path)
    frames = [read_video(picture, 1) for picture in media_files(path)]
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError(f"{path} holds pictures of several sizes: the frames of a video have one size")
    return np.concatenate(frames)


def iter_frames(
    path: str | Path,
    sample_rate: int = 1,
    start: int = 0,
    size: FrameSize | None = None,
    fps: float | None = None,
) -> Iterator[np.ndarray]:
    """Yield frames start, start + sample_rate, ..., each uint8 (H, W, 3), resized to `size` if given.

    A frame that is held is yielded several times as one array. Raises ValueError that names a file that
    cannot be read.
    """
    path = Path(path)
    facts = _facts(path)
    yield from _frames(path, facts, facts.timeline.slots(start, sample_rate, fps), size)


def frames_between(path: str | Path, start: int, end: int | None, fps: float | None = None) -> range:
    """The frames at rate `fps` that show frames `start` to `end` of the file's own rate, `end` excluded.

    end: None is the end of the file. Raises ValueError, with the file's name, if it cannot be read.
    """
    return _facts(Path(path)).timeline.between(start, end, fps)


def _info(facts: Facts, fps: float | None) -> VideoInfo:
    timeline = facts.timeline
    rate = float(timeline.rate) if fps is None or timeline.is_still else fps
    return VideoInfo(timeline.count(fps), rate, *facts.size)


def _frames(path: Path, facts: Facts, slots: Iterator[int], size: FrameSize | None) -> Iterator[np.ndarray]:
    with _naming(path):
        if isinstance(facts, sequences.SequenceFacts):
            yield from sequences.read_frames(path, facts, slots, size)
        elif isinstance(facts, pictures.PictureFacts):
            yield from pictures.read_frames(path, facts, slots, size)
        else:
            yield from video.read_frames(path, facts, slots, size)


def _facts(path: Path) -> Facts:
    if not path.is_file() and not path.is_dir():
        raise ValueError(f"{path} is no file" if path.exists() else f"{path} does not exist")
    status = path.stat()
    if time.time_ns() - status.st_mtime_ns < SETTLED:
        return _describe(path)
    return _remembered(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=65536)
def _remembered(path: Path, identity: tuple[int, ...]) -> Facts:
    """Some files have to be read through. `identity` tells a file that changed, or one of another folder."""
    return _describe(path)


def _describe(path: Path) -> Facts:
    with _naming(path):
        if path.is_dir():
            return sequences.describe(path)
        return pictures.describe(path) if _is_picture(path) else video.describe(path)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Report whatever a decoder raises as one ValueError that names the file."""
    try:
        yield
    except Exception as error:  # of damaged files: IndexError and struct.error included
        kind = "picture" if _is_picture(path) else "video"
        raise ValueError(f"{path} cannot be read as a {kind}: {reading_fault(path, error)}") from error
