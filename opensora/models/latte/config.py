"""LatteT2V's configuration and the names and shapes of its weights, as in the release files. Loads without MindSpore."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from opensora.weights import TensorSource, check_types, open_weights

TIMESTEP_CHANNELS = 256
# The release keeps a caption for unconditional training in its files, which no forward pass reads.
UNUSED_CAPTION = ("caption_projection.y_embedding", 120)
FIXED = {
    "patch_size_t": 1,
    "activation_fn": "gelu-approximate",
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "rope_scaling_type": "linear",
    "only_cross_attention": False,
    "double_self_attention": False,
    "use_linear_projection": False,
    "attention_type": "default",
    "num_vector_embeds": None,
}


@dataclass(frozen=True)
class LatteConfig:
    """The keys of the release's config.json that shape the model. The defaults are LatteT2V-XL/122's at 65 frames of 512x512."""

    num_layers: int = 28
    num_attention_heads: int = 16
    attention_head_dim: int = 72
    cross_attention_dim: int = 1152
    caption_channels: int = 4096
    in_channels: int = 4
    out_channels: int = 8
    patch_size: int = 2
    sample_size: tuple[int, int] = (64, 64)
    video_length: int = 17
    attention_bias: bool = True
    norm_eps: float = 1e-6
    num_embeds_ada_norm: int = 1000
    use_rope: bool = False
    compress_kv_factor: int = 1
    model_max_length: int = 300

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LatteConfig":
        """From a config.json's content; keys without influence are passed over. ValueError for a form that LatteT2V never had."""
        for name, supported in FIXED.items():
            if values.get(name, supported) != supported:
                raise ValueError(
                    f"config.json says {name} = {values[name]!r}, but a LatteT2V of v1.1 has {supported!r}: use such a model"
                )
        names = {field.name for field in fields(cls)}
        chosen: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
            if key in names
        }
        check_types(cls(), chosen)
        config = cls(**chosen)
        if config.cross_attention_dim != config.width:
            raise ValueError(
                f"cross_attention_dim is {config.cross_attention_dim}: it must be heads x head dim, {config.width}"
            )
        if config.use_rope and config.compress_kv_factor != 1:
            raise ValueError("use_rope and compress_kv_factor exclude each other: switch one of them off")
        if config.use_rope and config.attention_head_dim % 4:
            raise ValueError(
                f"use_rope needs a head dim that is a multiple of 4, not {config.attention_head_dim}"
            )
        return config

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json that the PyTorch original reads."""
        return {"_class_name": "LatteT2V", **FIXED, **asdict(self)}

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def space_scale(self) -> int:
        """Patches to one position, so that a larger grid keeps the range that 64 latents had."""
        return max(self.sample_size[0] // 64, 1)

    @property
    def time_scale(self) -> int:
        """Latent frames to one position."""
        return max((self.video_length - self.video_length % 2) // 16, 1)

    def compresses(self, layer: int) -> bool:
        """Whether this layer's self-attention has fewer keys than queries."""
        return self.compress_kv_factor != 1 and layer >= self.num_layers // 2


def weight_shapes(config: LatteConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every weight by its name in the release file."""
    width = config.width
    size = config.patch_size
    shapes: dict[str, tuple[int, ...]] = {"scale_shift_table": (2, width)}

    def add(name: str, outputs: int, inputs: tuple[int, ...], bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (outputs, *inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    add("pos_embed.proj", width, (config.in_channels, size, size))
    add("proj_out", config.out_channels * size * size, (width,))
    add("adaln_single.emb.timestep_embedder.linear_1", width, (TIMESTEP_CHANNELS,))
    add("adaln_single.emb.timestep_embedder.linear_2", width, (width,))
    add("adaln_single.linear", 6 * width, (width,))
    shapes[UNUSED_CAPTION[0]] = (UNUSED_CAPTION[1], config.caption_channels)
    add("caption_projection.linear_1", width, (config.caption_channels,))
    add("caption_projection.linear_2", width, (width,))
    for layer in range(config.num_layers):
        for kind, attentions, axes in (
            ("transformer_blocks", ("attn1", "attn2"), 2),
            ("temporal_transformer_blocks", ("attn1",), 1),
        ):
            block = f"{kind}.{layer}"
            shapes[f"{block}.scale_shift_table"] = (6, width)
            for attention in attentions:
                for name in ("to_q", "to_k", "to_v"):
                    add(f"{block}.{attention}.{name}", width, (width,), config.attention_bias)
                add(f"{block}.{attention}.to_out.0", width, (width,))
            if config.compresses(layer):
                add(f"{block}.attn1.sr", width, (1, *(config.compress_kv_factor,) * axes))
                add(f"{block}.attn1.norm", width, ())
            add(f"{block}.ff.net.0.proj", 4 * width, (width,))
            add(f"{block}.ff.net.2", width, (4 * width,))
    return shapes


def open_latte(source: str | Path, config: LatteConfig) -> TensorSource:
    """The weights of a LatteT2V, of any publisher's file or a checkpoint of ours. Raises WeightsError."""
    return open_weights(source, expected=weight_shapes(config), unused=(UNUSED_CAPTION[0],))
