"""Caches of what training would compute again and again: the VAE's latents of clips, with their captions."""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from opensora.weights import write_atomic

LATENT_SCALE = 0.18215
"""What latents are multiplied with, so that the diffusion sees unit variance (Open-Sora-Plan v1.1.0, after Stable Diffusion)."""


class LatentCache:
    """A folder with `moments.npy`, float16 (N, 2*C, T, h, w), and `captions.json`.

    It keeps means and log-variances, so that every draw of a clip's latents is a new one.
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises ValueError where the folder holds no complete cache."""
        self.folder = Path(folder)
        if not (self.folder / "captions.json").is_file():
            raise ValueError(f"{self.folder} holds no complete latent cache: make it with `opensora encode-latents`")
        self.captions: list[str] = json.loads((self.folder / "captions.json").read_text(encoding="utf-8"))
        self.moments = np.load(self.folder / "moments.npy", mmap_mode="r")

    def sample(self, number: int, seed: int) -> int:
        """Which clip the `number`-th draw of a run takes: every clip once an epoch, in an order that depends on (seed, epoch)."""
        epoch, place = divmod(number, len(self.captions))
        return int(_order(len(self.captions), seed, epoch)[place])

    def latents(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """A draw from the posterior of a clip, scaled: float32 (C, T, h, w)."""
        mean, logvar = np.split(self.moments[index].astype(np.float32), 2)
        noise = rng.standard_normal(mean.shape, np.float32)
        return (mean + np.exp(0.5 * np.clip(logvar, -30, 20)) * noise) * np.float32(LATENT_SCALE)


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def write_latents(folder: str | Path, captions: Sequence[str], moments: Sequence[np.ndarray]) -> None:
    """Write a cache: `moments` are parts (B, 2*C, T, h, w) of the whole, in the captions' order."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    whole = np.concatenate([part.astype(np.float16) for part in moments])
    assert len(whole) == len(captions)
    write_atomic(folder / "moments.npy", lambda file: np.save(file, whole))
    write_atomic(folder / "captions.json", lambda file: file.write(json.dumps(list(captions)).encode()))
