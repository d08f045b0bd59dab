"""From a batch of `Source.join` to what the transformer takes, whichever half of it was cached."""

from collections.abc import Mapping

import numpy as np

from opensora.data.caches.latents import LATENT_SCALE
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.t5.model import T5Encoder
from opensora.runtime import mindspore

ms = mindspore()


def batch_latents(
    batch: Mapping[str, np.ndarray], num_images: int, vae: CausalVAE | None, rng: np.random.Generator | None
) -> np.ndarray:
    """Latents of unit variance, float32 (B, C, t+N, h, w): the batch's own, or draws of what `vae` makes of its pixels.

    num_images: N, the pictures at the end of the time axis; all of it, for a batch of pictures. The noise comes from `rng`; without one
    the means are taken.
    """
    if "latents" in batch:
        return batch["latents"]
    assert vae is not None
    pixels = batch["pixels"]  # (B, 3, T+N, H, W)
    frames = pixels.shape[2] - num_images
    # Pictures go one after the other: their batches have one size whatever N is, and the video's memory is the peak.
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


def batch_text(batch: Mapping[str, np.ndarray], encoder: T5Encoder | None) -> tuple[np.ndarray, np.ndarray]:
    """Text embeddings float32 (B, L, D), or (B, 1+N, L, D) where there are pictures, and their mask without D.

    The batch's own embeddings, or what `encoder`, which is not trained, makes of its token ids.
    """
    mask = batch["text_mask"]  # (B, 1+N, L)
    if "text_embeds" in batch:
        embeds = batch["text_embeds"]
    else:
        assert encoder is not None
        rows = [
            encoder(ms.Tensor(ids), ms.Tensor(kept)).asnumpy()
            for ids, kept in zip(batch["input_ids"], mask, strict=True)
        ]
        embeds = np.stack(rows).astype(np.float32)
    return (embeds[:, 0], mask[:, 0]) if mask.shape[1] == 1 else (embeds, mask)
