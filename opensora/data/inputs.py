"""Latents of a batch of samples, cached or encoded now."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from opensora.models.causal_vae.config import LATENT_SCALE
from opensora.models.causal_vae.model import CausalVAE
from opensora.runtime import mindspore

ms = mindspore()


class NoiseSource(Protocol):
    """Draws noise, such as a `numpy.random.Generator`."""

    def standard_normal(self, size: tuple[int, ...], dtype: type[np.float32]) -> np.ndarray: ...


def batch_latents(
    batch: Mapping[str, np.ndarray], num_images: int, vae: CausalVAE | None, rng: NoiseSource | None
) -> np.ndarray:
    """Latents of unit variance, float32 (B, C, t+N, h, w): the batch's own, or its pixels encoded by `vae`.

    num_images: N, the pictures at the end of the time axis; in a batch of pictures, all of them. rng: draws
    from the posterior; None takes its mean.
    """
    if "latents" in batch:
        return batch["latents"]
    assert vae is not None
    pixels = batch["pixels"]  # (B, 3, T+N, H, W)
    frames = pixels.shape[2] - num_images
    # Pictures are encoded one by one: their shape does not depend on N, and the video needs the most memory.
    parts = [pixels[:, :, :frames]] if frames else []
    parts += [pixels[:, :, place : place + 1] for place in range(frames, pixels.shape[2])]
    draws = []
    for part in parts:
        posterior = vae.encode(ms.Tensor(np.ascontiguousarray(part)))
        noise = (
            None if rng is None else ms.Tensor(rng.standard_normal(vae.latent_shape(part.shape), np.float32))
        )
        draws.append((posterior.mode() if noise is None else posterior.sample(noise)).asnumpy())
    return np.concatenate(draws, 2) * np.float32(LATENT_SCALE)
