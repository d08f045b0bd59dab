"""The cache of latents as a data set: clips with their captions, and draws from what the autoencoder made of them."""

from pathlib import Path

import numpy as np

from opensora.data.caches.cache import Cache
from opensora.data.dataset.collate import shuffled

LATENT_SCALE = 0.18215
"""What latents are multiplied with, so that the diffusion sees unit variance (Open-Sora-Plan v1.1.0, after Stable Diffusion)."""


class LatentCache(Cache):
    """Clips that `opensora encode-latents` encoded. It keeps means and log-variances, so that every draw is a new one."""

    def __init__(self, folder: str | Path) -> None:
        """Raises ValueError where the folder holds no complete cache of latents, or none that could be encoded."""
        super().__init__(folder, "latents")
        if not self.items:
            raise ValueError(f"the cache {folder} has no clip: all {len(self.rejected)} could not be read")
        self.captions: list[str] = [item["captions"][0] for item in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def moments(self, index: int) -> np.ndarray:
        """float32 (2*C, T, h, w)."""
        return self.read(self.items[index]["key"])

    def sample(self, number: int, seed: int) -> int:
        """Which clip the `number`-th draw of a run takes: every clip once an epoch, in an order that depends on (seed, epoch)."""
        return shuffled(number, len(self), seed)

    def latents(self, index: int, rng: np.random.Generator | None) -> np.ndarray:
        """A draw from the posterior of a clip, without `rng` its mean, scaled: float32 (C, T, h, w)."""
        mean, logvar = np.split(self.moments(index), 2)
        if rng is None:
            return mean * np.float32(LATENT_SCALE)
        noise = rng.standard_normal(mean.shape, np.float32)
        return (mean + np.exp(0.5 * np.clip(logvar, -30, 20)) * noise) * np.float32(LATENT_SCALE)
