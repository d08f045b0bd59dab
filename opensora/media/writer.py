"""Write videos, animations and pictures. Frames are numpy uint8 (T, H, W, 3), RGB."""

import io
import logging
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from opensora.files import atomic_path, scratch_folder, sync_folder
from opensora.media.errors import writing
from opensora.media.formats import STILL_SUFFIXES
from opensora.media.mp4 import CONTAINERS, VideoWriter
from opensora.media.pictures import DESCRIPTION_TAG, description
from opensora.media.timeline import as_rate

log = logging.getLogger(__name__)

FASTEST_GIF = 50  # frames per second: browsers slow down whatever has a delay below 2/100 s


def write_video(path: str | Path, frames: np.ndarray, fps: float = 24) -> None:
    """Write uint8 frames (T, H, W, 3) as a file, by the ending of `path`, one of WRITERS.

    The same frames give the same bytes. .mp4, .mov, .mkv (H.264) and .webm (VP9) play in browsers; an odd
    height or width grows by one row or column, a copy of the last. .gif and .webp store a run of identical
    frames once, with a longer duration; a gif plays at 50 frames per second at most, which is said. .png and
    .jpg hold a single frame. The file appears complete or not at all. Raises ValueError that names a path
    that cannot be written, OSError for a full disk.
    """
    path = Path(path)
    check_frames(frames)
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"{path} cannot be written: choose a name that ends in {', '.join(WRITERS)}")
    if path.suffix.lower() in STILL_SUFFIXES and len(frames) > 1:
        raise ValueError(
            f"{path} cannot hold {len(frames)} frames: choose .mp4, .gif or .webp, or a folder of pictures"
        )
    with writing(path), atomic_path(path) as temporary:
        WRITERS[path.suffix.lower()](temporary, frames, fps)


def write_result(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames as a file by the ending of `path`, or as a folder of pictures if it has none."""
    if path.suffix:
        write_video(path, frames, fps)
    else:
        write_folder(path, frames)


def write_folder(folder: str | Path, frames: np.ndarray) -> None:
    """Write uint8 frames (T, H, W, 3) as 00000.png, 00001.png, ... in a new folder.

    The folder appears complete or not at all. Raises ValueError if it has files, or cannot be written.
    """
    folder = Path(folder)
    check_frames(frames)
    with writing(folder):
        with scratch_folder(folder.parent) as scratch:
            made = scratch / folder.name
            made.mkdir()
            for number, frame in enumerate(frames):
                _write_still(made / f"{number:05d}.png", frame, "PNG")
            made.rename(folder)  # replaces an empty folder, and no other
        sync_folder(folder.parent)


def check_frames(frames: Any) -> None:
    """Raise TypeError for what is no array, and ValueError for another array than one of frames."""
    if not isinstance(frames, np.ndarray):
        raise TypeError(f"frames must be an array, not {type(frames).__name__}")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(f"frames must be uint8 (T, H, W, 3) with T > 0, got {frames.dtype} {frames.shape}")


def _write_container(path: Path, frames: np.ndarray, fps: float) -> None:
    writer = VideoWriter(path, fps)
    try:
        for frame in frames:
            writer.write(frame)
        writer.finish()
    finally:
        writer.close()


def _write_gif(path: Path, frames: np.ndarray, fps: float) -> None:
    rate = as_rate(fps)
    if rate > FASTEST_GIF:
        log.info("a GIF plays at %d frames per second at most, not %g", FASTEST_GIF, fps)
        rate = Fraction(FASTEST_GIF)
    pictures = [Image.fromarray(frame).quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    delays = [10 * delay for delay in _delays(len(frames), rate, 100)]  # the format counts in 1/100 s
    comment = description(len(frames), rate).encode()
    _write_pictures(path, pictures, "GIF", duration=delays, disposal=1, comment=comment)


def _write_webp(path: Path, frames: np.ndarray, fps: float) -> None:
    rate = as_rate(fps)
    pictures = [Image.fromarray(frame) for frame in frames]
    exif = Image.Exif()
    exif[DESCRIPTION_TAG] = description(len(frames), rate)
    delays = _delays(len(frames), rate, 1000)
    _write_pictures(path, pictures, "WEBP", duration=delays, quality=90, exif=exif)


def _delays(count: int, rate: Fraction, units: int) -> list[int]:
    """Delays in whole units of 1/units s that average to the rate: 24 fps in GIF gives 4, 4, 5, ..."""
    delays: list[int] = np.diff(np.rint(np.arange(count + 1) * float(units / rate))).astype(int).tolist()
    return delays


def _write_pictures(path: Path, pictures: list[Image.Image], kind: str, **options: Any) -> None:
    pictures[0].save(path, kind, save_all=True, append_images=pictures[1:], loop=0, **options)


def _write_png(path: Path, frames: np.ndarray, fps: float) -> None:
    _write_still(path, frames[0], "PNG")


def _write_jpeg(path: Path, frames: np.ndarray, fps: float) -> None:
    _write_still(path, frames[0], "JPEG", quality=95)


def _write_still(path: Path, frame: np.ndarray, kind: str, **options: Any) -> None:
    # Through memory: Pillow takes a short write, as on a full disk, for a success.
    content = io.BytesIO()
    Image.fromarray(frame).save(content, kind, **options)
    path.write_bytes(content.getvalue())


WRITERS: dict[str, Callable[[Path, np.ndarray, float], None]] = {
    **dict.fromkeys(CONTAINERS, _write_container),
    ".gif": _write_gif,
    ".webp": _write_webp,
    ".png": _write_png,
    ".jpg": _write_jpeg,
}
