"""The rendering of a subject that is nearest to a frame: how well the parts of a generated subject join.

A classifier recognises an elephant by its colours even where the head is missing. Here the frame is compared with the renderings
of the subject that its caption names, at many phases, scales and places, pixel by pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from opensora.demo_data.classifier import SUBJECT_DISTANCE, background_distance
from opensora.demo_data.render import Renderer, composite, demo_set, resize_premultiplied

SIDE = 64  # frames are compared at SIDE x SIDE pixels
PHASE_STEP = 4  # every fourth frame of the animation
SCALES = tuple(
    np.linspace(0.66, 1.06, 9)
)  # longer side of the animation's bounding box, as a part of the frame
SHIFTS = (-2, 0, 2)  # pixels, after the centroids of both masks are aligned
FRAMES = 3  # of a clip that are compared: the first, the middle and the last


@dataclass(frozen=True)
class Match:
    """The nearest rendering of a frame. psnr: in dB, over the union of both masks; iou: of the masks; phase: in source frames."""

    psnr: float
    iou: float
    phase: int


@dataclass(frozen=True)
class _Templates:
    """All renderings of a subject on a colour, each in the middle of a canvas of three frames' width."""

    pictures: np.ndarray  # uint8 (N, 3*SIDE, 3*SIDE, 3)
    masks: np.ndarray  # bool (N, 3*SIDE, 3*SIDE)
    centroids: np.ndarray  # int (N, 2), row and column on the canvas
    phases: np.ndarray  # int (N,)


class NearestRendering:
    """Compares frames with the renderings of a cache."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._templates = lru_cache(maxsize=2)(self._render)

    def clip(self, video: np.ndarray, subject: str, colour: str) -> list[Match]:
        """The nearest renderings of FRAMES frames of a clip, uint8 (T, H, W, 3) with H = W."""
        chosen = np.linspace(0, len(video) - 1, min(FRAMES, len(video))).round().astype(int)
        return [self.frame(video[number], subject, colour) for number in chosen]

    def frame(self, frame: np.ndarray, subject: str, colour: str) -> Match:
        """The nearest rendering of one frame, uint8 (H, W, 3) with H = W. Without a subject in the frame, psnr and iou are 0."""
        pixels = np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BOX))
        mask = _mask(pixels[None], colour)[0]
        if not mask.any():
            return Match(0.0, 0.0, 0)
        templates, centroid = self._templates(subject, colour), _centroid(mask)
        best = None
        for down in SHIFTS:
            for right in SHIFTS:
                tops = templates.centroids - centroid - (down, right)
                candidates = _windows(templates.pictures, tops)  # (N, SIDE, SIDE, 3)
                shown = _windows(templates.masks, tops)  # (N, SIDE, SIDE)
                union = shown | mask
                error = np.square(candidates.astype(np.float32) - pixels).mean(-1)
                errors = (error * union).sum((1, 2)) / union.sum((1, 2))
                number = int(errors.argmin())
                if best is None or errors[number] < best[0]:
                    overlap = (shown[number] & mask).sum() / union[number].sum()
                    best = float(errors[number]), float(overlap), int(templates.phases[number])
        assert best is not None
        return Match(float(-10 * np.log10(best[0] / 255**2 + 1e-10)), *best[1:])

    def _render(self, subject: str, colour: str) -> _Templates:
        source = self._renderer.frames(subject)
        phases = np.arange(0, len(source), PHASE_STEP)
        canvases = []
        for scale in SCALES:
            shrink = scale * SIDE / max(source.shape[1:3])
            height, width = (max(1, round(length * shrink)) for length in source.shape[1:3])
            top, left = (3 * SIDE - height) // 2, (3 * SIDE - width) // 2
            canvas = np.zeros((len(phases), 3 * SIDE, 3 * SIDE, 4), np.uint8)
            canvas[:, top : top + height, left : left + width] = [
                resize_premultiplied(source[phase], height, width) for phase in phases
            ]
            canvases.append(canvas)
        pictures = composite(np.concatenate(canvases), demo_set().colours[colour])
        masks = _mask(pictures, colour)
        centroids = np.array([_centroid(mask) for mask in masks])
        return _Templates(pictures, masks, centroids, np.tile(phases, len(SCALES)))


def moves_forward(matches: Sequence[Match], loop: int) -> bool:
    """Whether the phases of a clip's frames, of a loop of `loop` source frames, advance more often than they go back."""
    steps = np.diff([match.phase for match in matches]) % loop
    return bool(np.sum((steps > 0) & (steps < loop / 2)) > np.sum(steps >= loop / 2))


def _mask(frames: np.ndarray, colour: str) -> np.ndarray:
    """The pixels that show a subject: uint8 (N, H, W, 3) -> bool (N, H, W)."""
    return background_distance(frames, np.asarray(demo_set().colours[colour])) > SUBJECT_DISTANCE


def _centroid(mask: np.ndarray) -> np.ndarray:
    """Row and column of the middle of a mask (H, W), rounded to whole pixels; the middle of the frame where it is empty."""
    if not mask.any():
        return np.array(mask.shape) // 2
    return np.argwhere(mask).mean(0).round().astype(int)


def _windows(canvases: np.ndarray, tops: np.ndarray) -> np.ndarray:
    """SIDE x SIDE windows of (N, H, W, ...) canvases; tops (N, 2) holds each window's first row and column."""
    limit = np.array(canvases.shape[1:3]) - SIDE
    return np.stack(
        [
            canvas[top : top + SIDE, left : left + SIDE]
            for canvas, (top, left) in zip(canvases, np.clip(tops, 0, limit), strict=True)
        ]
    )
