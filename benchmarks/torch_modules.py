"""Plain PyTorch modules with the shapes of ours, random weights: for ratios measured in one run. PyTorch is
no dependency.

    python -m benchmarks.torch_modules forward|encode|decode|train|train-vae [--repeats 3]

Prints a line of JSON: seconds of each repeat, and the peak memory of the process. Needs PyTorch, numpy and
safetensors.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.repeat import repeat
from opensora.models.causal_vae.config import CausalVAEConfig, Layer, decoder_layers, encoder_layers

LAYERS, HEADS, WIDTH, TEXT, CAPTION = 4, 16, 1152, 300, 4096


class CausalConv(nn.Module):
    """A convolution of (B, C, T, H, W) that repeats the first frame before the video."""

    def __init__(
        self, layer_in: int, out: int, kernel: tuple[int, int, int], stride: tuple[int, int, int] = (1, 1, 1)
    ) -> None:
        super().__init__()
        pad = (0, kernel[1] // 2, kernel[2] // 2) if stride[1] == 1 else (0, 0, 0)
        self.before, self.corner = kernel[0] - 1, stride[1] > 1
        self.conv = nn.Conv3d(layer_in, out, kernel, stride, pad)

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            x = torch.cat([x[:, :, :1].repeat(1, 1, self.before, 1, 1), x], 2)
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.corner else x)


class Residual(nn.Module):
    def __init__(self, layer_in: int, out: int, taps: int) -> None:
        super().__init__()
        self.by_frame = taps == 1
        self.norm1, self.norm2 = nn.GroupNorm(32, layer_in, 1e-6), nn.GroupNorm(32, out, 1e-6)
        self.conv1, self.conv2 = (CausalConv(n, out, (taps, 3, 3)) for n in (layer_in, out))
        self.shortcut = nn.Conv3d(layer_in, out, 1) if layer_in != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self._activated(self.norm1, x))
        return self.shortcut(x) + self.conv2(self._activated(self.norm2, h))

    def _activated(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        if not self.by_frame:
            return F.silu(norm(x))
        frames = x.transpose(1, 2)
        return F.silu(norm(frames.flatten(0, 1))).unflatten(0, frames.shape[:2]).transpose(1, 2)


class FrameAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width, 1e-6)
        self.q, self.k, self.v, self.out = (nn.Conv3d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (
            part(h).permute(0, 2, 3, 4, 1).flatten(2, 3).flatten(0, 1) for part in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v)  # (B*T, H*W, C)
        batch, width, frames, height, columns = x.shape
        y = y.reshape(batch, frames, height, columns, width).permute(0, 4, 1, 2, 3)
        return x + self.out(y)


class NormSiLU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width, 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(x))


class Upsample(nn.Module):
    def __init__(self, layer_in: int, out: int) -> None:
        super().__init__()
        self.conv = CausalConv(layer_in, out, (1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"))


class MixedDown(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.mix = CausalConv(width, out, (3, 3, 3), (2, 1, 1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool3d(torch.cat([x[:, :, :1].repeat(1, 1, 2, 1, 1), x], 2), (3, 1, 1), (2, 1, 1))
        mix = self.mix.sigmoid()
        return mix * mean + (1 - mix) * self.conv(x)


class MixedUp(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv, self.mix = CausalConv(width, out, (3, 3, 3)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] > 1:
            x = torch.cat(
                [x[:, :, :1], F.interpolate(x[:, :, 1:], scale_factor=(2, 1, 1), mode="trilinear")], 2
            )
        mix = self.mix.sigmoid()
        return mix * x + (1 - mix) * self.conv(x)


MODULES: dict[str, Callable[[int, int], nn.Module]] = {
    "Conv2d": lambda i, o: CausalConv(i, o, (1, 3, 3)),
    "CausalConv3d": lambda i, o: CausalConv(i, o, (3, 3, 3)),
    "quant_conv": lambda i, o: nn.Conv3d(i, o, 1),
    "norm_silu": lambda i, o: NormSiLU(i),
    "ResnetBlock2D": lambda i, o: Residual(i, o, 1),
    "ResnetBlock3D": lambda i, o: Residual(i, o, 3),
    "AttnBlock3DFix": lambda i, o: FrameAttention(i),
    "Downsample": lambda i, o: CausalConv(i, o, (1, 3, 3), (1, 2, 2)),
    "SpatialUpsample2x": Upsample,
    "TimeDownsampleRes2x": MixedDown,
    "TimeUpsampleRes2x": MixedUp,
}


def chain(layers: list[Layer], kinds: dict[int, str]) -> nn.Sequential:
    return nn.Sequential(
        *(MODULES[kinds[id(layer.kind)]](layer.channels_in, layer.channels_out) for layer in layers)
    )


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """x (B, L, D), source (B, S, D)."""
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.q(x), self.k(source), self.v(source))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    def __init__(self, with_text: bool) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(6, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, 1e-6, elementwise_affine=False)
        self.self_attention, self.text = Attention(), Attention() if with_text else None
        self.ff = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU("tanh"), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor, conditioning: Tensor, text: Tensor) -> Tensor:
        """x (rows, L, D), conditioning (rows, 6*D), text (rows, S, D)."""
        parts = (self.table + conditioning.unflatten(-1, (6, -1))).unsqueeze(2).unbind(1)
        shift, scale, gate, shift_ff, scale_ff, gate_ff = parts
        y = self.norm(x) * (1 + scale) + shift
        x = x + gate * self.self_attention(y, y)
        if self.text is not None:
            x = x + self.text(x, text)
        return x + gate_ff * self.ff(self.norm(x) * (1 + scale_ff) + shift_ff)


class Transformer(nn.Module):
    """Pairs of blocks over the patches of a frame and over the frames of a patch; the text is repeated per
    frame, as in the original.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.out = nn.Conv2d(4, WIDTH, 2, 2), nn.Linear(WIDTH, 32)
        self.caption = nn.Sequential(nn.Linear(CAPTION, WIDTH), nn.GELU("tanh"), nn.Linear(WIDTH, WIDTH))
        self.space = nn.ModuleList(TransformerBlock(True) for _ in range(LAYERS))
        self.time = nn.ModuleList(TransformerBlock(False) for _ in range(LAYERS))

    def forward(self, latents: Tensor, conditioning: Tensor, text: Tensor) -> Tensor:
        """latents (B, 4, T, H, W), conditioning (B, 6*D), text (B, L, C) -> (B, T, S, 32)."""
        batch, _, frames = latents.shape[:3]
        x = self.patches(latents.transpose(1, 2).flatten(0, 1)).flatten(2).transpose(1, 2)  # (B*T, S, D)
        patches = x.shape[1]
        text = self.caption(text).repeat_interleave(frames, 0)
        for space, time_block in zip(self.space, self.time, strict=True):
            x = space(x, conditioning.repeat_interleave(frames, 0), text)
            x = x.unflatten(0, (batch, frames)).transpose(1, 2).flatten(0, 1)  # (B*S, T, D)
            x = time_block(x, conditioning.repeat_interleave(patches, 0), text)
            x = x.unflatten(0, (batch, patches)).transpose(1, 2).flatten(0, 1)
        return self.out(x)


def transformer_step(batch: int, train: bool) -> Callable[[], object]:
    network = Transformer()
    inputs = (
        torch.randn(batch, 4, 5, 32, 32),
        torch.randn(batch, 6 * WIDTH),
        torch.randn(batch, TEXT, CAPTION),
    )

    def step() -> object:
        if not train:
            with torch.no_grad():
                return network(*inputs)
        network.zero_grad()
        return network(*inputs).square().mean().backward()

    return step


def vae_step(what: str) -> Callable[[], object]:
    from opensora.models.causal_vae.layers import LAYER_KINDS

    kinds = {id(kind): name for name, kind in LAYER_KINDS.items()}
    # Both halves are loaded, as a published file has them.
    encoder, decoder = (
        chain(encoder_layers(CausalVAEConfig()), kinds),
        chain(decoder_layers(CausalVAEConfig()), kinds),
    )
    if what == "encode":
        video = torch.randn(1, 3, 9, 128, 128)
        return torch.no_grad()(lambda: encoder(video))
    if what == "decode":
        latents = torch.randn(1, 4, 3, 16, 16)
        return torch.no_grad()(lambda: decoder(latents))
    video = torch.randn(1, 3, 9, 64, 64)

    def step() -> object:
        encoder.zero_grad()
        decoder.zero_grad()
        mean, logvar = encoder(video).chunk(2, 1)
        loss = (decoder(mean) - video).square().mean() + 1e-6 * (
            mean.square() + logvar.exp() - 1 - logvar
        ).sum()
        return loss.backward()

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("forward", "encode", "decode", "train", "train-vae"))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.what in ("forward", "train"):
        step = transformer_step(2 if options.what == "forward" else 1, options.what == "train")
    else:
        step = vae_step(options.what)
    repeat(options.repeats, step, what=options.what, engine=f"torch {torch.__version__}", precision="fp32")


if __name__ == "__main__":
    main()
