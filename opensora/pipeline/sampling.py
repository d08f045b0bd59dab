"""From noise to latents: the loop of a sampler around a network, on numpy arrays alone."""

from collections.abc import Callable, Sequence

import numpy as np

from opensora.diffusion import Sampler
from opensora.diffusion.guidance import guide

PredictNoise = Callable[[np.ndarray, float], np.ndarray]
"""Latents (B, C, T, h, w), timestep -> noise and variance (R*B, 2*C, T, h, w); R = 2 if guided, else 1."""


def sample(
    network: PredictNoise,
    sampler: Sampler,
    latents: np.ndarray,
    guidance_scale: float,
    generators: Sequence[np.random.Generator],
    after_step: Callable[[np.ndarray], None],
) -> np.ndarray:
    """Denoise latents (B, C, T, h, w) that are unit-variance noise at first.

    generators: one for each video, for samplers that add noise. after_step: gets the latents after each step.
    Raises ValueError if the numbers do not stay finite.
    """
    x = latents * np.float32(sampler.init_noise_sigma)
    for i, timestep in enumerate(sampler.timesteps):
        output = network(sampler.scale_model_input(x, i), float(timestep))
        eps = guide(output, guidance_scale)[:, : x.shape[1]]  # the other half of the channels is the variance
        noise = draw(generators, x.shape[1:]) if sampler.needs_noise(i) else None
        x = sampler.step(eps, i, x, noise)
        after_step(x)
    if not np.isfinite(x).all():
        raise ValueError(
            f"sampling with guidance_scale {guidance_scale} overflowed: use a smaller one, such as 7.5"
        )
    return x


def draw(generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, float32 (B, *shape): each video's from its own generator."""
    return np.stack([generator.standard_normal(shape, dtype=np.float32) for generator in generators])


def upstream_text(
    embeds: np.ndarray, mask: np.ndarray | None, negative: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(embeds, negative) as the reference gives them to the network, without a mask.

    All (B, L, D), mask (B, L). Both texts of a single prompt are cut to its length. The padding of several
    prompts becomes zero and is attended to; their negative texts stay as they are.
    """
    if mask is None:
        return embeds, negative
    if len(embeds) > 1:
        return embeds * mask[:, :, None].astype(embeds.dtype), negative
    length = int(mask.sum())
    return embeds[:, :length], None if negative is None else negative[:, :length]


def stack(negative: np.ndarray | None, positive: np.ndarray) -> np.ndarray:
    """(R, B, ...): [negative, positive] or [positive]. One negative row serves all videos."""
    if negative is None:
        return positive[None]
    if negative.shape[1:] != positive.shape[1:]:
        raise ValueError(
            f"negative_embeds are {negative.shape[1:]} and text_embeds {positive.shape[1:]}: "
            "pad them to one length"
        )
    return np.stack([np.broadcast_to(negative, positive.shape), positive])


def stack_masks(
    negative: np.ndarray | None,
    negative_mask: np.ndarray | None,
    positive: np.ndarray,
    mask: np.ndarray | None,
) -> np.ndarray | None:
    if mask is None and negative_mask is None:
        return None
    ones = np.ones(positive.shape[:2], np.float32)
    return stack(
        None if negative is None else (ones if negative_mask is None else negative_mask),
        ones if mask is None else mask,
    )
