"""Sizes of RGT and the names and shapes of its weights, as in the published files.

Loads without MindSpore.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, log2, prod

from opensora.weights.files import Shapes

UPSAMPLE_CHANNELS = 64


@dataclass(frozen=True)
class RGTConfig:
    """The defaults are those of the published weights for a factor of 4. depth: blocks of each group."""

    embed_dim: int = 180
    depth: tuple[int, ...] = (6,) * 8
    num_heads: int = 6
    mlp_ratio: int = 2
    split_size: tuple[int, int] = (8, 32)
    """Sides of the windows of local attention."""
    c_ratio: float = 0.5
    """Channels of global attention's queries and keys, relative to embed_dim."""
    upscale: int = 4

    @classmethod
    def of_shapes(
        cls, shapes: Mapping[str, tuple[int, ...]], split_size: tuple[int, int] | None = None
    ) -> "RGTConfig | None":
        """The sizes of a network with weights of these shapes; None if it is another network.

        split_size: for files without the tables of positions, from which it follows.
        """
        local, other = "layers.0.blocks.0", "layers.0.blocks.1"
        steps = [shape for name, shape in shapes.items() if name.startswith("upsample.") and len(shape) == 4]
        known = ("conv_first.weight", f"{local}.mlp.fc1.weight", f"{other}.attn.q.weight")
        if not steps or any(len(shapes.get(name, ())) < 2 for name in known):
            return None
        width = shapes["conv_first.weight"][0]
        blocks = {tuple(name.split(".")[1:4:2]) for name in shapes if name.startswith("layers.")}
        groups = len({group for group, _ in blocks})
        depth = tuple(sum((str(i), str(j)) in blocks for j in range(len(blocks))) for i in range(groups))
        heads = 2 * shapes.get(f"{local}.attn.attns.0.pos.pos3.2.weight", (0,))[0]
        return cls(
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=shapes[f"{local}.mlp.fc1.weight"][0] // width,
            split_size=split_size or _split_size(shapes, f"{local}.attn.attns.0") or cls.split_size,
            c_ratio=shapes[f"{other}.attn.q.weight"][0] / width,
            upscale=prod(isqrt(shape[0] // UPSAMPLE_CHANNELS) for shape in steps),
        )

    @property
    def reduced(self) -> int:
        """Channels of the queries and keys of global attention."""
        return int(self.embed_dim * self.c_ratio)

    def is_shifted(self, group: int, block: int) -> bool:
        """True for local blocks whose windows are moved by half their size."""
        return block % 4 == (0 if group % 2 else 2)


def _split_size(shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, int] | None:
    """The sides a and b from the tables of (2a - 1)(2b - 1) offsets and of a * b places."""
    offsets, places = (
        shapes.get(f"{name}.{table}", (0,))[0] for table in ("rpe_biases", "relative_position_index")
    )
    total = (4 * places + 1 - offsets) // 2
    root = isqrt(max(total**2 - 4 * places, 0))
    sides = (total - root) // 2, (total + root) // 2
    return sides if places and sides[0] * sides[1] == places else None


def weight_shapes(config: RGTConfig) -> Shapes:
    """Shape of every weight by its name in the published files."""
    width = config.embed_dim
    shapes: Shapes = {}
    _convolution(shapes, "conv_first", 3, width)
    _norm(shapes, "before_RG.1", width)
    for group, depth in enumerate(config.depth):
        for number in range(depth):
            _block(shapes, f"layers.{group}.blocks.{number}", config, is_local=number % 2 == 0)
        _convolution(shapes, f"layers.{group}.conv", width, width)
    _norm(shapes, "norm", width)
    _convolution(shapes, "conv_after_body", width, width)
    _convolution(shapes, "conv_before_upsample.0", width, UPSAMPLE_CHANNELS)
    for number, factor in enumerate(upsampling(config.upscale)):
        outputs = factor**2 * UPSAMPLE_CHANNELS
        _convolution(shapes, f"upsample.{2 * number}", UPSAMPLE_CHANNELS, outputs)
    _convolution(shapes, "conv_last", UPSAMPLE_CHANNELS, 3)
    return shapes


def upsampling(factor: int) -> tuple[int, ...]:
    """The factors of the network's steps."""
    return (factor,) if factor == 3 else (2,) * int(log2(factor))


def tables(config: RGTConfig) -> list[str]:
    """Names of tables in published files that are computed here."""
    found = []
    for group, depth in enumerate(config.depth):
        for number in range(0, depth, 2):
            name = f"layers.{group}.blocks.{number}.attn"
            found += [f"{name}.attn_mask_{branch}" for branch in (0, 1)]
            for branch in (0, 1):
                found += [
                    f"{name}.attns.{branch}.{table}" for table in ("rpe_biases", "relative_position_index")
                ]
    return found


def _convolution(shapes: Shapes, name: str, inputs: int, outputs: int, kernel: int = 3) -> None:
    shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
    shapes[f"{name}.bias"] = (outputs,)


def _depthwise(shapes: Shapes, name: str, channels: int, kernel: int = 3) -> None:
    _convolution(shapes, name, 1, channels, kernel)


def _linear(shapes: Shapes, name: str, inputs: int, outputs: int) -> None:
    shapes[f"{name}.weight"] = (outputs, inputs)
    shapes[f"{name}.bias"] = (outputs,)


def _norm(shapes: Shapes, name: str, channels: int) -> None:
    shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (channels,)


def _block(shapes: Shapes, name: str, config: RGTConfig, is_local: bool) -> None:
    width, hidden = config.embed_dim, config.mlp_ratio * config.embed_dim
    shapes[f"{name}.gamma"] = (width,)
    _norm(shapes, f"{name}.norm1", width)
    (_local_attention if is_local else _global_attention)(shapes, f"{name}.attn", config)
    _linear(shapes, f"{name}.attn.proj", width, width)
    _norm(shapes, f"{name}.norm2", width)
    _linear(shapes, f"{name}.mlp.fc1", width, hidden)
    _norm(shapes, f"{name}.mlp.sg.norm", hidden // 2)
    _depthwise(shapes, f"{name}.mlp.sg.conv", hidden // 2)
    _linear(shapes, f"{name}.mlp.fc2", hidden // 2, width)


def _local_attention(shapes: Shapes, name: str, config: RGTConfig) -> None:
    width = config.embed_dim
    _linear(shapes, f"{name}.qkv", width, 3 * width)
    _depthwise(shapes, f"{name}.get_v", width)
    inner = width // 2 // 4 // 4  # of the network that makes biases of offsets
    for branch in (0, 1):
        position = f"{name}.attns.{branch}.pos"
        _linear(shapes, f"{position}.pos_proj", 2, inner)
        for step, outputs in (("pos1", inner), ("pos2", inner), ("pos3", config.num_heads // 2)):
            _norm(shapes, f"{position}.{step}.0", inner)
            _linear(shapes, f"{position}.{step}.2", inner, outputs)


def _global_attention(shapes: Shapes, name: str, config: RGTConfig) -> None:
    width, reduced = config.embed_dim, config.reduced
    _depthwise(shapes, f"{name}.reduction1", width, 4)
    _depthwise(shapes, f"{name}.dwconv", width)
    _convolution(shapes, f"{name}.conv", width, reduced, 1)
    _norm(shapes, f"{name}.norm_act.0", reduced)
    _linear(shapes, f"{name}.q", width, reduced)
    _linear(shapes, f"{name}.k", reduced, reduced)
    _linear(shapes, f"{name}.v", reduced, width)
    _depthwise(shapes, f"{name}.cpe", width)
