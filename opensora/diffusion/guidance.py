"""Classifier-free guidance (arXiv:2207.12598): the batch holds [negative, positive] along its first axis."""

import math
from typing import Any


def is_guided(guidance_scale: float) -> bool:
    """Whether the network must also see the negative prompt: only for a scale above 1, as in the reference.

    Raises ValueError for a scale that is not a finite number.
    """
    if not math.isfinite(guidance_scale):
        raise ValueError(
            f"guidance_scale {guidance_scale} is not a finite number: use 1 for no guidance, about 7.5 for video"
        )
    return guidance_scale > 1.0


def guide(output: Any, guidance_scale: float) -> Any:
    """negative + scale * (positive - negative) on every channel, variance included: (2B, C, ...) -> (B, C, ...).

    An output of an unguided pass (`is_guided` is false), which has no negative half, comes back as it is.
    """
    if not is_guided(guidance_scale):
        return output
    batch = output.shape[0] // 2
    negative, positive = output[:batch], output[batch:]  # (B, C, ...)
    return negative + guidance_scale * (positive - negative)
