"""LatteT2V: a transformer that denoises latent videos under a text.

Blocks alternate between the patches of each frame, which also attend to the text, and the frames of each
patch (Latte, arXiv:2401.03048; Open-Sora-Plan v1.1.0).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opensora.diffusion.schedule import signal_and_noise
from opensora.engine import Engine, open_engine, run_network
from opensora.engine.block import as_array
from opensora.models import embeddings
from opensora.models.latent_transformer import LatentTransformer
from opensora.models.latte import blocks
from opensora.models.latte.config import TIMESTEP_CHANNELS, LatteConfig, open_latte, weight_specs
from opensora.models.latte.masks import latent_biases
from opensora.models.latte.network import Masks, TextKeysValues, denoise, text_keys_values
from opensora.nn import FrameExchange, Tensor
from opensora.weights import CONFIG, HalfStorage, load_config

if TYPE_CHECKING:
    from opensora.engine.mindspore import Tape

ALL_FRAMES_HERE = FrameExchange()


class LatteT2V(LatentTransformer[LatteConfig]):
    """The denoiser: its configuration, and its weights under the names of the release."""

    images_alone = "pass images alone as a video, with temporal=False"

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        engine: str | Engine = "mindspore",
        precision: str = "fp32",
        **overrides: Any,
    ) -> "LatteT2V":
        """Load `<folder>/config.json` and its safetensors. Raises WeightsError.

        engine: "mindspore" or "openvino".
        precision: "fp32", or "bf16" where the device has it; else ValueError.
        overrides: values that replace those of config.json.
        """
        config = LatteConfig.from_dict({**load_config(folder), **overrides}, Path(folder) / CONFIG)
        model = cls(config, {}, open_engine(engine, precision))
        model.load_weights(folder)
        return model

    def load_weights(self, source: str | Path, storage: str = "fp32") -> None:
        """Load weights from a file, a model folder, a checkpoint, or the moving average of a run.

        storage: the number format in memory. "fp16" and "bf16" take half the memory: the weights are rounded,
        and each block converts its own to float32 when it runs.
        Raises WeightsError.
        """
        arrays = open_latte(source, self.config)
        if storage == "fp32":
            self.weights = self.engine.weights(arrays)
        else:
            self.weights = self.engine.on_demand(HalfStorage(arrays, storage))

    @classmethod
    def initialise(cls, config: LatteConfig, rng: np.random.Generator) -> "LatteT2V":
        """A model with random weights; `weight_specs` gives the distribution of each."""
        specs = weight_specs(config)
        return cls(config, open_engine().weights({name: spec.draw(rng) for name, spec in specs.items()}))

    def __call__(
        self,
        latents: Tensor,
        timestep: Tensor,
        text_embeds: Tensor,
        text_mask: Tensor = None,
        latent_mask: Tensor = None,
        num_images: int = 0,
        temporal: bool = True,
        *,
        text_kv: list[TextKeysValues] | None = None,
        exchange: FrameExchange | None = None,
        tape: "Tape | None" = None,
    ) -> Tensor:
        """Predict the noise and the logits of its variance, (B, 4, T+N, H, W) -> (B, 8, T+N, H, W).

        latents: T frames of a video, then N images. The positions of T frames span those of the
            `config.video_length` frames of training.
        timestep: (B,), may be fractional.
        text_embeds: (B, L, C), or (B, 1+N, L, C) with a caption for the video and one for each image.
        text_mask: (B, L) or (B, 1+N, L), 1 keeps a token. None keeps all.
        latent_mask: (B, T+N, H, W), 1 keeps a latent; or of the patches of each frame, (B*(T+N), S), as
            v1.0 takes it. None keeps all.
        num_images: N.
        temporal: False skips the temporal blocks.
        text_kv: the result of `text_keys_values`; text_embeds is not read then.
        exchange: how temporal blocks reach frames on other devices (`parallel/sequence.py`).
        tape: records the call for gradients; `forward_with_tape` makes one.

        Raises ValueError for shapes that do not fit the model or one another.
        """
        self.check_latents(latents, num_images)
        if text_kv is None:
            self._check_text(text_embeds, num_images)
            text_kv = run_network(self.engine, tape, text_keys_values, self.weights, self.config, text_embeds)
        return run_network(
            self.engine,
            tape,
            denoise,
            self.weights,
            self.config,
            latents,
            _sinusoids(timestep),
            self._levels(timestep),
            text_kv,
            self._masks(text_mask, latent_mask, latents),
            num_images,
            temporal,
            exchange or ALL_FRAMES_HERE,
        )

    def last_blocks(self, layers: int) -> set[str]:
        total = self.config.num_layers
        names = [f"transformer_blocks.{layer}" for layer in range(max(0, total - layers), total)]
        return {*names, *(f"temporal_{name}" for name in names)}

    def text_keys_values(self, text_embeds: Tensor) -> list[TextKeysValues]:
        """Keys and values of a text for each layer. Sampling computes them once, not at every step."""
        return list(self.engine.run(text_keys_values, self.weights, self.config, text_embeds))

    def _levels(self, timestep: Tensor) -> np.ndarray | None:
        """Factors of signal and noise (B, 2), for a model that predicts the velocity."""
        if self.config.prediction_type == "epsilon":
            return None
        return signal_and_noise(np.asarray(as_array(timestep)))

    def _masks(self, text_mask: Tensor, latent_mask: Tensor, latents: Tensor) -> Masks:
        """The masks of the keys, 1 = keep, as biases of the scores. Raises ValueError for another shape."""
        text = None if text_mask is None else self.engine.call(blocks.text_bias, {}, text_mask)
        if latent_mask is None:
            return Masks(text, None, None)
        sizes = self.config.patch_size, self.config.compress_kv_factor
        return Masks(text, *latent_biases(self.engine, latent_mask, latents.shape, *sizes))

    def _check_text(self, text_embeds: Tensor, num_images: int) -> None:
        shape, channels = tuple(text_embeds.shape), self.config.caption_channels
        if shape[-1] != channels:
            raise ValueError(
                f"text embeddings have {shape[-1]} channels, this model takes {channels}: "
                "use the text encoder that it was trained with"
            )
        captions = shape[1] if len(shape) == 4 else 1
        if captions != 1 + num_images:
            raise ValueError(
                f"text embeddings have the shape {shape}: with {num_images} images it must be "
                f"(batch, {1 + num_images}, length, channels), a caption for the video and for each image"
            )


def _sinusoids(timestep: Tensor) -> np.ndarray:
    """(B,) -> (B, 256)."""
    return embeddings.timestep_embedding(np.asarray(as_array(timestep)), TIMESTEP_CHANNELS)
