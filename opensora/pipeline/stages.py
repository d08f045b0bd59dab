"""The three stages as functions of numpy arrays: encode texts, denoise one step, decode latents."""

from collections.abc import Sequence

import numpy as np

from opensora.data.text import clean_caption
from opensora.data.text.tokenizer import Tokenizer
from opensora.media.pixels import to_bytes
from opensora.models import CausalVAE, LatteT2V, T5Encoder
from opensora.models.causal_vae.config import LATENT_SCALE
from opensora.nn import Tensor
from opensora.parallel.collectives import ProcessGroup
from opensora.parallel.mesh import Mesh
from opensora.parallel.sequence import ShardedFrameExchange, all_gather_array, gather_frames, local_shard


def encode_text(
    tokenizer: Tokenizer, encoder: T5Encoder, prompts: Sequence[str], max_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (B, L, D) and masks (B, L), 1 for tokens, of cleaned prompts, both float32; L is max_length.

    Each prompt is encoded alone, because the rounding of a matrix product depends on its number of rows: a
    prompt gives the same bytes whichever others are encoded with it.
    """
    input_ids, mask = tokenizer([clean_caption(prompt, sampling=True) for prompt in prompts], max_length)
    return encoder.each(input_ids, mask), mask.astype(np.float32)


class Denoiser:
    """The transformer under fixed texts, whose keys and values it computes once.

    On a CPU each video is computed alone, with its negative half: a batch saves nothing there, and would
    change the last bits of a video. Other devices compute the whole batch at once.
    """

    def __init__(
        self,
        transformer: LatteT2V,
        text_embeds: np.ndarray,
        text_mask: np.ndarray | None,
        temporal: bool,
        mesh: Mesh | None = None,
    ) -> None:
        """Compute the keys and values of the texts.

        text_embeds, text_mask: (R, B, L, D), and (R, B, L) or None; R = 2 for [negative, positive], else 1.
        mesh: processes that share frames and halves of the guidance; all get the same inputs.
        """
        self.transformer = transformer
        self.temporal = temporal
        self.mesh = mesh or Mesh()
        self.halves = self.mesh.guidance if len(text_embeds) > 1 else ProcessGroup()
        if self.halves.size > 1:
            half = slice(self.halves.index, self.halves.index + 1)
            text_embeds, text_mask = text_embeds[half], None if text_mask is None else text_mask[half]
        self.repeats, videos = text_embeds.shape[:2]
        size = 1 if transformer.engine.device == "CPU" else videos
        self.groups = [slice(start, start + size) for start in range(0, videos, size)]
        self.texts = [
            self._text(text_embeds[:, group], None if text_mask is None else text_mask[:, group])
            for group in self.groups
        ]

    def _text(self, embeds: np.ndarray, mask: np.ndarray | None) -> tuple[Tensor, Tensor | None]:
        keys_values = self.transformer.text_keys_values(_flat(embeds))
        return keys_values, None if mask is None else _flat(mask).astype(np.float32)

    def __call__(self, latents: np.ndarray, timestep: float) -> np.ndarray:
        """Latents (B, C, T, H, W) -> noise and variance, float32 (R*B, 2*C, T, H, W), negative half first."""
        frames, sequence = latents.shape[2], self.mesh.sequence
        exchange = ShardedFrameExchange(sequence, frames) if sequence.size > 1 else None
        own, outputs = local_shard(latents, 2, sequence), []
        for group, (keys_values, mask) in zip(self.groups, self.texts, strict=True):
            part = np.concatenate([own[group]] * self.repeats)
            times = np.full(len(part), timestep, np.float32)
            output = self.transformer(
                part,
                times,
                None,
                mask,
                temporal=self.temporal,
                text_kv=keys_values,
                exchange=exchange,
            )
            outputs.append(output.asnumpy().reshape(self.repeats, -1, *output.shape[1:]))
        whole = _flat(gather_frames(np.concatenate(outputs, axis=1), 3, frames, sequence))
        return all_gather_array(whole, self.halves)


def decode_frames(vae: CausalVAE, latents: np.ndarray) -> np.ndarray:
    """Latents (B, C, T, h, w) -> frames uint8 (B, F, H, W, 3).

    Each video is decoded alone: that bounds the memory, and its bytes do not depend on the batch.
    """
    videos = []
    for i in range(len(latents)):
        videos.append(to_bytes(vae.decode(latents[i : i + 1] / np.float32(LATENT_SCALE)).asnumpy()))
    return np.concatenate(videos)


def _flat(x: np.ndarray) -> np.ndarray:
    """(R, B, ...) -> (R*B, ...)."""
    return x.reshape(-1, *x.shape[2:])
