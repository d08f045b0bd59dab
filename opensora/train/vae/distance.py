"""How far a reconstructed clip is from the real one, pixel by pixel: frames, changes from frame to frame, strengths of changes."""

from typing import Any

from opensora.runtime import mindspore

ops = mindspore().ops

PATCH = 4
"""Pixels a side of the squares whose changes are compared in strength."""
FAINT = 0.02
"""Changes well below this, of values in [-1, 1], have hardly any strength: the square root is smooth there."""


def clip_distances(
    video: Any, reconstruction: Any, squared_weight: float, motion_weight: float, strength_weight: float
) -> Any:
    """The distances of each frame's channels (B, 3, T), of videos (B, 3, T, H, W). A change belongs to the later of its two frames.

    A frame has the sum of |e| + squared_weight e^2 over its pixels' errors e, motion_weight times the same of its changes' errors, and
    strength_weight times the error of the changes' strengths, which asks how much moves and not where to.
    """
    difference = video - reconstruction
    distances = _errors(difference, squared_weight)
    if video.shape[2] == 1:
        return distances
    if motion_weight:
        distances = distances + motion_weight * _of_later_frames(
            _errors(_changes(difference), squared_weight)
        )
    if strength_weight:
        errors = ops.abs(_strengths(video) - _strengths(reconstruction))
        distances = distances + strength_weight * PATCH**2 * _of_later_frames(ops.sum(errors, (3, 4)))
    return distances


def _errors(difference: Any, squared_weight: float) -> Any:
    """(B, 3, T, H, W) -> (B, 3, T)."""
    distance = ops.abs(difference)
    if squared_weight:
        distance = distance + squared_weight * difference * difference
    return ops.sum(distance, (3, 4))


def _changes(video: Any) -> Any:
    """(B, 3, T, H, W) -> (B, 3, T-1, H, W)."""
    return video[:, :, 1:] - video[:, :, :-1]


def _strengths(video: Any) -> Any:
    """The root mean square of each patch's changes: (B, 3, T, H, W) -> (B, 3, T-1, H/4, W/4), without pixels that fill no patch."""
    batch, channels, frames, height, width = video.shape
    rows, columns = height // PATCH, width // PATCH
    changes = _changes(video[:, :, :, : rows * PATCH, : columns * PATCH])
    patches = ops.reshape(changes, (batch, channels, frames - 1, rows, PATCH, columns, PATCH))
    return ops.sqrt(ops.mean(patches * patches, (4, 6)) + FAINT**2)


def _of_later_frames(changes: Any) -> Any:
    """(B, 3, T-1) -> (B, 3, T), nothing for the first frame."""
    return ops.concat((ops.zeros_like(changes[:, :, :1]), changes), 2)
