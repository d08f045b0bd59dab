"""Latents and text embeddings of a batch, cached or encoded now."""

from collections.abc import Callable

import numpy as np

from opensora.data.inputs import batch_latents
from opensora.engine.mindspore import Tape
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.t5.model import T5Encoder
from opensora.nn import Tensor
from opensora.parallel.collectives import ProcessGroup
from opensora.runtime import mindspore
from opensora.train.batches import POSTERIOR, HostBatch, RowNoise

ms = mindspore()


class BatchEncoder:
    """Encodes batches.

    vae: None if batches hold latents. text_encoder: None if they hold embeddings. sample_posterior: draw
    latents from the autoencoder's posterior instead of taking its mode.
    """

    def __init__(
        self, vae: CausalVAE | None, text_encoder: T5Encoder | None, seed: int, sample_posterior: bool = True
    ) -> None:
        self.vae, self.text_encoder = vae, text_encoder
        self.seed, self.sample_posterior = seed, sample_posterior

    def latents(self, batch: HostBatch, step: int) -> np.ndarray:
        """Latents of unit variance (B, C, T+N, h, w); the posterior's noise is that of `step`."""
        noise = RowNoise(self.seed, step, batch["row"], POSTERIOR) if self.sample_posterior else None
        return batch_latents(batch, batch["text_mask"].shape[1] - 1, self.vae, noise)

    def texts(self, batch: HostBatch) -> Tensor:
        """Text embeddings (B, 1+N, L, D)."""
        if "text_embeds" in batch:
            return ms.Tensor(batch["text_embeds"])
        assert self.text_encoder is not None
        ids, mask = _tokens(batch)
        return _by_sample(self.text_encoder(ids, mask), batch)

    def texts_with_tape(self, batch: HostBatch) -> tuple[Tensor, Tensor, Tape]:
        """For training the encoder: (embeddings (B, 1+N, L, D), its output (B*(1+N), L, D), its tape)."""
        assert self.text_encoder is not None
        ids, mask = _tokens(batch)
        output, tape = self.text_encoder.forward_with_tape(ids, mask)
        return _by_sample(output, batch), output, tape


def _tokens(batch: HostBatch) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both (B*(1+N), L)."""
    length = batch["input_ids"].shape[2]
    return ms.Tensor(batch["input_ids"].reshape(-1, length)), ms.Tensor(
        batch["text_mask"].reshape(-1, length)
    )


def _by_sample(output: Tensor, batch: HostBatch) -> Tensor:
    return output.reshape((*batch["input_ids"].shape, -1))


class SharedEncoder:
    """Latents for a group of processes that train on the same batches.

    Of a group of n, process i encodes part i of the next n parts, and all gather the latents.
    """

    def __init__(
        self,
        encoder: BatchEncoder,
        group: ProcessGroup,
        batches: Callable[[int], list[HostBatch]],
        parts: int,
        last_step: int,
    ) -> None:
        """batches: the parts of a step's batch, `parts` of them. last_step: the run ends with it."""
        self._encoder, self._group, self._batches = encoder, group, batches
        self._parts, self._last_step = parts, last_step
        self._latents: dict[tuple[int, int], np.ndarray] = {}

    def latents(self, batch: HostBatch, step: int, part: int) -> np.ndarray:
        """Latents (B, C, T+N, h, w) of `batch`, part `part` of step `step`. Call it in their order."""
        if "latents" in batch or self._group.size == 1:
            return self._encoder.latents(batch, step)
        if (step, part) not in self._latents:
            coming = [self._later(step, part + i) for i in range(self._group.size)]
            own_step, own_part = coming[self._group.index]
            # After the end of the run there is nothing to encode; the last step fills the place.
            chosen = (
                batch if self._group.index == 0 else self._batches(min(own_step, self._last_step))[own_part]
            )
            gathered = self._group.all_gather(ms.Tensor(self._encoder.latents(chosen, own_step))).asnumpy()
            self._latents = dict(zip(coming, np.split(gathered, self._group.size), strict=True))
        return self._latents.pop((step, part))

    def _later(self, step: int, part: int) -> tuple[int, int]:
        """(step, part) where `part` may count into later steps."""
        return step + part // self._parts, part % self._parts
