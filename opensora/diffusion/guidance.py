"""Classifier-free guidance (arXiv:2207.12598): the batch holds [negative, positive] along its first axis."""

import math

from opensora.nn import Tensor


def is_guided(guidance_scale: float) -> bool:
    """True if guidance is on: for a scale above 1, as in the reference. The batch then has a negative half.

    Raises ValueError for a scale that is not finite.
    """
    if not math.isfinite(guidance_scale):
        raise ValueError(
            f"guidance_scale {guidance_scale} is not finite: use 1 to disable guidance, about 7.5 for video"
        )
    return guidance_scale > 1.0


def guide(output: Tensor, guidance_scale: float) -> Tensor:
    """negative + scale * (positive - negative), for all channels: (2B, C, ...) -> (B, C, ...).

    Without guidance there is no negative half, and the output is returned unchanged.
    """
    if not is_guided(guidance_scale):
        return output
    batch = output.shape[0] // 2
    negative, positive = output[:batch], output[batch:]  # (B, C, ...)
    return negative + guidance_scale * (positive - negative)
