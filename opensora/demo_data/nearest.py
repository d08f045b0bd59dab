"""The rendering of a subject that is nearest to a frame: how well the parts of a generated subject join.

A classifier recognises an elephant by its colours even where the head is missing. Here the frame is compared
with the renderings of the subject that its caption names, at many phases, scales and places, pixel by pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from opensora.demo_data.classifier import SUBJECT_DISTANCE
from opensora.demo_data.render import Renderer, composite, demo_set, resize_premultiplied

SIDE = 64  # frames are compared at SIDE x SIDE pixels
MARGIN = 32
CANVAS = SIDE + 2 * MARGIN  # room to move a picture until its mask is in the middle
PHASE_STEP = 4  # every fourth frame of the animation
SCALES = tuple(
    np.linspace(0.66, 1.06, 9)
)  # longer side of the animation's bounding box, as a part of the frame
SHIFTS = (-2, 0, 2)  # pixels, after the centroids of both masks are aligned
FRAMES = 3  # of a clip that are compared: the first, the middle and the last


@dataclass(frozen=True)
class Match:
    """The nearest rendering of a frame.

    psnr: in dB, over the union of both masks. iou: of the masks. errors: mean squared error of the nearest
    rendering at each phase, PHASE_STEP source frames apart.
    """

    psnr: float
    iou: float
    errors: np.ndarray


@dataclass(frozen=True)
class _Pictures:
    """Pictures whose masks have their centroids in the middle of a canvas, flattened."""

    pixels: np.ndarray  # float32 (N, CANVAS*CANVAS*3), differences from the background, in levels
    masks: np.ndarray  # float32 (N, CANVAS*CANVAS), 1 on the subject

    def errors(self, other: "_Pictures") -> tuple[np.ndarray, np.ndarray]:
        """Errors and overlaps of all pairs, (N, other's N) each.

        They are the mean squared error over the union of both masks, and the masks' intersection over union.
        """
        squares = np.square(self.pixels).sum(1)[:, None] + np.square(other.pixels).sum(1)
        error = (squares - 2 * self.pixels @ other.pixels.T) / 3
        overlap = self.masks @ other.masks.T
        union = self.masks.sum(1)[:, None] + other.masks.sum(1) - overlap
        return error / union, overlap / union


class NearestRendering:
    """Compares frames with the renderings of a cache."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._templates = lru_cache(maxsize=8)(self._render)

    def clip(self, video: np.ndarray, subject: str, colour: str) -> list[Match]:
        """The nearest renderings of FRAMES frames of a clip, uint8 (T, H, W, 3) with H = W."""
        return [self.frame(video[number], subject, colour) for number in compared_frames(len(video))]

    def frame(self, frame: np.ndarray, subject: str, colour: str) -> Match:
        """The nearest rendering of one frame, uint8 (H, W, 3) with H = W.

        Without a subject in the frame, psnr, iou and errors are 0.
        """
        rgb = demo_set().colours[colour]
        canvas = np.full((1, CANVAS, CANVAS, 3), rgb, np.uint8)
        canvas[:, MARGIN:-MARGIN, MARGIN:-MARGIN] = Image.fromarray(frame).resize(
            (SIDE, SIDE), Image.Resampling.HAMMING
        )
        templates = self._templates(subject, colour)
        if not _mask(canvas, rgb).any():
            return Match(0.0, 0.0, np.zeros(len(templates.masks) // len(SCALES)))
        errors, overlaps = _centred(canvas, rgb, SHIFTS).errors(templates)  # (shifts, scales * phases)
        errors = np.maximum(errors, 0)  # rounding may leave a little less than nothing
        shift, number = np.unravel_index(errors.argmin(), errors.shape)
        psnr = float(-10 * np.log10(errors[shift, number] / 255**2 + 1e-10))
        by_phase = errors.min(0).reshape(len(SCALES), -1).min(0)
        return Match(psnr, float(overlaps[shift, number]), by_phase)

    def _render(self, subject: str, colour: str) -> _Pictures:
        """All renderings of a subject on a colour, scale by scale, each in the order of the phases."""
        source = self._renderer.frames(subject)
        phases = np.arange(0, len(source), PHASE_STEP)
        canvases = []
        for scale in SCALES:
            shrink = scale * SIDE / max(source.shape[1:3])
            height, width = (max(1, round(length * shrink)) for length in source.shape[1:3])
            top, left = (CANVAS - height) // 2, (CANVAS - width) // 2
            canvas = np.zeros((len(phases), CANVAS, CANVAS, 4), np.uint8)
            canvas[:, top : top + height, left : left + width] = [
                resize_premultiplied(source[phase], height, width) for phase in phases
            ]
            canvases.append(canvas)
        rgb = demo_set().colours[colour]
        return _centred(composite(np.concatenate(canvases), rgb), rgb, (0,))


def compared_frames(length: int) -> np.ndarray:
    """The numbers of the frames of a clip that are compared."""
    return np.linspace(0, length - 1, min(FRAMES, length)).round().astype(int)


def moves_forward(matches: Sequence[Match], steps: ArrayLike) -> bool:
    """True if a clip's frames are nearer to phases that follow one another than to the same ones backwards.

    steps: source frames from the first to each of the frames, as in training.
    """
    places = np.round(np.asarray(steps) / PHASE_STEP).astype(int)

    def error(direction: int) -> float:
        """The least error of the clip over all phases of its first frame."""
        moved = [
            np.roll(match.errors, -direction * place) for match, place in zip(matches, places, strict=True)
        ]
        return float(np.sum(moved, 0).min())

    return error(1) < error(-1)


def _mask(frames: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    """The pixels that show a subject on a colour: uint8 (N, H, W, 3) -> bool (N, H, W).

    Each by itself: a mean over neighbours would widen both masks and hide what is missing.
    """
    return np.asarray(
        np.square(frames.astype(np.float32) - np.asarray(rgb, np.float32)).sum(-1) > SUBJECT_DISTANCE**2
    )


def _centred(canvases: np.ndarray, rgb: tuple[int, int, int], shifts: Sequence[int]) -> _Pictures:
    """Canvases moved so that their masks' centroids are in the middle, and from there by all pairs of
    `shifts`.
    """
    masks = _mask(canvases, rgb)
    pixels, shown = [], []
    for canvas, mask in zip(canvases.astype(np.float32) - np.asarray(rgb, np.float32), masks, strict=True):
        middle = CANVAS // 2 - np.argwhere(mask).mean(0).round().astype(int)
        for down, right in product(shifts, shifts):
            pixels.append(np.roll(canvas, middle + np.array((down, right)), (0, 1)).reshape(-1))
            shown.append(np.roll(mask, middle + np.array((down, right)), (0, 1)).reshape(-1))
    return _Pictures(np.stack(pixels), np.stack(shown).astype(np.float32))
