"""Recognise the colour and the subject of a demo clip: nearest colour, nearest rendering. Plain numpy.

The background is the median of the frames' borders, and the subject is the pixels that differ from it. Each
frame is cut to a square around the centroid of the difference, in proportion to its spread, and compared with
every frame of every subject's animation, cut by the same rule. So the comparison does not depend on size,
place and phase of the animation.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image

from opensora.demo_data.render import Renderer, composite, demo_set, resize_premultiplied

# Distances between colours are Euclidean, in levels of 0..255 RGB; the eight named colours are more than 100
# apart.
SUBJECT_DISTANCE = 40.0
FULL_DISTANCE = 120.0
BORDER = 2  # pixels
CELLS = 24  # a cut-out is CELLS x CELLS
WINDOW = 2.0  # half side of a cut-out, in standard deviations of the difference around its centroid
MIN_HALF = 1.0  # pixels; smaller windows hold no subject
TEMPLATE_SIZE = 64  # longer side of the renderings that are cut into templates
FRAMES = 6  # compared of a clip
SCALES = (0.92, 1.0, 1.09)
SHIFTS = (-1.0, 0.0, 1.0)  # cells


def estimate_background(video: np.ndarray) -> np.ndarray:
    """Median colour of the border of all frames: uint8 (T, H, W, 3) -> float (3,)."""
    inner = np.zeros(video.shape[1:3], bool)
    inner[BORDER:-BORDER, BORDER:-BORDER] = True
    return np.median(video[:, ~inner].reshape(-1, 3), axis=0)


def nearest_colour(rgb: np.ndarray) -> str:
    """The name of the data set's colour nearest to `rgb` (3,)."""
    colours = demo_set().colours
    return min(colours, key=lambda name: float(np.square(rgb - np.asarray(colours[name])).sum()))


def background_distance(video: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Distance of each 3x3 mean from the background: (..., H, W, 3) -> float32 (..., H, W).

    The mean suppresses the fine noise of a decoder.
    """
    return np.sqrt(np.square(_box_blur(video.astype(np.float32) - background.astype(np.float32))).sum(-1))


def subject_mask(video: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The pixels that show the subject: uint8 (T, H, W, 3) -> bool (T, H, W)."""
    return background_distance(video, background) > SUBJECT_DISTANCE


def _box_blur(images: np.ndarray) -> np.ndarray:
    """Mean of 3 x 3 pixels, edges repeated: (..., H, W, 3) -> same shape."""
    padded = np.pad(images, [(0, 0)] * (images.ndim - 3) + [(1, 1), (1, 1), (0, 0)], mode="edge")
    rows = padded[..., :-2, :, :] + padded[..., 1:-1, :, :] + padded[..., 2:, :, :]
    return (rows[..., :-2, :] + rows[..., 1:-1, :] + rows[..., 2:, :]) / 9


def _windows(distance: np.ndarray) -> np.ndarray:
    """Square windows around the subject: (N, H, W) -> (N, 3), centre row, centre column and half side.

    A picture without a subject has the half side 0.
    """
    weight = np.clip(distance - SUBJECT_DISTANCE, 0, FULL_DISTANCE - SUBJECT_DISTANCE)
    total = np.maximum(weight.sum((1, 2)), 1e-6)
    rows, columns = (np.arange(length) + 0.5 for length in weight.shape[1:])
    by_row, by_column = weight.sum(2) / total[:, None], weight.sum(1) / total[:, None]
    row, column = by_row @ rows, by_column @ columns
    variance = (by_row * (rows - row[:, None]) ** 2).sum(1) + (
        by_column * (columns - column[:, None]) ** 2
    ).sum(1)
    return np.stack([row, column, WINDOW * np.sqrt(variance)], axis=1)


def _padded(image: np.ndarray, value: np.ndarray | int) -> Image.Image:
    """Add a border of the image's size on each side, so that windows may reach beyond (H, W, channels)."""
    height, width, channels = image.shape
    canvas = np.empty((3 * height, 3 * width, channels), np.uint8)
    canvas[:] = np.round(value)
    canvas[height : 2 * height, width : 2 * width] = image
    mode = "RGB" if channels == 3 else "RGBa"
    return Image.frombuffer(mode, (3 * width, 3 * height), canvas, "raw", mode, 0, 1)


def _cut(padded: Image.Image, row: float, column: float, half: float) -> np.ndarray:
    """Cut a window, in coordinates of the image inside the border -> uint8 (CELLS, CELLS, channels)."""
    left, top = column + padded.width / 3, row + padded.height / 3
    box = (
        max(left - half, 0.0),
        max(top - half, 0.0),
        min(left + half, padded.width),
        min(top + half, padded.height),
    )
    return np.asarray(padded.resize((CELLS, CELLS), Image.Resampling.HAMMING, box=box))


def _jittered(frame: np.ndarray, window: np.ndarray, background: np.ndarray) -> Iterator[np.ndarray]:
    """The window of a frame in several sizes and places close to it; the best match counts."""
    padded = _padded(frame, background)
    row, column, half = window
    for scale, down, right in product(SCALES, SHIFTS, SHIFTS):
        cell = 2 * half * scale / CELLS
        yield _cut(padded, row + down * cell, column + right * cell, half * scale)


def _renderings(frames: np.ndarray) -> np.ndarray:
    """Centre all frames of a subject in squares: (N, h, w, 4) -> (N, TEMPLATE_SIZE, TEMPLATE_SIZE, 4)."""
    _, height, width, _ = frames.shape
    shrink = TEMPLATE_SIZE / max(height, width)
    height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    top, left = (TEMPLATE_SIZE - height) // 2, (TEMPLATE_SIZE - width) // 2
    canvas = np.zeros((len(frames), TEMPLATE_SIZE, TEMPLATE_SIZE, 4), np.uint8)
    canvas[:, top : top + height, left : left + width] = [
        resize_premultiplied(frame, height, width) for frame in frames
    ]
    return canvas


def _over(premultiplied: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Premultiplied RGBA uint8 (..., 4) over a colour of any precision -> float32 (..., 3), not rounded."""
    cover = 1 - premultiplied[..., 3:].astype(np.float32) / 255
    return premultiplied[..., :3] + cover * background.astype(np.float32)


class SubjectClassifier:
    """Compares clips with all renderings of a cache.

    Templates for a background colour are made when it first occurs.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.subjects = list(renderer.files)
        pictures = [_renderings(renderer.frames(subject)) for subject in self.subjects]
        self._pictures = np.concatenate(pictures)  # (N, TEMPLATE_SIZE, TEMPLATE_SIZE, 4)
        self._starts = np.cumsum([0, *map(len, pictures[:-1])])
        self._templates = lru_cache(maxsize=None)(self._cut_templates)

    def classify(self, video: np.ndarray, background: np.ndarray | None = None) -> str | None:
        """The subject of a clip, uint8 (T, H, W, 3); None if nothing differs from the background."""
        distances = self.distances(video, estimate_background(video) if background is None else background)
        return None if distances is None else self.subjects[int(distances.argmin())]

    def distances(self, video: np.ndarray, background: np.ndarray) -> np.ndarray | None:
        """Mean squared difference from each subject's nearest rendering, in squared levels: (subjects,)."""
        chosen = video[np.linspace(0, len(video) - 1, min(FRAMES, len(video))).round().astype(int)]
        windows = _windows(background_distance(chosen, background))
        seen = [
            (frame, window) for frame, window in zip(chosen, windows, strict=True) if window[2] > MIN_HALF
        ]
        if not seen:
            return None
        cuts = np.stack(
            [cut for frame, window in seen for cut in _jittered(frame, window, background)]
        )  # (F*J, CELLS, CELLS, 3)
        templates = _over(self._templates(nearest_colour(background)), background).reshape(
            len(self._pictures), -1
        )
        queries = cuts.reshape(len(cuts), -1).astype(np.float32)
        squared = (queries**2).sum(1)[:, None] - 2 * queries @ templates.T + (templates**2).sum(1)  # (F*J, N)
        nearest = np.minimum.reduceat(squared, self._starts, axis=1)  # (F*J, subjects)
        return nearest.reshape(len(seen), -1, len(self.subjects)).min(1).mean(0) / queries.shape[1]

    def _cut_templates(self, colour: str) -> np.ndarray:
        """Cut all renderings as on that background colour -> premultiplied uint8 (N, CELLS, CELLS, 4)."""
        rgb = demo_set().colours[colour]
        cuts = np.zeros((len(self._pictures), CELLS, CELLS, 4), np.uint8)
        for start in range(0, len(cuts), 128):
            part = self._pictures[start : start + 128]
            windows = _windows(background_distance(composite(part, rgb), np.asarray(rgb)))
            for i, (picture, window) in enumerate(zip(part, windows, strict=True)):
                if window[2] > MIN_HALF:
                    cuts[start + i] = _cut(_padded(picture, 0), *window)
        return cuts
