"""LatteT2V: a transformer that denoises latent videos under a text.

Blocks alternate between the patches of each frame, which also attend to the text, and the frames of each
patch (Latte, arXiv:2401.03048; Open-Sora-Plan v1.1.0).
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from opensora.engine.mindspore import Forward, Tape
from opensora.models import embeddings
from opensora.models.latte import blocks
from opensora.models.latte.attention import Rotation
from opensora.models.latte.config import TIMESTEP_CHANNELS, LatteConfig, open_latte, weight_specs
from opensora.nn import FrameExchange, Tensor
from opensora.nn.on_demand import OnDemand, tensors
from opensora.runtime import mindspore
from opensora.weights import HalfStorage, load_config, save_weights

ms = mindspore()

TextKeysValues = tuple[Tensor, Tensor]
"""A text's keys and values for one layer, each (B, 1+N, heads, L, d)."""


class LatteT2V:
    """The denoiser: its configuration, and its weights under the names of the release."""

    def __init__(self, config: LatteConfig, weights: Mapping[str, Tensor]) -> None:
        """weights: a dict, or a mapping that makes each tensor when it is read (`OnDemand`)."""
        self.config = config
        self.weights: Any = weights

    @classmethod
    def from_pretrained(cls, folder: str | Path, **overrides: Any) -> "LatteT2V":
        """Load `<folder>/config.json` and its safetensors in float32. Raises WeightsError.

        overrides: values that replace those of config.json.
        """
        config = LatteConfig.from_dict({**load_config(folder), **overrides})
        model = cls(config, {})
        model.load_weights(folder)
        return model

    def load_weights(self, source: str | Path, storage: str = "fp32") -> None:
        """Load weights from a file, a model folder, a checkpoint, or the moving average of a run.

        storage: the number format in memory. "fp16" and "bf16" take half the memory: the weights are rounded,
        and each block converts its own to float32 when it runs.
        Raises WeightsError.
        """
        arrays = open_latte(source, self.config)
        self.weights = tensors(arrays) if storage == "fp32" else OnDemand(HalfStorage(arrays, storage))

    @classmethod
    def initialise(cls, config: LatteConfig, rng: np.random.Generator) -> "LatteT2V":
        """A model with random weights; `weight_specs` gives the distribution of each."""
        specs = weight_specs(config)
        return cls(config, {name: ms.Tensor.from_numpy(spec.draw(rng)) for name, spec in specs.items()})

    def save_pretrained(self, folder: str | Path, dtype: str = "float32") -> None:
        """Write a folder that `from_pretrained` and the reference load."""
        arrays = {name: value.asnumpy() for name, value in self.weights.items()}
        save_weights(folder, self.config.to_dict(), arrays, dtype=dtype)

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
    ) -> Tensor:
        """Predict the noise and the logits of its variance, (B, 4, T+N, H, W) -> (B, 8, T+N, H, W).

        latents: T frames of a video, then N images. The positions of T frames span those of the
            `config.video_length` frames of training.
        timestep: (B,), may be fractional.
        text_embeds: (B, L, C), or (B, 1+N, L, C) with a caption for the video and one for each image.
        text_mask: (B, L) or (B, 1+N, L), 1 keeps a token. None keeps all.
        latent_mask: (B, T+N, H, W), 1 keeps a latent. None keeps all.
        num_images: N.
        temporal: False skips the temporal blocks.
        text_kv: the result of `text_keys_values`; text_embeds is not read then.
        exchange: how temporal blocks reach frames on other devices (`parallel/sequence.py`).

        Raises ValueError for shapes that do not fit the model or one another.
        """
        inputs = latents, timestep, text_embeds, text_mask, latent_mask, num_images, temporal
        return self._forward(Forward(self.weights), *inputs, text_kv=text_kv, exchange=exchange)

    def forward_with_tape(
        self, *inputs: Any, num_no_recompute: int = 0, **options: Any
    ) -> tuple[Tensor, Tape]:
        """Call the model and record a tape: `tape.gradients([(output, gradient)], wanted=[text_embeds])`.

        num_no_recompute: the number of layers, counted from the last, whose activations are saved. The
            backward pass does not compute these layers again.
        """
        layers = range(self.config.num_layers)[-num_no_recompute:] if num_no_recompute else ()
        names = [f"transformer_blocks.{layer}" for layer in layers]
        tape = Tape(self.weights, {*names, *(f"temporal_{name}" for name in names)})
        return self._forward(tape, *inputs, **options), tape

    def value_and_grad(
        self, loss_of_output: Callable[[Tensor], Tensor], *inputs: Any, **options: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss_of_output(output), and its gradients by the names of the weights used."""
        output, tape = self.forward_with_tape(*inputs, **options)
        loss, by_output = ms.value_and_grad(loss_of_output)(output)
        gradients, _ = tape.gradients([(output, by_output)])
        return loss, gradients

    def text_keys_values(self, text_embeds: Tensor) -> list[TextKeysValues]:
        """Keys and values of a text for each layer. Sampling computes them once, not at every step."""
        return self._text_keys_values(Forward(self.weights), text_embeds)

    def _text_keys_values(self, run: Forward, text_embeds: Tensor) -> list[TextKeysValues]:
        text = run(blocks.embed_text, ("caption_projection.linear_",), text_embeds)  # (B, 1+N, L, D)
        heads = self.config.num_attention_heads
        return [
            run(blocks.text_keys_values, f"transformer_blocks.{layer}.attn2", text, heads)
            for layer in range(self.config.num_layers)
        ]

    def _forward(
        self,
        run: Forward,
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
    ) -> Tensor:
        config, exchange = self.config, exchange or FrameExchange()
        frames, grid = self._check_latents(latents, num_images)
        if text_kv is None:
            self._check_text(text_embeds, num_images)
            text_kv = self._text_keys_values(run, text_embeds)
        all_frames = exchange.total_frames(frames)
        positions = _positions(config, all_frames, grid)
        text_bias = None if text_mask is None else blocks.text_bias({}, text_mask.astype(ms.float32))
        latent_biases = self._latent_biases(latent_mask)
        sinusoids = ms.Tensor(embeddings.timestep_embedding(_host(timestep), TIMESTEP_CHANNELS))  # (B, 256)
        space_sizes = grid, config.num_attention_heads, config.norm_eps
        time_sizes = all_frames, config.num_attention_heads, config.norm_eps
        time_block = exchange.wrap_temporal(blocks.temporal)

        embedded, conditioning = run(blocks.embed_timestep, "adaln_single", sinusoids)  # (B, D), (B, 6*D)
        x = run(blocks.embed_patches, "pos_embed", latents, positions.patches)  # (B, T+N, S, D)
        for layer, (keys, values) in enumerate(text_kv):
            name = f"transformer_blocks.{layer}"
            masks = text_bias, latent_biases[layer]
            x = run(
                blocks.spatial, name, x, conditioning, keys, values, *masks, *positions.space, space_sizes
            )  # (B, T+N, S, D)
            if temporal and layer == 0:
                x = run(blocks.add_frame_positions, "", x, exchange.local_rows(positions.frames))
            if temporal:
                x = run(time_block, f"temporal_{name}", x, conditioning, *positions.time, time_sizes)
        head = ("scale_shift_table", "proj_out.")
        return run(blocks.output, head, x, embedded, grid, config.patch_size)  # (B, 2C, T+N, H, W)

    def _latent_biases(self, mask: Tensor) -> list[Tensor]:
        """The bias of each layer's self-attention; a layer that compresses has fewer keys."""
        config = self.config
        if mask is None:
            return [None] * config.num_layers
        mask = mask.astype(ms.float32)
        full = blocks.latent_bias({}, mask, config.patch_size)
        if config.compress_kv_factor == 1:
            return [full] * config.num_layers
        compressed = blocks.latent_bias({}, mask, config.patch_size * config.compress_kv_factor)
        return [compressed if config.compresses(layer) else full for layer in range(config.num_layers)]

    def _check_latents(self, latents: Tensor, num_images: int) -> tuple[int, tuple[int, int]]:
        """The number of frames of the video, and the grid (rows, columns) of patches."""
        channels, size = self.config.in_channels, self.config.patch_size
        if latents.ndim != 5 or latents.shape[1] != channels:
            raise ValueError(
                f"latents have the shape {tuple(latents.shape)}: "
                f"this model takes (batch, {channels}, frames, height, width)"
            )
        height, width = latents.shape[3:]
        if height % size or width % size:
            raise ValueError(
                f"latents are {height}x{width}: height and width must be multiples of the patch size, {size}"
            )
        frames = latents.shape[2] - num_images
        if frames < 1:
            raise ValueError(
                f"num_images is {num_images}, but latents have {latents.shape[2]} frames and images: "
                "pass images alone as a video, with temporal=False"
            )
        return frames, (height // size, width // size)

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


def _host(timestep: Tensor) -> np.ndarray:
    return timestep.asnumpy() if isinstance(timestep, ms.Tensor) else np.asarray(timestep)


class Positions(NamedTuple):
    """Where patches and frames are: what is added to the tokens, and how the heads are rotated."""

    patches: Tensor  # (S, D)
    frames: Tensor  # (T, D)
    space: Rotation  # (S, d)
    time: Rotation  # (T, d)


@lru_cache(maxsize=8)
def _positions(config: LatteConfig, frames: int, grid: tuple[int, int]) -> Positions:
    base_size = config.sample_size[0] // config.patch_size
    patches = embeddings.sincos_2d(config.width, grid, base_size, config.space_scale)
    times = embeddings.sincos_frames(config.width, frames, config.video_length, config.time_scale)
    space: Rotation = (None, None)
    time: Rotation = (None, None)
    if config.use_rope:
        cos, sin = embeddings.rope_2d(config.attention_head_dim, grid, config.space_scale)
        space = ms.Tensor(cos), ms.Tensor(sin)
        cos, sin = embeddings.rope_1d(config.attention_head_dim, frames, config.time_scale)
        time = ms.Tensor(cos), ms.Tensor(sin)
    return Positions(ms.Tensor(patches), ms.Tensor(times), space, time)
