"""Read the caches of latents that `opensora encode-latents` writes."""

import re
from pathlib import Path
from typing import Annotated

import numpy as np

from opensora.config_files import Range, checked, shown, typed
from opensora.data.caches.cache import REMEDY, Cache
from opensora.data.options import ClipOptions
from opensora.models.causal_vae.config import LATENT_SCALE

NUMBER = re.compile(r"[0-9]{1,13}")


class LatentCache(Cache):
    """Encoded clips.

    The cache holds means and log-variances, so that every draw is a new sample of the posterior.
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises ValueError if the folder has no complete cache of latents, or one without clips."""
        super().__init__(folder, "latents")
        if not self.items:
            raise ValueError(f"the cache {folder} has no clip: all {len(self.rejected)} could not be read")
        self.clip = typed(ClipOptions, self.fingerprint.settings.get("clip", {}), f"{self.folder}: clip")
        """The settings by which the clips were cut."""
        copies = self.fingerprint.settings.get("clips_per_video", 1)
        self.copies = checked(Annotated[int, Range(1, 2**20)], copies, self.folder, "clips_per_video")
        count = self.fingerprint.count
        for item in self.items:
            if not item.captions or not NUMBER.fullmatch(item.key) or int(item.key) >= count:
                raise ValueError(
                    f"the cache {folder} has the item {shown(item.key)} without captions or outside of its "
                    f"{count} clips: {REMEDY}"
                )

    def __len__(self) -> int:
        return len(self.items)

    def place(self, index: int) -> int:
        """The place of a clip's video in the data list that the cache was made of."""
        return int(self.items[index].key) // self.copies

    def moments(self, index: int) -> np.ndarray:
        """Mean and log-variance of a clip, float32 (2*C, t, h, w). Raises ValueError for another shape."""
        item = self.items[index]
        value = self.read(item.key)
        if value.ndim != 4 or value.shape[0] % 2 or not value.size:
            raise ValueError(
                f"the cache {self.folder} has an array of shape {list(value.shape)} at {item.key}, "
                f"where latents (2*C, t, h, w) belong: {REMEDY}"
            )
        return value

    def latents(self, index: int, rng: np.random.Generator | None) -> np.ndarray:
        """Scaled latents (C, t, h, w): a draw from the posterior, or without `rng` its mean."""
        mean, logvar = np.split(self.moments(index), 2)
        if rng is None:
            return mean * np.float32(LATENT_SCALE)
        noise = rng.standard_normal(mean.shape, np.float32)
        return (mean + np.exp(0.5 * np.clip(logvar, -30, 20)) * noise) * np.float32(LATENT_SCALE)
