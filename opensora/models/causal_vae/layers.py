"""The kinds of layers of a CausalVAE, one row each. Does not import MindSpore.

A row states what a layer multiplies, how it resizes a video, and which functions compute it: `block` names a
function of blocks.py for whole videos, `chunked` one of chunked.py for chunks of frames. Weight shapes, costs
and strides follow.
"""

from dataclasses import dataclass
from typing import Literal

from opensora.models.geometry import Size, Strides
from opensora.weights import Shapes

NO_STRIDES = Strides(1, 1)


@dataclass(frozen=True)
class LayerKind:
    """One kind of layer.

    form: "convolution"; "residual", twice a norm and a convolution, with a shortcut; "attention" over the
    pixels of a frame; "norm", with SiLU; or "mean", which averages or interpolates frames and has no weights.
    """

    form: Literal["convolution", "residual", "attention", "norm", "mean"]
    block: str
    chunked: str
    conv: str = ""
    """Prefix of a convolution's weights, inside the layer or inside each of its parts."""
    kernel: tuple[int, ...] = ()
    """(height, width), or (frames, height, width)."""
    mixed: bool = False
    """True if a learned factor mixes the convolution with the average or interpolation of frames."""
    down: Strides = NO_STRIDES
    up: Strides = NO_STRIDES
    stores: bool = False
    """True if the chunked form stores the layer's input and output."""

    @property
    def taps(self) -> int:
        """Frames that the convolution reads for one frame of output."""
        return self.kernel[0] if len(self.kernel) == 3 else 1

    @property
    def plane(self) -> int:
        """Weights of the kernel for each frame and pair of channels."""
        return self.kernel[-2] * self.kernel[-1]

    def resize(self, size: Size) -> Size:
        """The size (frames, height, width) of the layer's output."""
        return self.down.latent_size(self.up.pixel_size(size), partial=False)

    def weight_shapes(self, channels_in: int, channels_out: int) -> Shapes:
        """Names and shapes of the layer's weights, without its prefix."""
        match self.form:
            case "convolution":
                mix = {"mix_factor": (1,)} if self.mixed else {}
                return _conv(self.conv, channels_in, channels_out, self.kernel) | mix
            case "residual":
                shapes = _norm("norm1", channels_in)
                shapes |= _conv(_join("conv1", self.conv), channels_in, channels_out, self.kernel)
                shapes |= _norm("norm2", channels_out)
                shapes |= _conv(_join("conv2", self.conv), channels_out, channels_out, self.kernel)
                if channels_in != channels_out:
                    pointwise = (1,) * len(self.kernel)
                    shapes |= _conv(_join("nin_shortcut", self.conv), channels_in, channels_out, pointwise)
                return shapes
            case "attention":
                shapes = _norm("norm", channels_in)
                for name in ("q", "k", "v", "proj_out"):
                    shapes |= _conv(_join(name, self.conv), channels_in, channels_in, self.kernel)
                return shapes
            case "norm":
                return _norm("", channels_in)
            case "mean":
                return {}


def _conv(name: str, channels_in: int, channels_out: int, kernel: tuple[int, ...]) -> Shapes:
    return {_join(name, "weight"): (channels_out, channels_in, *kernel), _join(name, "bias"): (channels_out,)}


def _norm(name: str, channels: int) -> Shapes:
    return {_join(name, "weight"): (channels,), _join(name, "bias"): (channels,)}


def _join(*names: str) -> str:
    return ".".join(filter(None, names))


FRAMES, PIXELS = Strides(2, 1), Strides(1, 2)
LAYER_KINDS = {
    # name: form, block, chunked, name and kernel of the convolution
    "Conv2d": LayerKind("convolution", "frame_conv", "frames", "", (3, 3)),
    "CausalConv3d": LayerKind("convolution", "causal_conv", "conv", "conv", (3, 3, 3)),
    "quant_conv": LayerKind("convolution", "quant_conv", "frames", "conv", (1, 1, 1)),
    "norm_silu": LayerKind("norm", "norm_silu", "norm"),
    "ResnetBlock2D": LayerKind("residual", "resnet_2d", "frames", "", (3, 3)),
    "ResnetBlock3D": LayerKind("residual", "resnet_3d", "resnet", "conv", (3, 3, 3), stores=True),
    "AttnBlock3D": LayerKind("attention", "mixed_attention", "whole", "conv", (1, 1, 1), stores=True),
    "AttnBlock3DFix": LayerKind("attention", "frame_attention", "attention", "conv", (1, 1, 1), stores=True),
    "Downsample": LayerKind("convolution", "downsample", "frames", "conv", (3, 3), down=PIXELS),
    "SpatialDownsample2x": LayerKind(
        "convolution", "spatial_downsample", "frames", "conv.conv", (1, 3, 3), down=PIXELS),
    "SpatialUpsample2x": LayerKind(
        "convolution", "spatial_upsample", "frames", "conv.conv", (1, 3, 3), up=PIXELS),
    "TimeDownsample2x": LayerKind("mean", "time_downsample", "mean", down=FRAMES, stores=True),
    "TimeDownsampleRes2x": LayerKind(
        "convolution", "mixed_time_downsample", "mixed_mean", "conv", (3, 3, 3), mixed=True,
        down=FRAMES, stores=True),
    "TimeUpsample2x": LayerKind("mean", "time_upsample", "interpolation", up=FRAMES, stores=True),
    "TimeUpsampleRes2x": LayerKind(
        "convolution", "mixed_time_upsample", "mixed_interpolation", "conv.conv", (3, 3, 3), mixed=True,
        up=FRAMES, stores=True),
}  # fmt: skip
"""Kinds by the class names of the release. Two have none there: "quant_conv" and "norm_silu"."""
