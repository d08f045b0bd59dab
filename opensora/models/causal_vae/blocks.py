"""The layers of CausalVAE for whole videos: pure functions (weights, x, batch, groups) -> y.

x is frames first, (T*B, C, H, W) with time outermost; groups are those of the norms.
"""

from opensora.engine.block import Block, Weights
from opensora.nn import F, Tensor
from opensora.nn.window import UNPADDED, ConvWindow

HALVING = ConvWindow((0, 1, 0, 1), 2)
EVERY_SECOND_FRAME = ConvWindow(time_stride=2)


# --- convolutions and norms by themselves ---


def frame_conv(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    return F.conv2d(x, w["weight"], w["bias"])


def causal_conv(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    return F.causal_conv3d(x, w["conv.weight"], w["conv.bias"], batch)


def quant_conv(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    return _pointwise(w, "conv", x, batch)


def norm_silu(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    return F.silu(F.group_norm(x, w["weight"], w["bias"], batch, groups))


# --- residual blocks ---


def resnet_2d(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    """Every frame by itself, its statistics included."""
    h = F.silu(F.group_norm(x, w["norm1.weight"], w["norm1.bias"], x.shape[0], groups))
    h = F.conv2d(h, w["conv1.weight"], w["conv1.bias"])
    h = F.silu(F.group_norm(h, w["norm2.weight"], w["norm2.bias"], x.shape[0], groups))
    h = F.conv2d(h, w["conv2.weight"], w["conv2.bias"])
    if "nin_shortcut.weight" in w:
        x = F.conv2d(x, w["nin_shortcut.weight"], w["nin_shortcut.bias"], UNPADDED)
    return x + h


def resnet_3d(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    h = F.silu(F.group_norm(x, w["norm1.weight"], w["norm1.bias"], batch, groups))
    h = F.causal_conv3d(h, w["conv1.conv.weight"], w["conv1.conv.bias"], batch)
    h = F.silu(F.group_norm(h, w["norm2.weight"], w["norm2.bias"], batch, groups))
    h = F.causal_conv3d(h, w["conv2.conv.weight"], w["conv2.conv.bias"], batch)
    if "nin_shortcut.conv.weight" in w:
        x = _pointwise(w, "nin_shortcut.conv", x, batch)
    return x + h


# --- attention over the pixels of a frame ---


def frame_attention(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    """AttnBlock3DFix: every frame attends to itself."""
    return x + attend_in_frames(w, F.group_norm(x, w["norm.weight"], w["norm.bias"], batch, groups))


def attend_in_frames(w: Weights, h: Tensor) -> Tensor:
    """The attention of AttnBlock3DFix on normalised frames (N, C, H, W), without the residual."""
    q, k, v = _query_key_value(w, h, h.shape[0])
    h = F.transpose(
        F.attention(_pixels_last_to_tokens(q), _pixels_last_to_tokens(k), _pixels_last_to_tokens(v)),
        (0, 1, 3, 2),
    )
    return _pointwise(w, "proj_out.conv", F.reshape(h, q.shape), q.shape[0])


def mixed_attention(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    """AttnBlock3D: reads (C, T) as (T, C), which mixes channels and frames, as its weights were trained."""
    q, k, v = _query_key_value(w, F.group_norm(x, w["norm.weight"], w["norm.bias"], batch, groups), batch)
    q, k, v = (_as_channels_first(part, batch) for part in (q, k, v))
    h = F.attention(_pixels_last_to_tokens(q), _pixels_last_to_tokens(k), _pixels_last_to_tokens(v))
    h = F.reshape(F.transpose(h, (0, 1, 3, 2)), (batch, x.shape[1], -1, *x.shape[2:]))  # (B, C, T, H, W)
    return x + _pointwise(w, "proj_out.conv", F.to_frames(h), batch)


def _query_key_value(w: Weights, h: Tensor, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        _pointwise(w, "q.conv", h, batch),
        _pointwise(w, "k.conv", h, batch),
        _pointwise(w, "v.conv", h, batch),
    )


def _pixels_last_to_tokens(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, H*W, C)."""
    return F.expand_dims(F.transpose(F.reshape(x, (x.shape[0], x.shape[1], -1)), (0, 2, 1)), 1)


def _as_channels_first(x: Tensor, batch: int) -> Tensor:
    """(T*B, C, H, W) -> (B, C, T, H, W) -> the same memory read as (B*T, C, H, W)."""
    return F.reshape(F.from_frames(x, batch), x.shape)


def _pointwise(w: Weights, name: str, x: Tensor, batch: int) -> Tensor:
    """A 1x1x1 convolution."""
    return F.causal_conv3d(x, w[name + ".weight"], w[name + ".bias"], batch, UNPADDED)


# --- down and up in space ---


def downsample(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    return F.conv2d(x, w["conv.weight"], w["conv.bias"], HALVING)


def spatial_downsample(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    return F.causal_conv3d(x, w["conv.conv.weight"], w["conv.conv.bias"], batch, HALVING)


def spatial_upsample(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    return F.upsampling_conv(x, w["conv.conv.weight"], w["conv.conv.bias"], batch)


# --- down and up in time ---


def time_downsample(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    """Mean of three frames at stride two, the first frame repeated: T -> ceil(T / 2)."""
    return mean_of_three(F.repeat_first_frame(x, batch, 2), batch)


def mean_of_three(padded: Tensor, batch: int) -> Tensor:
    """Every second frame with the two before it, which the video brings along."""
    return (
        F.time_tap(padded, batch, 0, 3, 2)
        + F.time_tap(padded, batch, 1, 3, 2)
        + F.time_tap(padded, batch, 2, 3, 2)
    ) / 3.0


def mixed_time_downsample(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    mix = F.sigmoid(w["mix_factor"])
    return mix * time_downsample(w, x, batch, groups) + (1.0 - mix) * F.causal_conv3d(
        x, w["conv.weight"], w["conv.bias"], batch, EVERY_SECOND_FRAME
    )


def time_upsample(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    return F.double_frames(x, batch)


def mixed_time_upsample(w: Weights, x: Tensor, batch: int, groups: int) -> Tensor:
    mix = F.sigmoid(w["mix_factor"])
    convolved = F.time_upsampling_conv(x, w["conv.conv.weight"], w["conv.conv.bias"], batch)
    return mix * F.double_frames(x, batch) + (1.0 - mix) * convolved


FUNCTIONS = (
    frame_conv,
    causal_conv,
    quant_conv,
    norm_silu,
    resnet_2d,
    resnet_3d,
    frame_attention,
    mixed_attention,
    downsample,
    spatial_downsample,
    spatial_upsample,
    time_downsample,
    mixed_time_downsample,
    time_upsample,
    mixed_time_upsample,
)
BLOCKS = {function.__name__: Block(function) for function in FUNCTIONS}
"""Compiled blocks by the names that `LAYER_KINDS` gives them."""
