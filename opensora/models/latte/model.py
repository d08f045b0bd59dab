"""LatteT2V: a transformer that denoises latent videos under a text (Latte, arXiv:2401.03048; Open-Sora-Plan v1.1.0).

Blocks alternate between the patches of each frame (which also see the text) and the frames of each patch.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from opensora.engine.mindspore import Forward, Tape
from opensora.models import embeddings
from opensora.models.initial import normal, uniform
from opensora.models.latte import blocks
from opensora.models.latte.config import TIMESTEP_CHANNELS, LatteConfig, open_latte, weight_shapes
from opensora.nn.exchange import Alone
from opensora.nn.on_demand import OnDemand, tensors
from opensora.runtime import mindspore
from opensora.weights import HalfStorage, load_config, save_weights

ms = mindspore()

# A text's keys and values for one layer, each (B, 1+N, heads, L, d).
TextKeysValues = tuple[Any, Any]


class LatteT2V:
    """The denoiser: a config and a dict of weights under the release's names, or OnDemand in its place."""

    def __init__(self, config: LatteConfig, weights: Mapping[str, Any]) -> None:
        self.config = config
        self.weights: Any = weights

    @classmethod
    def from_pretrained(cls, folder: str | Path, **overrides: Any) -> "LatteT2V":
        """Load `<folder>/config.json` and its safetensors in float32; `overrides` replace keys of the config. Raises WeightsError."""
        config = LatteConfig.from_dict({**load_config(folder), **overrides})
        model = cls(config, {})
        model.load_weights(folder)
        return model

    def load_weights(self, source: str | Path, storage: str = "fp32") -> None:
        """Take the weights of a file, a model folder, a checkpoint or a run (its moving average). Raises WeightsError.

        storage: how they are kept in memory. With "fp16" or "bf16", half the memory, each block's are made float32 when it runs, so
        the result is that of a model whose weights were rounded.
        """
        arrays = open_latte(source, self.config)
        self.weights = tensors(arrays) if storage == "fp32" else OnDemand(HalfStorage(arrays, storage))

    @classmethod
    def initialise(cls, config: LatteConfig, rng: np.random.Generator) -> "LatteT2V":
        """Fresh weights after PixArt-alpha's rules: Xavier-uniform maps, normal conditioning, and zeros where the output and the
        text enter, so that training starts from a prediction of zero that does not depend on the text. The blocks that join
        frames add nothing at first: a model that has learned pictures goes on to videos as it is."""
        return cls(
            config,
            {
                name: ms.Tensor.from_numpy(_initial(name, shape, rng))
                for name, shape in weight_shapes(config).items()
            },
        )

    def save_pretrained(self, folder: str | Path, dtype: str = "float32") -> None:
        """Write config.json and diffusion_pytorch_model.safetensors, which `from_pretrained` and the PyTorch original load."""
        arrays = {name: value.asnumpy() for name, value in self.weights.items()}
        save_weights(folder, self.config.to_dict(), arrays, dtype=dtype)

    def __call__(
        self,
        latents: Any,
        timestep: Any,
        text_embeds: Any,
        text_mask: Any = None,
        latent_mask: Any = None,
        num_images: int = 0,
        temporal: bool = True,
        text_kv: list[TextKeysValues] | None = None,
        exchange: Alone | None = None,
    ) -> Any:
        """Predicted noise and variance logits (B, 8, T, H, W) of latents (B, 4, T, H, W), N images after the video on T.

        timestep: (B,), may be fractional. text_embeds: (B, L, C), or (B, 1+N, L, C) with a caption for each image.
        text_mask: (B, L) or (B, 1+N, L), latent_mask: (B, T, H, W); 1 keeps, None keeps all.
        num_images: N. temporal: False leaves out the blocks that join frames. text_kv: from `text_keys_values`, in place of
        text_embeds, which is not read then. Counts of frames other than video_length interpolate the time positions.
        exchange: how frames meet where these are only some of a video's (`parallel/sequence.py`); None: all of them are here.
        Raises ValueError for shapes that do not fit.
        """
        inputs = latents, timestep, text_embeds, text_mask, latent_mask
        return self._forward(
            Forward(self.weights),
            *inputs,
            num_images=num_images,
            temporal=temporal,
            text_kv=text_kv,
            exchange=exchange,
        )

    def forward_with_tape(self, *inputs: Any, num_no_recompute: int = 0, **options: Any) -> tuple[Any, Tape]:
        """The output of a call with these inputs, and the tape: `tape.gradients([(output, gradient)], wanted=[text_embeds])`.

        num_no_recompute: how many layers, the last ones, keep what they compute, so that the gradients do not compute it again.
        """
        layers = range(self.config.num_layers)[-num_no_recompute:] if num_no_recompute else ()
        tape = Tape(
            self.weights,
            {f"{kind}transformer_blocks.{layer}" for layer in layers for kind in ("", "temporal_")},
        )
        return self._forward(tape, *inputs, **options), tape

    def value_and_grad(
        self, loss_of_output: Callable[[Any], Any], *inputs: Any, **options: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The scalar loss_of_output(output) and its gradient by every weight that was used, under the same names."""
        output, tape = self.forward_with_tape(*inputs, **options)
        loss, by_output = ms.value_and_grad(loss_of_output)(output)
        gradients, _ = tape.gradients([(output, by_output)])
        return loss, gradients

    def text_keys_values(self, text_embeds: Any) -> list[TextKeysValues]:
        """What the cross-attention of each layer needs of a text. It depends on nothing else: sampling computes it once."""
        return self._text_keys_values(Forward(self.weights), text_embeds)

    def _text_keys_values(self, run: Forward, text_embeds: Any) -> list[TextKeysValues]:
        text = run(blocks.captions, ("caption_projection.linear_",), text_embeds)  # (B, 1+N, L, D)
        heads = self.config.num_attention_heads
        return [
            run(blocks.text_keys_values, f"transformer_blocks.{layer}.attn2", text, heads)
            for layer in range(self.config.num_layers)
        ]

    def _forward(
        self,
        run: Forward,
        latents: Any,
        timestep: Any,
        text_embeds: Any,
        text_mask: Any = None,
        latent_mask: Any = None,
        num_images: int = 0,
        temporal: bool = True,
        text_kv: list[TextKeysValues] | None = None,
        exchange: Alone | None = None,
    ) -> Any:
        config, exchange = self.config, exchange or Alone()
        frames, grid = self._check_shapes(latents, num_images)
        if text_kv is None:
            self._check_text(text_embeds, num_images)
            text_kv = self._text_keys_values(run, text_embeds)
        table = embeddings.timestep_embedding(_host(timestep), TIMESTEP_CHANNELS)
        embedded_timestep, conditioning = run(blocks.timesteps, "adaln_single", ms.Tensor(table))
        text_bias = None if text_mask is None else blocks.text_bias({}, text_mask.astype(ms.float32))
        latent_biases = self._latent_biases(latent_mask)
        all_frames = exchange.total(frames)
        space, time = (
            _rope_tables(config, all_frames, grid) if config.use_rope else ((None, None), (None, None))
        )
        sizes = (config.num_attention_heads, config.norm_eps)

        x = run(blocks.patches, "pos_embed", latents, _grid_positions(config, grid))  # (B, T+N, S, D)
        for layer in range(config.num_layers):
            latent_bias = latent_biases[layer >= config.num_layers // 2]
            block = f"transformer_blocks.{layer}"
            x = run(
                blocks.spatial,
                block,
                x,
                conditioning,
                *text_kv[layer],
                text_bias,
                latent_bias,
                *space,
                frames,
                grid,
                *sizes,
            )
            if temporal:
                if layer == 0:
                    x = run(
                        blocks.add_frame_positions,
                        "",
                        x,
                        exchange.own(_frame_positions(config, all_frames)),
                    )
                x = run(
                    exchange.over_time(blocks.temporal),
                    f"temporal_{block}",
                    x,
                    conditioning,
                    *time,
                    all_frames,
                    *sizes,
                )
        return run(
            blocks.output,
            ("scale_shift_table", "proj_out."),
            x,
            embedded_timestep,
            grid,
            config.patch_size,
        )

    def _latent_biases(self, mask: Any) -> tuple[Any, Any]:
        """The bias of the keys in the first half of the layers and in the second, whose keys may be compressed."""
        if mask is None:
            return None, None
        mask, size = mask.astype(ms.float32), self.config.patch_size
        full = blocks.latent_bias({}, mask, size)
        factor = self.config.compress_kv_factor
        return full, full if factor == 1 else blocks.latent_bias({}, mask, size * factor)

    def _check_shapes(self, latents: Any, num_images: int) -> tuple[int, tuple[int, int]]:
        """The number of frames of the video and the grid (rows, columns) of patches."""
        config = self.config
        if latents.ndim != 5 or latents.shape[1] != config.in_channels:
            raise ValueError(
                f"latents have the shape {tuple(latents.shape)}: (batch, {config.in_channels}, frames, height, width) is needed"
            )
        if latents.shape[3] % config.patch_size or latents.shape[4] % config.patch_size:
            raise ValueError(
                f"latents are {latents.shape[3]}x{latents.shape[4]}: both must be multiples of the patch, {config.patch_size}"
            )
        frames = latents.shape[2] - num_images
        if frames < 1:
            raise ValueError(
                f"{num_images} images leave no frame of a video: pass images alone as a video with temporal=False"
            )
        return frames, (latents.shape[3] // config.patch_size, latents.shape[4] // config.patch_size)

    def _check_text(self, text_embeds: Any, num_images: int) -> None:
        shape = tuple(text_embeds.shape)
        if shape[-1] != self.config.caption_channels:
            raise ValueError(
                f"text embeddings have {shape[-1]} channels, this model needs {self.config.caption_channels}: use its text encoder"
            )
        if len(shape) != 3 + (num_images > 0) and shape[1] != 1 + num_images:
            raise ValueError(
                f"text embeddings have the shape {shape}: {num_images} images need (batch, {1 + num_images}, length, channels)"
            )


def _host(timestep: Any) -> np.ndarray:
    return timestep.asnumpy() if isinstance(timestep, ms.Tensor) else np.asarray(timestep)


@lru_cache(maxsize=8)
def _grid_positions(config: LatteConfig, grid: tuple[int, int]) -> Any:
    return ms.Tensor(
        embeddings.sincos_2d(
            config.width, grid, config.sample_size[0] // config.patch_size, config.space_scale
        )
    )


@lru_cache(maxsize=8)
def _frame_positions(config: LatteConfig, frames: int) -> Any:
    return ms.Tensor(embeddings.sincos_frames(config.width, frames, config.video_length, config.time_scale))


@lru_cache(maxsize=8)
def _rope_tables(
    config: LatteConfig, frames: int, grid: tuple[int, int]
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    cos, sin = embeddings.rope_2d(config.attention_head_dim, grid, config.space_scale)
    time_cos, time_sin = embeddings.rope_1d(config.attention_head_dim, frames, config.time_scale)
    return (ms.Tensor(cos), ms.Tensor(sin)), (ms.Tensor(time_cos), ms.Tensor(time_sin))


def _starts_silent(name: str) -> bool:
    """Whether a map's output is to be nothing at first: the prediction, what the text adds, and what other frames add."""
    joins_frames = name.startswith("temporal_") and (".attn1.to_out." in name or ".ff.net.2." in name)
    return joins_frames or name.startswith("proj_out.") or ".attn2.to_out." in name


def _initial(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if name.endswith("scale_shift_table"):
        return normal(rng, shape, shape[1] ** -0.5)
    if _starts_silent(name):
        return np.zeros(shape, np.float32)
    if ".attn1.norm." in name:
        return np.full(shape, 1.0 if name.endswith("weight") else 0.0, np.float32)
    if ".attn1.sr.weight" in name:
        return np.full(shape, 1.0 / np.prod(shape[2:]), np.float32)  # the mean of the tokens
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if name.startswith(("adaln_single.", "caption_projection.")):
        return normal(rng, shape, 0.02)
    return uniform(rng, shape, np.sqrt(6.0 / (np.prod(shape[1:]) + shape[0])))
