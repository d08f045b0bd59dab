"""Reconstruction error of clips: of frames, of frame differences, and of how much each patch changes."""

from opensora.nn import Tensor
from opensora.runtime import mindspore

ops = mindspore().ops

PATCH = 4
"""Side in pixels of the patches whose changes are compared."""
FAINT = 0.02
"""Added in squares under the root, so that it is smooth for changes near zero; values are in [-1, 1]."""


def clip_distances(
    video: Tensor, reconstruction: Tensor, squared_weight: float, motion_weight: float, strength_weight: float
) -> Tensor:
    """Errors (B, 3, T) of the channels of each frame, of videos (B, 3, T, H, W).

    With e the errors of a frame's pixels, d those of its difference from the frame before, and s those of the
    root mean square of that difference in each patch:
        sum |e| + squared_weight e^2  +  motion_weight sum |d| + squared_weight d^2
        +  strength_weight PATCH^2 sum |s|
    """
    difference = video - reconstruction
    distances = _errors(difference, squared_weight)
    if video.shape[2] == 1:
        return distances
    if motion_weight:
        distances = distances + motion_weight * _for_later_frames(
            _errors(_changes(difference), squared_weight)
        )
    if strength_weight:
        errors = ops.abs(_strengths(video) - _strengths(reconstruction))
        distances = distances + strength_weight * PATCH**2 * _for_later_frames(ops.sum(errors, (3, 4)))
    return distances


def _errors(difference: Tensor, squared_weight: float) -> Tensor:
    """(B, 3, T, H, W) -> (B, 3, T)."""
    distance = ops.abs(difference)
    if squared_weight:
        distance = distance + squared_weight * difference * difference
    return ops.sum(distance, (3, 4))


def _changes(video: Tensor) -> Tensor:
    """(B, 3, T, H, W) -> (B, 3, T-1, H, W)."""
    return video[:, :, 1:] - video[:, :, :-1]


def _strengths(video: Tensor) -> Tensor:
    """Root mean square of each patch's changes: (B, 3, T, H, W) -> (B, 3, T-1, H//4, W//4)."""
    batch, channels, frames, height, width = video.shape
    rows, columns = height // PATCH, width // PATCH
    changes = _changes(video[:, :, :, : rows * PATCH, : columns * PATCH])
    patches = ops.reshape(changes, (batch, channels, frames - 1, rows, PATCH, columns, PATCH))
    return ops.sqrt(ops.mean(patches * patches, (4, 6)) + FAINT**2)


def _for_later_frames(changes: Tensor) -> Tensor:
    """(B, 3, T-1) -> (B, 3, T), zero for the first frame."""
    return ops.concat((ops.zeros_like(changes[:, :, :1]), changes), 2)
