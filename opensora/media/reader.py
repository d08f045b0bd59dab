"""Reading videos, animations and pictures. Frames are numpy uint8 (T, H, W, 3), RGB."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation
from PIL import Image

STILL_SUFFIXES = (".png", ".jpg", ".jpeg")
PICTURE_SUFFIXES = (".gif", ".webp", *STILL_SUFFIXES)
VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".webm",
    ".mkv",
    ".avi",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".ogv",
    ".ts",
    ".3gp",
)
DEFAULT_FPS = 24
# The scaler's default arithmetic darkens decoded pixels by one or two levels.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


class VideoInfo(NamedTuple):
    frames: int
    fps: float
    height: int
    width: int


def probe(path: str | Path) -> VideoInfo:
    """Size, rate and number of frames of a video or picture file. Raises ValueError naming a file that cannot be read."""
    path = Path(path)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        with _opened_picture(path) as picture:
            picture.load()  # WebP tells the duration of a frame only then
            duration = picture.info.get("duration", 0)
            return VideoInfo(
                getattr(picture, "n_frames", 1),
                1000 / duration if duration else float(DEFAULT_FPS),
                picture.height,
                picture.width,
            )
    with _opened_video(path) as (container, stream):
        # Some containers do not store the number of frames: then the packets are counted, without decoding.
        frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        return VideoInfo(frames, float(_rate(stream)), stream.height, stream.width)


def read_video(
    path: str | Path, num_frames: int | None = None, sample_rate: int = 1, start: int = 0
) -> np.ndarray:
    """Frames start, start + sample_rate, ... of a video, an animation or a picture -> uint8 (T, H, W, 3).

    `num_frames` None reads to the end. Transparent pictures are put on white. Raises ValueError naming a file that
    cannot be read or has too few frames.
    """
    frames = list(islice(iter_frames(path, sample_rate, start), num_frames))
    if not frames or (num_frames is not None and len(frames) < num_frames):
        wanted = start + ((num_frames or 1) - 1) * sample_rate + 1
        raise ValueError(
            f"{path} is too short: {wanted} frames are needed (from frame {start}, every {sample_rate}), it has {probe(path).frames}"
        )
    return np.stack(frames)


def small_frames(path: str | Path, height: int, width: int) -> Iterator[np.ndarray]:
    """Every frame of a video or animation, reduced to uint8 (height, width, 3), one after the other. Raises ValueError as `read_video`."""
    path = Path(path)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        for frame in _picture_frames(path, 0, 1):
            yield np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))
    else:
        yield from _video_frames(path, 0, 1, (height, width))


def iter_frames(path: str | Path, sample_rate: int = 1, start: int = 0) -> Iterator[np.ndarray]:
    """Frames start, start + sample_rate, ... to the end, uint8 (H, W, 3), one at a time; ValueError names a file that cannot be read."""
    path = Path(path)
    read = _picture_frames if path.suffix.lower() in PICTURE_SUFFIXES else _video_frames
    return read(path, start, sample_rate)


@contextmanager
def _opened_picture(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except (
        Exception
    ) as error:  # of damaged files Pillow's readers raise anything, IndexError and struct.error included
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def _picture_frames(path: Path, start: int, sample_rate: int) -> Iterator[np.ndarray]:
    with _opened_picture(path) as picture:
        for number in range(start, getattr(picture, "n_frames", 1), sample_rate):
            picture.seek(number)
            frame = picture.convert("RGBA")
            yield np.asarray(
                Image.alpha_composite(Image.new("RGBA", frame.size, "white"), frame).convert("RGB")
            )


@contextmanager
def _opened_video(path: Path) -> Iterator[tuple[Any, Any]]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no video")
            if container.streams.video[0].codec_context is None:
                raise ValueError(f"{path} holds a video of an unknown codec")
            yield container, container.streams.video[0]
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a video: {error}") from error


def _video_frames(
    path: Path, start: int, sample_rate: int, size: tuple[int, int] | None = None
) -> Iterator[np.ndarray]:
    with _opened_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        first = stream.start_time or 0
        ticks = stream.time_base * _rate(stream)  # frames per tick
        if start:
            # One frame early: streams with reordered frames may land after the asked one.
            container.seek(first + max(0, int((start - 1) / ticks)), stream=stream)
        wanted, size = start, size or (stream.height, stream.width)
        for number, frame in enumerate(container.decode(stream)):
            index = number if frame.pts is None else round((frame.pts - first) * ticks)
            if index < wanted:
                continue
            pixels = frame.to_ndarray(format="rgb24", height=size[0], width=size[1], interpolation=EXACT)
            # A frame that is shown for longer than the average, in a file of variable rate, stands for several.
            while index >= wanted:
                yield pixels
                wanted += sample_rate


def _rate(stream: Any) -> Fraction:
    """Frames per second; some containers tell only what they guess, or nothing."""
    return stream.average_rate or stream.guessed_rate or Fraction(DEFAULT_FPS)
