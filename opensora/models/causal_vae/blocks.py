"""The blocks of CausalVAE under the release's class names: pure functions of (weights, x, batch, groups) on frames-first videos.

x is (T*B, C, H, W), time outermost; groups are those of the norms. `KINDS` maps each class name to its compiled block and to the
shapes of its weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opensora.engine.block import Block
from opensora.nn.activations import sigmoid, silu
from opensora.nn.attention import attention
from opensora.nn.convolution import (
    NONE,
    causal_conv3d,
    conv2d,
    from_frames,
    repeat_first_frame,
    time_tap,
    to_frames,
)
from opensora.nn.normalisation import group_norm
from opensora.runtime import mindspore

ops = mindspore().ops

Shapes = dict[str, tuple[int, ...]]
BOTTOM_RIGHT = (0, 1, 0, 1)


@dataclass(frozen=True)
class Kind:
    """A block and the shapes of its weights as a function of (channels in, channels out)."""

    block: Block
    shapes: Callable[[int, int], Shapes]


# --- convolutions and norms by themselves ---


def _conv2d(w: Any, x: Any, batch: int, groups: int) -> Any:
    return conv2d(x, w["weight"], w["bias"])


def _causal_conv3d(w: Any, x: Any, batch: int, groups: int) -> Any:
    return causal_conv3d(x, w["conv.weight"], w["conv.bias"], batch)


def _quant_conv(w: Any, x: Any, batch: int, groups: int) -> Any:
    return _pointwise(w, "conv", x, batch)


def _norm_silu(w: Any, x: Any, batch: int, groups: int) -> Any:
    return silu(group_norm(x, w["weight"], w["bias"], batch, groups))


# --- residual blocks ---


def _resnet_2d(w: Any, x: Any, batch: int, groups: int) -> Any:
    """Every frame by itself, its statistics included."""
    h = silu(group_norm(x, w["norm1.weight"], w["norm1.bias"], x.shape[0], groups))
    h = conv2d(h, w["conv1.weight"], w["conv1.bias"])
    h = silu(group_norm(h, w["norm2.weight"], w["norm2.bias"], x.shape[0], groups))
    h = conv2d(h, w["conv2.weight"], w["conv2.bias"])
    if "nin_shortcut.weight" in w:
        x = conv2d(x, w["nin_shortcut.weight"], w["nin_shortcut.bias"], 1, NONE)
    return x + h


def _resnet_3d(w: Any, x: Any, batch: int, groups: int) -> Any:
    h = silu(group_norm(x, w["norm1.weight"], w["norm1.bias"], batch, groups))
    h = causal_conv3d(h, w["conv1.conv.weight"], w["conv1.conv.bias"], batch)
    h = silu(group_norm(h, w["norm2.weight"], w["norm2.bias"], batch, groups))
    h = causal_conv3d(h, w["conv2.conv.weight"], w["conv2.conv.bias"], batch)
    if "nin_shortcut.conv.weight" in w:
        x = _pointwise(w, "nin_shortcut.conv", x, batch)
    return x + h


# --- attention over the pixels of a frame ---


def _attention_fixed(w: Any, x: Any, batch: int, groups: int) -> Any:
    """AttnBlock3DFix: every frame attends to itself."""
    return x + attend_in_frames(w, group_norm(x, w["norm.weight"], w["norm.bias"], batch, groups))


def attend_in_frames(w: Any, h: Any) -> Any:
    """The attention of AttnBlock3DFix on normalised frames (N, C, H, W), without the residual."""
    q, k, v = _query_key_value(w, h, h.shape[0])
    h = ops.transpose(
        attention(_pixels_last_to_tokens(q), _pixels_last_to_tokens(k), _pixels_last_to_tokens(v)),
        (0, 1, 3, 2),
    )
    return _pointwise(w, "proj_out.conv", ops.reshape(h, q.shape), q.shape[0])


def _attention_mixed(w: Any, x: Any, batch: int, groups: int) -> Any:
    """AttnBlock3D of the class default: (C, T) is read as (T, C), which mixes channels and frames; kept as it was trained."""
    q, k, v = _query_key_value(w, group_norm(x, w["norm.weight"], w["norm.bias"], batch, groups), batch)
    q, k, v = (_as_channels_first(part, batch) for part in (q, k, v))
    h = attention(_pixels_last_to_tokens(q), _pixels_last_to_tokens(k), _pixels_last_to_tokens(v))
    h = ops.reshape(ops.transpose(h, (0, 1, 3, 2)), (batch, x.shape[1], -1, *x.shape[2:]))  # (B, C, T, H, W)
    return x + _pointwise(w, "proj_out.conv", to_frames(h), batch)


def _query_key_value(w: Any, h: Any, batch: int) -> tuple[Any, Any, Any]:
    return (
        _pointwise(w, "q.conv", h, batch),
        _pointwise(w, "k.conv", h, batch),
        _pointwise(w, "v.conv", h, batch),
    )


def _pixels_last_to_tokens(x: Any) -> Any:
    """(N, C, H, W) -> (N, 1, H*W, C)."""
    return ops.expand_dims(ops.transpose(ops.reshape(x, (x.shape[0], x.shape[1], -1)), (0, 2, 1)), 1)


def _as_channels_first(x: Any, batch: int) -> Any:
    """(T*B, C, H, W) -> (B, C, T, H, W) -> the same memory read as (B*T, C, H, W)."""
    return ops.reshape(from_frames(x, batch), x.shape)


def _pointwise(w: Any, name: str, x: Any, batch: int) -> Any:
    """A 1x1x1 convolution."""
    return causal_conv3d(x, w[name + ".weight"], w[name + ".bias"], batch, 1, 1, NONE)


# --- down and up in space ---


def _downsample(w: Any, x: Any, batch: int, groups: int) -> Any:
    return conv2d(x, w["conv.weight"], w["conv.bias"], 2, BOTTOM_RIGHT)


def _spatial_downsample(w: Any, x: Any, batch: int, groups: int) -> Any:
    return causal_conv3d(x, w["conv.conv.weight"], w["conv.conv.bias"], batch, 1, 2, BOTTOM_RIGHT)


def _spatial_upsample(w: Any, x: Any, batch: int, groups: int) -> Any:
    return causal_conv3d(_double_pixels(x), w["conv.conv.weight"], w["conv.conv.bias"], batch)


def _double_pixels(x: Any) -> Any:
    """Nearest neighbour: (N, C, H, W) -> (N, C, 2H, 2W)."""
    rows, channels, height, width = x.shape
    x = ops.reshape(x, (rows, channels, height, 1, width, 1))
    x = ops.broadcast_to(x, (rows, channels, height, 2, width, 2))
    return ops.reshape(x, (rows, channels, 2 * height, 2 * width))


# --- down and up in time ---


def _time_downsample(w: Any, x: Any, batch: int, groups: int) -> Any:
    """Mean of three frames at stride two, the first frame repeated: T -> ceil(T / 2)."""
    return mean_of_three(repeat_first_frame(x, batch, 2), batch)


def mean_of_three(padded: Any, batch: int) -> Any:
    """Every second frame with the two before it, which the video brings along."""
    return (
        time_tap(padded, batch, 0, 3, 2) + time_tap(padded, batch, 1, 3, 2) + time_tap(padded, batch, 2, 3, 2)
    ) / 3.0


def _time_downsample_residual(w: Any, x: Any, batch: int, groups: int) -> Any:
    mix = sigmoid(w["mix_factor"])
    return mix * _time_downsample(w, x, batch, groups) + (1.0 - mix) * causal_conv3d(
        x, w["conv.weight"], w["conv.bias"], batch, 2
    )


def _time_upsample(w: Any, x: Any, batch: int, groups: int) -> Any:
    """The first frame stays; each of the others becomes two by linear interpolation with half-pixel centres: T -> 2T - 1."""
    if x.shape[0] == batch:
        return x
    rest = x[batch:]
    frames = rest.shape[0] // batch
    if frames == 1:
        return ops.concat((x, rest), 0)
    before = ops.concat((rest[:batch], rest[: (frames - 1) * batch]), 0)
    after = ops.concat((rest[batch:], rest[(frames - 1) * batch :]), 0)
    pairs = ops.stack((0.25 * before + 0.75 * rest, 0.75 * rest + 0.25 * after), 1)  # (T*B, 2, C, H, W)
    pairs = ops.transpose(ops.reshape(pairs, (frames, batch, 2, -1)), (0, 2, 1, 3))
    return ops.concat((x[:batch], ops.reshape(pairs, (2 * frames * batch, *x.shape[1:]))), 0)


def _time_upsample_residual(w: Any, x: Any, batch: int, groups: int) -> Any:
    mix = sigmoid(w["mix_factor"])
    x = _time_upsample(w, x, batch, groups)
    return mix * x + (1.0 - mix) * causal_conv3d(x, w["conv.conv.weight"], w["conv.conv.bias"], batch)


# --- shapes of the weights ---


def _affine(name: str, channels: int) -> Shapes:
    return {f"{name}weight": (channels,), f"{name}bias": (channels,)}


def _conv(name: str, channels_in: int, channels_out: int, *kernel: int) -> Shapes:
    return {f"{name}.weight": (channels_out, channels_in, *kernel), f"{name}.bias": (channels_out,)}


def _resnet_shapes(suffix: str, kernel: tuple[int, ...]) -> Callable[[int, int], Shapes]:
    def shapes(channels_in: int, channels_out: int) -> Shapes:
        table = _affine("norm1.", channels_in) | _conv(f"conv1{suffix}", channels_in, channels_out, *kernel)
        table |= _affine("norm2.", channels_out) | _conv(
            f"conv2{suffix}", channels_out, channels_out, *kernel
        )
        if channels_in != channels_out:
            table |= _conv(f"nin_shortcut{suffix}", channels_in, channels_out, *(1 for _ in kernel))
        return table

    return shapes


def _attention_shapes(channels_in: int, channels_out: int) -> Shapes:
    table = _affine("norm.", channels_in)
    for name in ("q", "k", "v", "proj_out"):
        table |= _conv(f"{name}.conv", channels_in, channels_in, 1, 1, 1)
    return table


def _conv_shapes(name: str, *kernel: int) -> Callable[[int, int], Shapes]:
    return lambda channels_in, channels_out: _conv(name, channels_in, channels_out, *kernel)


def _mixed_shapes(name: str) -> Callable[[int, int], Shapes]:
    return lambda channels_in, channels_out: (
        _conv(name, channels_in, channels_out, 3, 3, 3) | {"mix_factor": (1,)}
    )


KINDS: dict[str, Kind] = {
    "Conv2d": Kind(Block(_conv2d), lambda i, o: {"weight": (o, i, 3, 3), "bias": (o,)}),
    "CausalConv3d": Kind(Block(_causal_conv3d), _conv_shapes("conv", 3, 3, 3)),
    "quant_conv": Kind(Block(_quant_conv), _conv_shapes("conv", 1, 1, 1)),
    "norm_silu": Kind(Block(_norm_silu), lambda i, o: _affine("", i)),
    "ResnetBlock2D": Kind(Block(_resnet_2d), _resnet_shapes("", (3, 3))),
    "ResnetBlock3D": Kind(Block(_resnet_3d), _resnet_shapes(".conv", (3, 3, 3))),
    "AttnBlock3D": Kind(Block(_attention_mixed), _attention_shapes),
    "AttnBlock3DFix": Kind(Block(_attention_fixed), _attention_shapes),
    "Downsample": Kind(Block(_downsample), _conv_shapes("conv", 3, 3)),
    "SpatialDownsample2x": Kind(Block(_spatial_downsample), _conv_shapes("conv.conv", 1, 3, 3)),
    "SpatialUpsample2x": Kind(Block(_spatial_upsample), _conv_shapes("conv.conv", 1, 3, 3)),
    "TimeDownsample2x": Kind(Block(_time_downsample), lambda i, o: {}),
    "TimeDownsampleRes2x": Kind(Block(_time_downsample_residual), _mixed_shapes("conv")),
    "TimeUpsample2x": Kind(Block(_time_upsample), lambda i, o: {}),
    "TimeUpsampleRes2x": Kind(Block(_time_upsample_residual), _mixed_shapes("conv.conv")),
}
