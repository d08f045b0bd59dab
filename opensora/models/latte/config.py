"""Configuration of LatteT2V, and its weights by their names in the release files. Loads without MindSpore."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from opensora.config_files import Range, shown, typed
from opensora.models.initial import Initialiser, mean_kernel, normally, ones, xavier, zeros
from opensora.weights import Shapes, TensorSource, WeightsError, config_folder, load_config, open_weights

TIMESTEP_CHANNELS = 256
# Name and rows of the caption for unconditional training; the release holds it, no forward pass reads it.
UNUSED_CAPTION = ("caption_projection.y_embedding", 120)
# Settings that every config.json of v1.1 has and none of v1.0.
ADDED_IN_V11 = ("use_rope", "rope_scaling_type", "compress_kv_factor")
# Settings of config.json that have one value in all LatteT2V models.
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
    """Settings of the release's config.json.

    The defaults are those of LatteT2V-XL/122, 65 frames of 512x512.
    """

    # Architecture
    num_layers: Annotated[int, Range(1, 1000)] = 28
    num_attention_heads: Annotated[int, Range(1, 1024)] = 16
    attention_head_dim: Annotated[int, Range(2, 4096)] = 72
    cross_attention_dim: Annotated[int, Range(2, 2**17)] = 1152
    attention_bias: bool = True
    norm_eps: Annotated[float, Range(0, 1)] = 1e-6
    num_embeds_ada_norm: Annotated[int, Range(1, 2**20)] = 1000
    compress_kv_factor: Annotated[int, Range(1, 64)] = 1
    # Latents
    in_channels: Annotated[int, Range(1, 1024)] = 4
    out_channels: Annotated[int, Range(1, 2048)] = 8
    patch_size: Annotated[int, Range(1, 64)] = 2
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    """The last layer predicts the noise or the velocity (arXiv:2202.00512). The model returns the noise in
    both cases. All released models predict the noise."""
    # Positions
    sample_size: Annotated[tuple[int, int], Range(1, 4096)] = (64, 64)
    video_length: Annotated[int, Range(1, 2**16)] = 17
    use_rope: bool = False
    interpolation_scale_1d: Annotated[float, Range(1e-3, 2**16)] | None = None
    release: Literal["v1.0", "v1.1"] = "v1.1"
    # Text
    caption_channels: Annotated[int, Range(1, 2**16)] = 4096
    model_max_length: Annotated[int, Range(1, 2**14)] = 300

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: object = "config.json") -> "LatteConfig":
        """From a config.json's content; keys without influence are passed over. where: the file, for errors.

        A file without the settings that v1.1 added describes a model of v1.0.
        Raises ValueError for values out of range, and for a form that LatteT2V never had.
        """
        for name, supported in FIXED.items():
            if values.get(name, supported) != supported:
                raise ValueError(
                    f"{where} says {name} = {shown(values[name])}, "
                    f"but a LatteT2V has {supported!r}: use such a model"
                )
        release = "v1.1" if any(name in values for name in ADDED_IN_V11) else "v1.0"
        return typed(cls, {**values, "release": release}, where)._checked(where)

    def changed(self, **settings: Any) -> "LatteConfig":
        """A copy with other settings. Raises ValueError for settings that do not go together."""
        return replace(self, **settings)._checked("the transformer's configuration")

    def _checked(self, where: object) -> "LatteConfig":
        if self.cross_attention_dim != self.width:
            raise ValueError(
                f"{where}: cross_attention_dim is {self.cross_attention_dim}, but heads x head dim is "
                f"{self.width}: make them equal"
            )
        if self.use_rope and self.compress_kv_factor != 1:
            raise ValueError(
                f"{where}: use_rope and compress_kv_factor exclude each other: switch one of them off"
            )
        if self.use_rope and self.attention_head_dim % 4:
            raise ValueError(
                f"{where}: use_rope needs a head dim that is a multiple of 4, not {self.attention_head_dim}"
            )
        if self.release == "v1.0" and (self.use_rope or self.compress_kv_factor != 1):
            raise ValueError(
                f"{where} is that of a v1.0 model, which has neither rotary positions nor compressed keys: "
                "leave out --use_rope and --compress_kv_factor, or train a v1.1 model"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json; the reference reads it, but knows no velocity."""
        settings = {"_class_name": "LatteT2V", **FIXED, **asdict(self)}
        omitted = {"release", *(ADDED_IN_V11 if self.release == "v1.0" else ())}
        if self.interpolation_scale_1d is None:
            omitted.add("interpolation_scale_1d")
        if self.prediction_type == "epsilon":
            omitted.add("prediction_type")
        return {name: value for name, value in settings.items() if name not in omitted}

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def space_scale(self) -> int:
        """Patches per position: a larger grid keeps the range of positions of 64x64 latents."""
        return max(self.sample_size[0] // 64, 1)

    @property
    def time_scale(self) -> float:
        """Latent frames per position. The rule of v1.1 differs from that of v1.0."""
        if self.interpolation_scale_1d is not None:
            return self.interpolation_scale_1d
        if self.release == "v1.0":
            return max(self.video_length // 5, 1)
        return max((self.video_length - self.video_length % 2) // 16, 1)

    def compresses(self, layer: int) -> bool:
        """True if this layer's self-attention has fewer keys than queries."""
        return self.compress_kv_factor != 1 and layer >= self.num_layers // 2


class WeightSpec(NamedTuple):
    """Shape of a weight, and how it is drawn for a new model."""

    shape: tuple[int, ...]
    initial: Initialiser

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A random weight, float32."""
        return self.initial(rng, self.shape)


def weight_specs(config: LatteConfig) -> dict[str, WeightSpec]:
    """Every weight by its name in the release file, in the order of its drawing.

    Distributions follow PixArt-alpha (arXiv:2310.00426): Xavier-uniform projections and normal conditioning.
    The projections that end the model and the cross-attentions are zero-initialised, so that training starts
    from a prediction of zero which ignores the text. So are those that end the temporal blocks: a model
    trained on images keeps its predictions when training goes on with videos.
    """
    width, size = config.width, config.patch_size
    conditioning = normally(0.02)
    specs = {"scale_shift_table": WeightSpec((2, width), normally(width**-0.5))}

    def add(
        name: str, outputs: int, inputs: tuple[int, ...], initial: Initialiser = xavier, bias: bool = True
    ) -> None:
        specs[f"{name}.weight"] = WeightSpec((outputs, *inputs), initial)
        if bias:
            specs[f"{name}.bias"] = WeightSpec((outputs,), zeros)

    def add_block(name: str, attentions: dict[str, Initialiser], ff_out: Initialiser, axes: int) -> None:
        """attentions: how each one's last projection is drawn; ff_out: the same for the feed-forward."""
        specs[f"{name}.scale_shift_table"] = WeightSpec((6, width), normally(width**-0.5))
        for attention, attention_out in attentions.items():
            for projection in ("to_q", "to_k", "to_v"):
                add(f"{name}.{attention}.{projection}", width, (width,), bias=config.attention_bias)
            add(f"{name}.{attention}.to_out.0", width, (width,), attention_out)
        if config.compresses(layer):
            # Before training a compressed key is the mean of its tokens.
            add(f"{name}.attn1.sr", width, (1, *(config.compress_kv_factor,) * axes), mean_kernel)
            add(f"{name}.attn1.norm", width, (), ones)
        add(f"{name}.ff.net.0.proj", 4 * width, (width,))
        add(f"{name}.ff.net.2", width, (4 * width,), ff_out)

    add("pos_embed.proj", width, (config.in_channels, size, size))
    add("proj_out", config.out_channels * size * size, (width,), zeros)
    add("adaln_single.emb.timestep_embedder.linear_1", width, (TIMESTEP_CHANNELS,), conditioning)
    add("adaln_single.emb.timestep_embedder.linear_2", width, (width,), conditioning)
    add("adaln_single.linear", 6 * width, (width,), conditioning)
    specs[UNUSED_CAPTION[0]] = WeightSpec((UNUSED_CAPTION[1], config.caption_channels), conditioning)
    add("caption_projection.linear_1", width, (config.caption_channels,), conditioning)
    add("caption_projection.linear_2", width, (width,), conditioning)
    for layer in range(config.num_layers):
        add_block(f"transformer_blocks.{layer}", {"attn1": xavier, "attn2": zeros}, xavier, axes=2)
        add_block(f"temporal_transformer_blocks.{layer}", {"attn1": zeros}, zeros, axes=1)
    return specs


def weight_shapes(config: LatteConfig) -> Shapes:
    """Shape of every weight by its name in the release file."""
    return {name: spec.shape for name, spec in weight_specs(config).items()}


def open_latte(source: str | Path, config: LatteConfig) -> TensorSource:
    """The weights of a LatteT2V in any publisher's file or in one of our checkpoints. Raises WeightsError."""
    _check_prediction(source, config)
    return open_weights(source, expected=weight_shapes(config), unused=(UNUSED_CAPTION[0],))


def _check_prediction(source: str | Path, config: LatteConfig) -> None:
    """Raise WeightsError for weights whose config.json says that they predict something else."""
    folder = config_folder(Path(source))
    found = None if folder is None else load_config(folder).get("prediction_type", "epsilon")
    if found not in (None, config.prediction_type):
        raise WeightsError(
            f"{source} has the prediction_type {shown(found)}, but the model's is {config.prediction_type}: "
            "choose weights of that type, or write the other one into the model's config.json"
        )
