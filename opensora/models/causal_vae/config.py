"""CausalVAE's configuration, and its encoder and decoder as chains of layers. Does not import MindSpore."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from opensora.config_files import Length, Range, shown, typed
from opensora.models.causal_vae.layers import LAYER_KINDS, LayerKind
from opensora.models.geometry import Strides
from opensora.weights import Shapes, TensorSource, open_weights, weight_files
from opensora.weights.sources import open_file
from opensora.weights.vae_2d import is_vae_2d, open_vae_2d

LATENT_SCALE = 0.18215
"""Factor that gives latents unit variance (Open-Sora-Plan v1.1.0, after Stable Diffusion)."""

Conv = Literal["Conv2d", "CausalConv3d"]
Resnet = Literal["ResnetBlock2D", "ResnetBlock3D"]
Attention = Literal["AttnBlock3D", "AttnBlock3DFix"]
SpatialDown = Literal["", "Downsample", "SpatialDownsample2x"]
SpatialUp = Literal["", "SpatialUpsample2x"]
TimeDown = Literal["", "TimeDownsample2x", "TimeDownsampleRes2x"]
TimeUp = Literal["", "TimeUpsample2x", "TimeUpsampleRes2x"]
DOWN_BLOCK, UP_BLOCK = "DownEncoderBlock2D", "UpDecoderBlock2D"
LEVELS = (
    "encoder_resnet_blocks",
    "encoder_spatial_downsample",
    "encoder_temporal_downsample",
    "decoder_resnet_blocks",
    "decoder_spatial_upsample",
    "decoder_temporal_upsample",
)
"""Settings with one block for each level of the network."""


@dataclass(frozen=True)
class CausalVAEConfig:
    """The release's config.json; blocks are named as in `LAYER_KINDS`.

    The defaults are those of the v1.1.0 weights.
    """

    hidden_size: Annotated[int, Range(1, 4096)] = 128
    hidden_size_mult: Annotated[tuple[int, ...], Length(1, 8), Range(1, 64)] = (1, 2, 4, 4)
    num_res_blocks: Annotated[int, Range(0, 32)] = 2
    z_channels: Annotated[int, Range(1, 1024)] = 4
    embed_dim: Annotated[int, Range(1, 1024)] = 4
    double_z: bool = True
    resolution: Annotated[int, Range(1, 2**16)] = 256
    attn_resolutions: Annotated[tuple[int, ...], Length(0, 16)] = ()
    norm_num_groups: Annotated[int, Range(1, 4096)] = 32
    """The release always has 32 groups. A narrow model needs fewer: a norm of single channels erases flat
    colour."""
    q_conv: str = "CausalConv3d"
    encoder_conv_in: Conv = "Conv2d"
    encoder_conv_out: Conv = "CausalConv3d"
    encoder_attention: Attention = "AttnBlock3DFix"
    encoder_resnet_blocks: tuple[Resnet, ...] = (
        "ResnetBlock2D",
        "ResnetBlock2D",
        "ResnetBlock3D",
        "ResnetBlock3D",
    )
    encoder_mid_resnet: Resnet = "ResnetBlock3D"
    encoder_spatial_downsample: tuple[SpatialDown, ...] = ("Downsample", "Downsample", "Downsample", "")
    encoder_temporal_downsample: tuple[TimeDown, ...] = (
        "",
        "TimeDownsampleRes2x",
        "TimeDownsampleRes2x",
        "",
    )
    decoder_conv_in: Conv = "CausalConv3d"
    decoder_conv_out: Conv = "CausalConv3d"
    decoder_attention: Attention = "AttnBlock3DFix"
    decoder_resnet_blocks: tuple[Resnet, ...] = (
        "ResnetBlock3D",
        "ResnetBlock3D",
        "ResnetBlock3D",
        "ResnetBlock3D",
    )
    decoder_mid_resnet: Resnet = "ResnetBlock3D"
    decoder_spatial_upsample: tuple[SpatialUp, ...] = (
        "",
        "SpatialUpsample2x",
        "SpatialUpsample2x",
        "SpatialUpsample2x",
    )
    decoder_temporal_upsample: tuple[TimeUp, ...] = ("", "", "TimeUpsampleRes2x", "TimeUpsampleRes2x")
    frame_by_frame: bool = False
    """Every frame is encoded and decoded by itself: an autoencoder of images."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: object = "config.json") -> "CausalVAEConfig":
        """From the content of a config.json; other keys are ignored. where: the file, for errors.

        That of an autoencoder of images, such as sd-vae-ft-mse, has the names of diffusers' AutoencoderKL.

        Raises ValueError for values out of range, unknown blocks and levels that do not fit one another.
        """
        if is_of_images(values):
            values = typed(_AutoencoderKL, values, where).settings(where)
        config = typed(cls, values, where)
        levels = len(config.hidden_size_mult)
        for name in LEVELS:
            if len(getattr(config, name)) != levels:
                raise ValueError(
                    f"{where} says {name} = {shown(getattr(config, name))}, "
                    f"but hidden_size_mult has {levels} levels: write one block for each"
                )
        for factor in config.hidden_size_mult:
            if config.hidden_size * factor % config.norm_num_groups:
                raise ValueError(
                    f"{where} says norm_num_groups = {config.norm_num_groups}, "
                    f"which does not divide a width of {config.hidden_size * factor}: correct one of them"
                )
        return config

    @property
    def strides(self) -> Strides:
        """The factors by which latents are smaller than the video."""
        steps = [layer.kind.down for layer in encoder_layers(self)]
        return Strides(prod(step.time for step in steps), prod(step.space for step in steps))


def is_of_images(values: Mapping[str, Any]) -> bool:
    """True for the config.json of an autoencoder of images, such as sd-vae-ft-mse."""
    return "block_out_channels" in values


@dataclass(frozen=True)
class _AutoencoderKL:
    """The settings of an autoencoder of images under their names in diffusers."""

    block_out_channels: Annotated[tuple[int, ...], Length(1, 8), Range(1, 65536)]
    layers_per_block: Annotated[int, Range(0, 32)] = 1
    latent_channels: Annotated[int, Range(1, 1024)] = 4
    norm_num_groups: Annotated[int, Range(1, 4096)] = 32
    sample_size: Annotated[int, Range(1, 2**16)] = 256
    act_fn: str = "silu"
    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ()
    up_block_types: tuple[str, ...] = ()

    def settings(self, where: object) -> dict[str, Any]:
        """The same network in terms of a CausalVAE. Raises ValueError for what it does not have."""
        fixed = {"act_fn": "silu", "in_channels": 3, "out_channels": 3}
        for name, supported in fixed.items():
            if getattr(self, name) != supported:
                raise ValueError(
                    f"{where} says {name} = {shown(getattr(self, name))}, but only {supported!r} is "
                    "supported: use an autoencoder such as sd-vae-ft-mse"
                )
        for name, kind in (("down_block_types", DOWN_BLOCK), ("up_block_types", UP_BLOCK)):
            if wrong := [block for block in getattr(self, name) if block != kind]:
                raise ValueError(f"{where} names the block {shown(wrong[0])}: only {kind} is supported")
        first, levels = self.block_out_channels[0], len(self.block_out_channels)
        if any(width % first for width in self.block_out_channels):
            raise ValueError(
                f"{where} says block_out_channels = {shown(self.block_out_channels)}: each must be a "
                "multiple of the first"
            )
        return {
            "hidden_size": first,
            "hidden_size_mult": [width // first for width in self.block_out_channels],
            "num_res_blocks": self.layers_per_block,
            "z_channels": self.latent_channels,
            "embed_dim": self.latent_channels,
            "resolution": self.sample_size,
            "norm_num_groups": self.norm_num_groups,
            **dict.fromkeys(
                ("encoder_conv_in", "encoder_conv_out", "decoder_conv_in", "decoder_conv_out"), "Conv2d"
            ),
            **dict.fromkeys(("encoder_mid_resnet", "decoder_mid_resnet"), "ResnetBlock2D"),
            **dict.fromkeys(("encoder_resnet_blocks", "decoder_resnet_blocks"), ["ResnetBlock2D"] * levels),
            "encoder_spatial_downsample": [*["Downsample"] * (levels - 1), ""],
            "decoder_spatial_upsample": ["", *["SpatialUpsample2x"] * (levels - 1)],
            **dict.fromkeys(("encoder_temporal_downsample", "decoder_temporal_upsample"), [""] * levels),
            "frame_by_frame": True,
        }


@dataclass(frozen=True)
class Layer:
    """One layer of the chain: its kind, the prefix of its weights' names, channels in and out."""

    kind: LayerKind
    prefix: str
    channels_in: int
    channels_out: int


def layer(name: str, prefix: str, channels_in: int, channels_out: int | None = None) -> Layer:
    """The layer of a class name in the release; channels_out is channels_in by default."""
    return Layer(
        LAYER_KINDS[name], prefix, channels_in, channels_in if channels_out is None else channels_out
    )


def encoder_layers(config: CausalVAEConfig) -> list[Layer]:
    """The encoder as a chain, from pixels to moments."""
    width = config.hidden_size
    layers = [layer(config.encoder_conv_in, "encoder.conv_in", 3, width)]
    resolution = config.resolution
    for level, factor in enumerate(config.hidden_size_mult):
        down = f"encoder.down.{level}"
        for i in range(config.num_res_blocks):
            wider = config.hidden_size * factor
            layers.append(layer(config.encoder_resnet_blocks[level], f"{down}.block.{i}", width, wider))
            width = wider
            if resolution in config.attn_resolutions:
                layers.append(layer(config.encoder_attention, f"{down}.attn.{i}", width))
        if config.encoder_spatial_downsample[level]:
            layers.append(layer(config.encoder_spatial_downsample[level], f"{down}.downsample", width))
            resolution //= 2
        if config.encoder_temporal_downsample[level]:
            layers.append(layer(config.encoder_temporal_downsample[level], f"{down}.time_downsample", width))
    moments = 2 * config.z_channels if config.double_z else config.z_channels
    layers += _middle("encoder", config.encoder_mid_resnet, config.encoder_attention, width)
    layers.append(layer("norm_silu", "encoder.norm_out", width))
    layers.append(layer(config.encoder_conv_out, "encoder.conv_out", width, moments))
    layers.append(layer("quant_conv", "quant_conv", moments, 2 * config.embed_dim))
    return layers


def decoder_layers(config: CausalVAEConfig) -> list[Layer]:
    """The decoder as a chain, from latents to pixels."""
    levels = len(config.hidden_size_mult)
    width = config.hidden_size * config.hidden_size_mult[-1]
    layers = [
        layer("quant_conv", "post_quant_conv", config.embed_dim, config.z_channels),
        layer(config.decoder_conv_in, "decoder.conv_in", config.z_channels, width),
    ]
    layers += _middle("decoder", config.decoder_mid_resnet, config.decoder_attention, width)
    resolution = config.resolution // 2 ** (levels - 1)
    for level in reversed(range(levels)):
        up = f"decoder.up.{level}"
        for i in range(config.num_res_blocks + 1):
            narrower = config.hidden_size * config.hidden_size_mult[level]
            layers.append(layer(config.decoder_resnet_blocks[level], f"{up}.block.{i}", width, narrower))
            width = narrower
            if resolution in config.attn_resolutions:
                layers.append(layer(config.decoder_attention, f"{up}.attn.{i}", width))
        if config.decoder_spatial_upsample[level]:
            layers.append(layer(config.decoder_spatial_upsample[level], f"{up}.upsample", width))
            resolution *= 2
        if config.decoder_temporal_upsample[level]:
            layers.append(layer(config.decoder_temporal_upsample[level], f"{up}.time_upsample", width))
    layers.append(layer("norm_silu", "decoder.norm_out", width))
    layers.append(layer(config.decoder_conv_out, "decoder.conv_out", width, 3))
    return layers


def _middle(half: str, resnet: str, attention: str, width: int) -> list[Layer]:
    return [
        layer(resnet, f"{half}.mid.block_1", width),
        layer(attention, f"{half}.mid.attn_1", width),
        layer(resnet, f"{half}.mid.block_2", width),
    ]


def weight_shapes(config: CausalVAEConfig) -> Shapes:
    """Shape of every weight by its name in the release file."""
    return {
        f"{layer.prefix}.{name}": shape
        for layer in (*encoder_layers(config), *decoder_layers(config))
        for name, shape in layer.kind.weight_shapes(layer.channels_in, layer.channels_out).items()
    }


def open_causal_vae(source: str | Path, config: CausalVAEConfig) -> TensorSource:
    """The weights of a CausalVAE in any format, without those of its training loss, or of an autoencoder of
    images. Raises WeightsError.
    """
    if config.frame_by_frame and any(is_vae_2d(open_file(path)) for path in weight_files(source)):
        return open_vae_2d(source, weight_shapes(config))
    return open_weights(source, expected=weight_shapes(config), ignore=("loss.",))
