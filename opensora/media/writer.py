"""Write videos, animations and pictures. Frames are numpy uint8 (T, H, W, 3), RGB."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from opensora.files import atomic_path
from opensora.media.formats import STILL_SUFFIXES
from opensora.media.mp4 import Mp4Writer


def write_video(path: str | Path, frames: np.ndarray, fps: float = 24) -> None:
    """Write uint8 frames (T, H, W, 3) as .mp4, .gif or .webp, or a single frame as .png or .jpg.

    The same frames give the same bytes. mp4 is H.264 that browsers play; an odd height or width grows by one
    row or column, a copy of the last. gif and webp store a run of identical frames once, with a longer
    duration. The file appears complete or not at all. Raises ValueError that names a path that cannot be
    written.
    """
    path = Path(path)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(
            f"{path}: frames must be uint8 (T, H, W, 3) with T > 0, got {frames.dtype} {frames.shape}"
        )
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
    writer = Mp4Writer(path, fps)
    try:
        for frame in frames:
            writer.write(frame)
        writer.finish()
    finally:
        writer.close()


def _write_gif(path: Path, frames: np.ndarray, fps: float) -> None:
    pictures = [Image.fromarray(frame).quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    # The format counts hundredths of a second.
    _write_pictures(path, pictures, "GIF", duration=max(2, round(100 / fps)) * 10, disposal=1)


def _write_webp(path: Path, frames: np.ndarray, fps: float) -> None:
    _write_pictures(
        path, [Image.fromarray(frame) for frame in frames], "WEBP", duration=round(1000 / fps), quality=90
    )


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
