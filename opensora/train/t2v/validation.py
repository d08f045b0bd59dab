"""Validation of a text-to-video run: the loss on held-out samples, and videos of a few prompts."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from opensora.diffusion import GaussianDiffusion
from opensora.models.latte.model import LatteT2V
from opensora.models.latte_class.model import Latte
from opensora.models.t5.model import T5Encoder
from opensora.parallel.mesh import Mesh
from opensora.parallel.sequence import valid_frames
from opensora.runtime import mindspore
from opensora.train.t2v.batches import BatchDrawer, HostBatch
from opensora.train.t2v.step import Batch, split_frames

ms = mindspore()

M = TypeVar("M", Latte, LatteT2V)


class Preview(Protocol):
    """Writes videos of a few prompts with the networks as they are (`pipeline/preview.py`)."""

    def __call__(
        self, transformer: LatteT2V, text_encoder: T5Encoder | None, folder: Path, step: int
    ) -> None: ...


class HeldOutLoss(ABC, Generic[M]):
    """The mean squared error of the predicted noise on held-out samples.

    Noise and timesteps are the same at every validation.
    """

    def __init__(
        self,
        batches: BatchDrawer,
        encode: Callable[[HostBatch, int], Batch],
        num_samples: int,
        batch_size: int,
        mesh: Mesh,
    ) -> None:
        """encode: latents and embeddings of a batch, as the model takes them."""
        self._batches, self._encode, self._mesh = batches, encode, mesh
        self._count, self._size = min(len(batches.data), num_samples), batch_size

    @abstractmethod
    def error(self, model: M, batch: Batch) -> float:
        """The mean squared error of a batch, or the part of it in this process's frames."""

    def __call__(self, model: M) -> float:
        """The mean over batches, which the teams of processes share out."""
        team, teams = self._mesh.data
        starts = range(0, max(self._count - self._size, 0) + 1, self._size)
        error = 0.0
        for first in starts[team::teams]:
            batch, _ = self._batches.draw(range(first, first + self._size), first)
            error += self.error(model, self._encode(batch, first))
        return float(sum(self._mesh.world.agree(error))) / len(starts)


class CaptionedHeldOutLoss(HeldOutLoss[LatteT2V]):
    """The mean squared error of the predicted noise on held-out samples with captions."""

    def error(self, model: LatteT2V, batch: Batch) -> float:
        whole = batch
        batch, exchange = split_frames(whole, self._mesh.sequence)
        latents, mask = ms.Tensor(batch["latents"]), batch.get("latent_mask")
        output = model(
            GaussianDiffusion().q_sample(latents, batch["timestep"], ms.Tensor(batch["noise"])),
            batch["timestep"],
            ms.Tensor(batch["text_embeds"]),
            ms.Tensor(batch["text_mask"]),
            None if mask is None else ms.Tensor(mask),
            num_images=batch["num_images"],
            temporal=batch["temporal"],
            exchange=exchange,
        )
        squares = np.square(output.asnumpy()[:, : latents.shape[1]] - batch["noise"])  # (B, C, T+N, H, W)
        if exchange is not None:
            images = whole["num_images"]
            frames = whole["latents"].shape[2] - images
            squares = squares[:, :, valid_frames(frames, images, self._mesh.sequence)]  # without padding
        return float(squares.sum()) / whole["latents"].size
