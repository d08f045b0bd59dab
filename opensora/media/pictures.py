"""Pictures and animations in Pillow: their timeline and size, and their frames as RGB pixels."""

import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from opensora.media.formats import PICTURE_FORMATS, require_pixels
from opensora.media.orientation import EXIF, EXIF_TAG, UPRIGHT, Orientation
from opensora.media.pixels import on_white
from opensora.media.timeline import Timeline, from_times, select, still

# Such data are not used, and no message about them helps.
warnings.filterwarnings("ignore", message="Corrupt EXIF data", module=r"PIL\.")
MOST_PIXELS = 2**30
"""Limit for all frames of an animation. Each is decoded at full size, even if the file stores a part."""
ANIMATED = ("GIF", "PNG", "WEBP")  # a .jpg of several pictures holds previews and depth besides the first
SHORTEST_DELAY, BROWSER_DELAY = 11, 100  # milliseconds: browsers show a frame of 10 or less for 100
TICKS = {"GIF": Fraction(1, 100)}  # seconds; the other formats count in milliseconds
DESCRIPTION_TAG = 0x010E
WIDE_GREY = ("I", "I;16", "I;16L", "I;16B")


class PictureFacts(NamedTuple):
    """A picture's properties, known before it is read; height and width are those of the upright picture."""

    timeline: Timeline
    height: int
    width: int
    orientation: Orientation

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


def description(frames: int, fps: Fraction) -> str:
    """The number of frames in a written animation's metadata: formats that merge equal frames lose it."""
    return f"{frames} frames at {fps} fps"


def describe(path: Path) -> PictureFacts:
    """Raises ValueError for a picture that is too large, and what Pillow raises for a damaged one."""
    with Image.open(path, formats=PICTURE_FORMATS) as picture:
        require_pixels(picture.height, picture.width)
        stored = picture.height, picture.width
        count = len(_shown_images(picture))
        if count * picture.height * picture.width > MOST_PIXELS:
            raise ValueError(
                f"its {count:,} frames of {picture.height}x{picture.width} are too many, at most "
                f"{MOST_PIXELS:,} pixels of an animation are read: convert it to .mp4"
            )
        written = _written(picture)
        delays = [delay for delay, _ in _frames(picture)]
        orientation = EXIF.get(picture.getexif().get(EXIF_TAG, 1), UPRIGHT)
        height, width = orientation.size(*stored)
        return PictureFacts(_timeline(picture.format or "", delays, written), height, width, orientation)


def _shown_images(picture: Image.Image) -> range:
    """The numbers of its images that are shown: the first of a PNG may be for programs without animations."""
    count = getattr(picture, "n_frames", 1) if picture.format in ANIMATED else 1
    return range(1 if count > 1 and getattr(picture, "default_image", False) else 0, count)


def _frames(picture: Image.Image) -> Iterator[tuple[Fraction, Image.Image]]:
    """Frames, each with its delay in seconds, as browsers read it."""
    for number in _shown_images(picture):
        picture.seek(number)
        require_pixels(picture.height, picture.width)  # damaged frames enlarge the canvas
        picture.load()  # a WebP file knows the duration only then
        delay = Fraction(picture.info.get("duration", 0)).limit_denominator(1000)
        yield Fraction(delay if delay >= SHORTEST_DELAY else BROWSER_DELAY) / 1000, picture


def _timeline(kind: str, delays: list[Fraction], written: tuple[int, Fraction] | None) -> Timeline:
    """written: what `description` stored; a program that changed the file may have left it there."""
    tick = TICKS.get(kind, Fraction(1, 1000))
    is_still = len(delays) == 1
    if written is not None:
        is_timeless = is_still and kind == "WEBP"  # which drops the delay of an only frame
        if is_timeless or abs(written[0] / written[1] - sum(delays)) <= tick:
            return Timeline(*written)
    if is_still:
        return still()
    starts = np.cumsum([0, *map(float, delays)])
    return from_times(starts[:-1], float(starts[-1]), tick, [])


def _written(picture: Image.Image) -> tuple[int, Fraction] | None:
    """Frames and rate that `description` stored."""
    comment = picture.info.get("comment", b"")
    text = comment.decode("ascii", "replace") if isinstance(comment, bytes) else str(comment)
    with suppress(Exception):  # damaged EXIF data raises anything
        text = text or str(picture.getexif().get(DESCRIPTION_TAG, ""))
    found = re.fullmatch(r"(\d{1,5}) frames at (\d{1,4})(?:/(\d{1,4}))? fps", text, re.ASCII)
    if found is None or not int(found[1]) or not int(found[2]) or not int(found[3] or 1):
        return None
    return int(found[1]), Fraction(int(found[2]), int(found[3] or 1))


def read_frames(
    path: Path, facts: PictureFacts, slots: Iterator[int], size: tuple[int, int] | None
) -> Iterator[np.ndarray]:
    """Yield the frames at the timeline's `slots`, in ascending order: uint8 (H, W, 3), resized to `size`."""

    def convert(picture: Image.Image) -> np.ndarray:
        height, width = facts.orientation.size(facts.height, facts.width)
        if picture.size != (width, height):
            picture = picture.crop((0, 0, width, height))
        pixels = facts.orientation.turn(_rgb(picture))
        if size is None:
            return pixels
        return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BOX))

    with Image.open(path, formats=PICTURE_FORMATS) as picture:
        yield from select(_shown(picture, facts.timeline), slots, convert)


def _shown(picture: Image.Image, timeline: Timeline) -> Iterator[tuple[int, Image.Image]]:
    """Frames, each with the slot at which the next one follows."""
    time, last = Fraction(0), len(_shown_images(picture)) - 1
    for number, (delay, frame) in enumerate(_frames(picture)):
        time += delay
        yield timeline.frames if number == last else timeline.slot(time), frame


def _rgb(picture: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3); what is transparent is white."""
    if picture.mode in WIDE_GREY:
        levels = np.asarray(picture).astype(np.int64)  # 16 bits, which Pillow would clip to 8
        grey = (np.clip(levels, 0, 65535) * 255 + 32767) // 65535
        grey[levels == picture.info.get("transparency")] = 255
        return np.repeat(grey[..., None].astype(np.uint8), 3, axis=2)
    if picture.has_transparency_data:
        return on_white(np.asarray(picture.convert("RGBA")))
    return np.asarray(picture.convert("RGB"))
