"""Batches of samples with timesteps and noise, which depend on the seed and the step only."""

from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from opensora.data.loader import Loader
from opensora.diffusion.schedule import TRAIN_STEPS
from opensora.train.denoiser_options import DiffusionOptions

HostBatch = dict[str, np.ndarray]
"""A batch on the host: "pixels" or "latents", "latent_mask", "input_ids" or "text_embeds", "text_mask", and
"row", "timestep" and "noise"."""
DIFFUSION, POSTERIOR = 1, 2
"""Streams of random numbers of a row: noise of the diffusion, noise of the autoencoder's posterior."""


SMALLEST, BELOW_ONE = 1e-12, np.nextafter(1.0, 0.0)
TimestepSampling = Callable[[np.ndarray], np.ndarray]
"""Maps uniform numbers in [0, 1) to timesteps, as fractions of TRAIN_STEPS, also in [0, 1)."""


def uniform(shares: np.ndarray) -> np.ndarray:
    return shares


def logit_normal(mean: float, deviation: float) -> TimestepSampling:
    """Timesteps whose logit is normally distributed (arXiv:2403.03206, section 3.1)."""
    quantile = NormalDist(mean, deviation).inv_cdf

    def sample(shares: np.ndarray) -> np.ndarray:
        logits = np.array([quantile(max(float(share), SMALLEST)) for share in shares])
        return np.minimum(1 / (1 + np.exp(-logits)), BELOW_ONE)

    return sample


def sampling_of(options: DiffusionOptions) -> TimestepSampling:
    """The distribution of timesteps that the options describe."""
    if options.timestep_sampling == "uniform":
        return uniform
    return logit_normal(options.logit_mean, options.logit_std)


class BatchDrawer:
    """Draws batches from a loader and adds timesteps and noise."""

    def __init__(self, data: Loader, channels: int, seed: int, timesteps: TimestepSampling = uniform) -> None:
        """channels: those of the latents."""
        self.data, self.channels, self.seed, self.timesteps = data, channels, seed, timesteps

    @property
    def has_videos(self) -> bool:
        """True if samples hold a video; otherwise each picture is a sample."""
        return self.data.source.videos is not None

    def draw(self, numbers: range, step: int, place: tuple[int, int] = (0, 1)) -> tuple[HostBatch, list[str]]:
        """A batch of the samples `numbers`, and the paths of their files.

        place: (which, of how many) batches of the step this is. Rows are counted over all of them, so that
        timesteps and noise do not depend on how a step is divided.
        """
        batch, paths = self.data.batch(numbers)
        if not self.has_videos:
            batch = {name: _split_pictures(name, value) for name, value in batch.items()}
        mask = batch["latent_mask"]
        count = len(mask)
        rows = np.arange(place[0] * count, (place[0] + 1) * count)
        shares = spread_shares(place[1] * count, np.random.default_rng([self.seed, step]))[rows]
        timestep = (self.timesteps(shares) * TRAIN_STEPS).astype(np.int64)
        noise = RowNoise(self.seed, step, rows, DIFFUSION)
        shape = (count, self.channels, *mask.shape[1:])
        return batch | {"row": rows, "timestep": timestep, "noise": noise.standard_normal(shape)}, paths


def split_batch(batch: HostBatch, parts: int) -> list[HostBatch]:
    """A batch in equal parts, for gradient accumulation."""
    return [{name: np.split(value, parts)[part] for name, value in batch.items()} for part in range(parts)]


def spread_shares(count: int, rng: np.random.Generator) -> np.ndarray:
    """Stratified numbers (count,): one from each of `count` equal parts of 0 to 1, in random order."""
    return (rng.permutation(count) + rng.random(count)) / count


class RowNoise:
    """Standard normal noise with a generator for each row of a step.

    A row's noise does not depend on which other rows are drawn.
    """

    def __init__(self, seed: int, step: int, rows: np.ndarray, stream: int) -> None:
        self._generators = [np.random.default_rng([seed, step, int(row), stream]) for row in rows]

    def standard_normal(self, size: tuple[int, ...], dtype: type[np.float32] = np.float32) -> np.ndarray:
        """(rows, ...), as `numpy.random.Generator.standard_normal`."""
        return np.stack([rng.standard_normal(size[1:], dtype) for rng in self._generators])


def _split_pictures(name: str, value: np.ndarray) -> np.ndarray:
    """Make samples of pictures: (B, C, N, ...) -> (B*N, C, 1, ...), (B, N, ...) -> (B*N, 1, ...)."""
    if name in ("pixels", "latents"):
        value = np.swapaxes(value, 1, 2)
        return np.expand_dims(value.reshape(-1, *value.shape[2:]), 2)
    return value.reshape(-1, 1, *value.shape[2:])
