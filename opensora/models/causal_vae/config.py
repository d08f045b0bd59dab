"""CausalVAE's configuration, and encoder and decoder as chains of named blocks. Loads without MindSpore."""

from dataclasses import dataclass, fields
from typing import Any

from opensora.weights import check_types

# The release's class names, and two of ours for what has none there.
KINDS = (
    "Conv2d",
    "CausalConv3d",
    "quant_conv",
    "norm_silu",
    "ResnetBlock2D",
    "ResnetBlock3D",
    "AttnBlock3D",
    "AttnBlock3DFix",
    "Downsample",
    "SpatialDownsample2x",
    "SpatialUpsample2x",
    "TimeDownsample2x",
    "TimeDownsampleRes2x",
    "TimeUpsample2x",
    "TimeUpsampleRes2x",
)


@dataclass(frozen=True)
class CausalVAEConfig:
    """The release's config.json; block names are the release's class names. The defaults are the v1.1.0 weights' own layout."""

    hidden_size: int = 128
    hidden_size_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 4
    embed_dim: int = 4
    double_z: bool = True
    resolution: int = 256
    attn_resolutions: tuple[int, ...] = ()
    norm_num_groups: int = 32
    """Not in the release, whose norms have 32 groups. A narrow model needs fewer: norms of single channels would lose all flat colour."""
    q_conv: str = "CausalConv3d"
    encoder_conv_in: str = "Conv2d"
    encoder_conv_out: str = "CausalConv3d"
    encoder_attention: str = "AttnBlock3DFix"
    encoder_resnet_blocks: tuple[str, ...] = (
        "ResnetBlock2D",
        "ResnetBlock2D",
        "ResnetBlock3D",
        "ResnetBlock3D",
    )
    encoder_mid_resnet: str = "ResnetBlock3D"
    encoder_spatial_downsample: tuple[str, ...] = ("Downsample", "Downsample", "Downsample", "")
    encoder_temporal_downsample: tuple[str, ...] = ("", "TimeDownsampleRes2x", "TimeDownsampleRes2x", "")
    decoder_conv_in: str = "CausalConv3d"
    decoder_conv_out: str = "CausalConv3d"
    decoder_attention: str = "AttnBlock3DFix"
    decoder_resnet_blocks: tuple[str, ...] = (
        "ResnetBlock3D",
        "ResnetBlock3D",
        "ResnetBlock3D",
        "ResnetBlock3D",
    )
    decoder_mid_resnet: str = "ResnetBlock3D"
    decoder_spatial_upsample: tuple[str, ...] = (
        "",
        "SpatialUpsample2x",
        "SpatialUpsample2x",
        "SpatialUpsample2x",
    )
    decoder_temporal_upsample: tuple[str, ...] = ("", "", "TimeUpsampleRes2x", "TimeUpsampleRes2x")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CausalVAEConfig":
        """From a config.json's content; keys of the training loss and the like are passed over. ValueError for an unknown block."""
        names = {field.name for field in fields(cls)}
        chosen: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
            if key in names
        }
        check_types(cls(), chosen)
        config = cls(**chosen)
        for layer in (*encoder_layers(config), *decoder_layers(config)):
            if layer.kind not in KINDS:
                raise ValueError(
                    f"the VAE's config names the block {layer.kind!r}, which is unknown: choose one of {', '.join(KINDS)}"
                )
        return config

    @property
    def space_stride(self) -> int:
        return int(2 ** sum(bool(name) for name in self.encoder_spatial_downsample))

    @property
    def time_stride(self) -> int:
        return int(2 ** sum(bool(name) for name in self.encoder_temporal_downsample))


@dataclass(frozen=True)
class Layer:
    """One block of the chain: its kind, the prefix of its weights, channels in and out."""

    kind: str
    prefix: str
    channels_in: int
    channels_out: int


def encoder_layers(config: CausalVAEConfig) -> list[Layer]:
    """The encoder as a chain, from pixels to moments."""
    width = config.hidden_size
    layers = [Layer(config.encoder_conv_in, "encoder.conv_in", 3, width)]
    resolution = config.resolution
    for level, factor in enumerate(config.hidden_size_mult):
        for i in range(config.num_res_blocks):
            wider = config.hidden_size * factor
            layers.append(
                Layer(config.encoder_resnet_blocks[level], f"encoder.down.{level}.block.{i}", width, wider)
            )
            width = wider
            if resolution in config.attn_resolutions:
                layers.append(Layer(config.encoder_attention, f"encoder.down.{level}.attn.{i}", width, width))
        if config.encoder_spatial_downsample[level]:
            layers.append(
                Layer(
                    config.encoder_spatial_downsample[level], f"encoder.down.{level}.downsample", width, width
                )
            )
            resolution //= 2
        if config.encoder_temporal_downsample[level]:
            layers.append(
                Layer(
                    config.encoder_temporal_downsample[level],
                    f"encoder.down.{level}.time_downsample",
                    width,
                    width,
                )
            )
    moments = 2 * config.z_channels if config.double_z else config.z_channels
    layers += _middle("encoder", config.encoder_mid_resnet, config.encoder_attention, width)
    layers.append(Layer("norm_silu", "encoder.norm_out", width, width))
    layers.append(Layer(config.encoder_conv_out, "encoder.conv_out", width, moments))
    layers.append(Layer("quant_conv", "quant_conv", moments, 2 * config.embed_dim))
    return layers


def decoder_layers(config: CausalVAEConfig) -> list[Layer]:
    """The decoder as a chain, from latents to pixels."""
    levels = len(config.hidden_size_mult)
    width = config.hidden_size * config.hidden_size_mult[-1]
    layers = [
        Layer("quant_conv", "post_quant_conv", config.embed_dim, config.z_channels),
        Layer(config.decoder_conv_in, "decoder.conv_in", config.z_channels, width),
    ]
    layers += _middle("decoder", config.decoder_mid_resnet, config.decoder_attention, width)
    resolution = config.resolution // 2 ** (levels - 1)
    for level in reversed(range(levels)):
        for i in range(config.num_res_blocks + 1):
            narrower = config.hidden_size * config.hidden_size_mult[level]
            layers.append(
                Layer(config.decoder_resnet_blocks[level], f"decoder.up.{level}.block.{i}", width, narrower)
            )
            width = narrower
            if resolution in config.attn_resolutions:
                layers.append(Layer(config.decoder_attention, f"decoder.up.{level}.attn.{i}", width, width))
        if config.decoder_spatial_upsample[level]:
            layers.append(
                Layer(config.decoder_spatial_upsample[level], f"decoder.up.{level}.upsample", width, width)
            )
            resolution *= 2
        if config.decoder_temporal_upsample[level]:
            layers.append(
                Layer(
                    config.decoder_temporal_upsample[level], f"decoder.up.{level}.time_upsample", width, width
                )
            )
    layers.append(Layer("norm_silu", "decoder.norm_out", width, width))
    layers.append(Layer(config.decoder_conv_out, "decoder.conv_out", width, 3))
    return layers


def _middle(half: str, resnet: str, attention: str, width: int) -> list[Layer]:
    return [
        Layer(resnet, f"{half}.mid.block_1", width, width),
        Layer(attention, f"{half}.mid.attn_1", width, width),
        Layer(resnet, f"{half}.mid.block_2", width, width),
    ]
