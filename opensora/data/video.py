"""Videos and pictures in and out of files. Frames are numpy uint8 (T, H, W, 3), RGB."""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation
from PIL import Image

from opensora.weights.saving import atomic_path, write_atomic

STILL_SUFFIXES = (".png", ".jpg", ".jpeg")
PICTURE_SUFFIXES = (".gif", ".webp", *STILL_SUFFIXES)
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".ts", ".3gp")
DEFAULT_FPS = 24
# The scaler's default arithmetic darkens decoded pixels by one or two levels.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
LONGEST_NAME = 120  # bytes; file systems allow 255, and suffixes and temporary names need room


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
                getattr(picture, "n_frames", 1), 1000 / duration if duration else float(DEFAULT_FPS), picture.height, picture.width
            )
    with _opened_video(path) as (container, stream):
        # Some containers do not store the number of frames: then the packets are counted, without decoding.
        frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        return VideoInfo(frames, float(_rate(stream)), stream.height, stream.width)


def read_video(path: str | Path, num_frames: int | None = None, sample_rate: int = 1, start: int = 0) -> np.ndarray:
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


def to_pixels(frames: np.ndarray) -> np.ndarray:
    """uint8 (B, T, H, W, 3) -> float32 (B, 3, T, H, W) in [-1, 1], what the autoencoder takes."""
    return np.ascontiguousarray(frames.transpose(0, 4, 1, 2, 3), dtype=np.float32) / 127.5 - 1.0


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """float (B, 3, T, H, W), about [-1, 1] -> uint8 (B, T, H, W, 3). Values are cut off below, not rounded, as in the reference."""
    return (np.clip(pixels / 2 + 0.5, 0.0, 1.0) * 255).astype(np.uint8).transpose(0, 2, 3, 4, 1)


@contextmanager
def _opened_picture(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except Exception as error:  # of damaged files Pillow's readers raise anything, IndexError and struct.error included
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def _picture_frames(path: Path, start: int, sample_rate: int) -> Iterator[np.ndarray]:
    with _opened_picture(path) as picture:
        for number in range(start, getattr(picture, "n_frames", 1), sample_rate):
            picture.seek(number)
            frame = picture.convert("RGBA")
            yield np.asarray(Image.alpha_composite(Image.new("RGBA", frame.size, "white"), frame).convert("RGB"))


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


def _video_frames(path: Path, start: int, sample_rate: int, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
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


def write_video(path: str | Path, frames: np.ndarray, fps: float = 24) -> None:
    """Write uint8 frames (T, H, W, 3) in the format that the suffix names: .mp4, .gif, .webp, or .png and .jpg for a single frame.

    The same frames give the same bytes. mp4 is H.264 that browsers play; an odd height or width gets one more row or
    column, a copy of the last. Gif and webp store a run of identical frames once, with a longer duration.
    The file appears complete or not at all. Raises ValueError naming a path that cannot be written.
    """
    path = Path(path)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(f"{path}: frames must be uint8 (T, H, W, 3) with T > 0, got {frames.dtype} {frames.shape}")
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"{path} cannot be written: choose a name that ends in {', '.join(WRITERS)}")
    if path.suffix.lower() in STILL_SUFFIXES and len(frames) > 1:
        raise ValueError(f"{path} cannot hold {len(frames)} frames: choose .mp4, .gif or .webp")
    try:
        with atomic_path(path) as temporary:
            WRITERS[path.suffix.lower()](temporary, frames, fps)
    except (OSError, av.error.FFmpegError) as error:
        raise ValueError(f"{path} cannot be written: {error}") from error


def _write_mp4(path: Path, frames: np.ndarray, fps: float) -> None:
    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        # More threads would cut the frames differently, and the bytes would depend on the machine. Macroblock trees are summed in
        # code that reads past small frames: one in about thirty encodings of 32x32 pixels came out different.
        options = {"crf": "17", "preset": "medium", "threads": "1", "mbtree": "0", "colorspace": "smpte170m"}
        stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width, stream.pix_fmt = even.shape[1], even.shape[2], "yuv420p"
        for pixels in even:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _write_gif(path: Path, frames: np.ndarray, fps: float) -> None:
    pictures = [Image.fromarray(frame).quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    # The format counts in hundredths of a second.
    _write_pictures(path, pictures, "GIF", duration=max(2, round(100 / fps)) * 10, disposal=1)


def _write_webp(path: Path, frames: np.ndarray, fps: float) -> None:
    _write_pictures(path, [Image.fromarray(frame) for frame in frames], "WEBP", duration=round(1000 / fps), quality=90)


def _write_pictures(path: Path, pictures: list[Image.Image], kind: str, **options: Any) -> None:
    pictures[0].save(path, kind, save_all=True, append_images=pictures[1:], loop=0, **options)


def _write_png(path: Path, frames: np.ndarray, fps: float) -> None:
    Image.fromarray(frames[0]).save(path, "PNG")


def _write_jpeg(path: Path, frames: np.ndarray, fps: float) -> None:
    Image.fromarray(frames[0]).save(path, "JPEG", quality=95)


WRITERS: dict[str, Callable[[Path, np.ndarray, float], None]] = {
    ".mp4": _write_mp4,
    ".gif": _write_gif,
    ".webp": _write_webp,
    ".png": _write_png,
    ".jpg": _write_jpeg,
}


def write_json(path: str | Path, content: Any) -> None:
    """Write indented UTF-8 json; the file appears complete or not at all."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomic(path, lambda file: file.write(text.encode()))


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no such file or it holds something else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def contact_sheet(frames: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Frames (T, H, W, 3) side by side, row by row -> one picture, uint8 (rows*H, columns*W, 3); empty places are white.

    Without `columns` the grid is as square as it can be.
    """
    length, height, width, _ = frames.shape
    columns = min(columns or math.ceil(math.sqrt(length)), length)
    rows = math.ceil(length / columns)
    cells = np.full((rows * columns, height, width, 3), 255, np.uint8)
    cells[:length] = frames
    return cells.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def safe_name(prompt: str, index: int) -> str:
    """A file name, without suffix, that any file system takes: the index, then what is left of the prompt.

    Letters and digits of every script stay, all else becomes one underscore. The index in front keeps names different
    and clear of those that Windows reserves.
    """
    words = re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", prompt)).strip("_")
    shortened = words.encode("utf-8", "ignore")[:LONGEST_NAME].decode("utf-8", "ignore").strip("_")
    return f"{index:04d}-{shortened}" if shortened else f"{index:04d}"
