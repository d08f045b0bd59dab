"""Read videos, animations and pictures. Frames are numpy uint8 (T, H, W, 3), RGB.

`_Picture` and `_Video` give an open file's `info` and `frames`; the public functions know nothing else about
decoders.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import numpy as np
from av.video.reformatter import Interpolation
from PIL import Image

from opensora.media.formats import PICTURE_SUFFIXES

DEFAULT_FPS = 24
# The scaler's default arithmetic darkens decoded pixels by one or two levels.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT

FrameSize = tuple[int, int]  # height, width


class VideoInfo(NamedTuple):
    """Number of frames, frames per second, and size in pixels."""

    frames: int
    fps: float
    height: int
    width: int


def probe(path: str | Path) -> VideoInfo:
    """Length, rate and size of a video or picture.

    Raises ValueError that names a file that cannot be read.
    """
    with _opened(Path(path)) as media:
        return media.info()


def read_video(
    path: str | Path, num_frames: int | None = None, sample_rate: int = 1, start: int = 0
) -> np.ndarray:
    """Read frames start, start + sample_rate, ... of a video or picture -> uint8 (T, H, W, 3).

    Without `num_frames` it reads to the end. Transparent pictures are put on white. Raises ValueError that
    names a file that cannot be read or has too few frames.
    """
    frames = list(islice(iter_frames(path, sample_rate, start), num_frames))
    if not frames or (num_frames is not None and len(frames) < num_frames):
        needed = start + ((num_frames or 1) - 1) * sample_rate + 1
        raise ValueError(
            f"{path} is too short: {needed} frames are needed (from frame {start}, every {sample_rate}), "
            f"it has {probe(path).frames}"
        )
    return np.stack(frames)


def iter_frames(
    path: str | Path, sample_rate: int = 1, start: int = 0, size: FrameSize | None = None
) -> Iterator[np.ndarray]:
    """Yield frames start, start + sample_rate, ..., each uint8 (H, W, 3), resized to `size` if given.

    Raises ValueError that names a file that cannot be read.
    """
    with _opened(Path(path)) as media:
        yield from media.frames(start, sample_rate, size)


class _Media(Protocol):
    """An open file."""

    def info(self) -> VideoInfo: ...

    def frames(self, start: int, sample_rate: int, size: FrameSize | None) -> Iterator[np.ndarray]: ...


@contextmanager
def _opened(path: Path) -> Iterator[_Media]:
    """Open a file, and report whatever its decoder raises as one ValueError that names the file."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    is_picture = path.suffix.lower() in PICTURE_SUFFIXES
    try:
        if is_picture:
            with Image.open(path) as picture:
                yield _Picture(picture)
        else:
            with av.open(str(path), metadata_errors="replace") as container:
                yield _Video(container)
    except (
        Exception
    ) as error:  # decoders raise anything for damaged files, IndexError and struct.error included
        kind = "picture" if is_picture else "video"
        raise ValueError(f"{path} cannot be read as a {kind}: {error}") from error


class _Picture:
    """A picture or an animation in Pillow."""

    def __init__(self, picture: Image.Image) -> None:
        self._picture = picture
        self._length = getattr(picture, "n_frames", 1)

    def info(self) -> VideoInfo:
        self._picture.load()  # a WebP file knows the duration of its frames only then
        duration = self._picture.info.get("duration", 0)  # milliseconds
        fps = 1000 / duration if duration else float(DEFAULT_FPS)
        return VideoInfo(self._length, fps, self._picture.height, self._picture.width)

    def frames(self, start: int, sample_rate: int, size: FrameSize | None) -> Iterator[np.ndarray]:
        for number in range(start, self._length, sample_rate):
            self._picture.seek(number)
            frame = self._picture.convert("RGBA")
            frame = Image.alpha_composite(Image.new("RGBA", frame.size, "white"), frame).convert("RGB")
            if size is not None:
                frame = frame.resize((size[1], size[0]), Image.Resampling.BOX)
            yield np.asarray(frame)


class _Video:
    """The first video stream of a file in PyAV."""

    def __init__(self, container: Any) -> None:
        if not container.streams.video:
            raise ValueError("it has no video stream")
        self._container, self._stream = container, container.streams.video[0]
        if self._stream.codec_context is None:
            raise ValueError("its codec is unknown")
        # Some containers store a guess only, or nothing.
        self._fps = self._stream.average_rate or self._stream.guessed_rate or Fraction(DEFAULT_FPS)

    def info(self) -> VideoInfo:
        stream = self._stream
        # Where the container does not store the number of frames, packets are counted without decoding.
        length = stream.frames or sum(packet.size > 0 for packet in self._container.demux(stream))
        return VideoInfo(length, float(self._fps), stream.height, stream.width)

    def frames(self, start: int, sample_rate: int, size: FrameSize | None) -> Iterator[np.ndarray]:
        stream = self._stream
        stream.thread_type = "AUTO"
        first_tick = stream.start_time or 0
        frames_per_tick = stream.time_base * self._fps
        if start:
            # Seek one frame early: in streams with reordered frames the seek may land behind its target.
            target = first_tick + max(0, int((start - 1) / frames_per_tick))
            self._container.seek(target, stream=stream)
        height, width = size or (stream.height, stream.width)
        wanted = start
        for number, frame in enumerate(self._container.decode(stream)):
            index = number if frame.pts is None else round((frame.pts - first_tick) * frames_per_tick)
            if index < wanted:
                continue
            pixels = frame.to_ndarray(format="rgb24", height=height, width=width, interpolation=EXACT)
            # With a variable rate, a frame that is shown for longer than the average stands for several.
            while index >= wanted:
                yield pixels
                wanted += sample_rate
