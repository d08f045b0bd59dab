"""RGT: attention within windows and to a reduced image, in turns (arXiv:2303.06373)."""

from collections.abc import Mapping
from math import log
from pathlib import Path

import numpy as np

from opensora.engine import Engine, open_engine
from opensora.engine.block import Run, as_array
from opensora.engine.tensor import Tensor
from opensora.models.rgt import blocks
from opensora.models.rgt.config import RGTConfig, tables, upsampling, weight_shapes
from opensora.models.rgt.windows import offsets, windows
from opensora.weights import WeightsError, open_file, open_weights

SMALLEST = 16
"""Smallest height and width; from 1024 on the other side must have 64."""


class RGT:
    """The network: its sizes, and its weights under the published names."""

    def __init__(self, config: RGTConfig, weights: Mapping[str, Tensor], engine: Engine) -> None:
        self.config, self.weights, self.engine = config, weights, engine

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, engine: str | Engine = "mindspore", precision: str = "fp32"
    ) -> "RGT":
        """Load a file (.pth, .safetensors); its sizes follow from it. Raises WeightsError."""
        shapes = {name: entry.shape for name, entry in open_file(source).entries.items()}
        config = RGTConfig.of_shapes(shapes)
        if config is None:
            raise WeightsError(f"{source} does not hold the weights of RGT: use another file")
        arrays = open_weights(source, expected=weight_shapes(config), ignore=tables(config))
        opened = open_engine(engine, precision)
        return cls(config, opened.weights(arrays), opened)

    @classmethod
    def from_weights(
        cls,
        weights: Mapping[str, np.ndarray],
        split_size: tuple[int, int] | None = None,
        *,
        engine: str | Engine = "mindspore",
        precision: str = "fp32",
    ) -> "RGT":
        """A network from arrays under the published names. Raises WeightsError for wrong names and shapes.

        split_size: sides of the windows, for weights without the tables from which they follow.
        """
        shapes = {name: tuple(value.shape) for name, value in weights.items()}
        config = RGTConfig.of_shapes(shapes, split_size)
        expected = {} if config is None else weight_shapes(config)
        if config is None or any(shapes.get(name) != shape for name, shape in expected.items()):
            raise WeightsError("the weights are not those of RGT: use others")
        opened = open_engine(engine, precision)
        return cls(config, opened.weights({name: weights[name] for name in expected}), opened)

    @property
    def scale(self) -> int:
        """The factor by which the network itself enlarges."""
        return self.config.upscale

    def __call__(self, images: Tensor, factor: int | None = None, strength: float = 1.0) -> Tensor:
        """Images (B, 3, H, W), RGB in 0..1 -> (B, 3, factor * H, factor * W), not clipped.

        factor, strength: as for `SRVGG`. Images below 16 pixels are padded by their border.
        """
        factor = factor or self.scale
        assert 0 < factor <= self.scale
        values = np.asarray(as_array(images), np.float32)
        height, width = values.shape[2:]
        more = [(0, max(0, SMALLEST - size)) for size in (height, width)]
        values = np.pad(values, ((0, 0), (0, 0), *more), mode="edge")
        found = [
            self.engine.output(
                self.engine.run(
                    enlarge, self.weights, self.config, self.engine.input(image[None]), factor, strength
                )
            )
            for image in values
        ]
        return self.engine.tensor(np.concatenate(found)[:, :, : factor * height, : factor * width])


def enlarge(run: Run, config: RGTConfig, images: Tensor, factor: int, strength: float) -> Tensor:
    """The network on one image: `run` carries out its blocks."""
    height, width = images.shape[2:]
    mean = run.tensor(np.array(blocks.MEAN, np.float32).reshape(1, 3, 1, 1))
    local = {shifted: local_tables(run, config, height, width, shifted) for shifted in (False, True)}
    heads, times = config.num_heads, recursions(height, width)
    scale = (config.embed_dim // heads * config.c_ratio) ** -0.5
    shallow = run(blocks.first, ("conv_first.",), images, mean)  # (1, D, H, W)
    x = run(blocks.begin, "before_RG", shallow)  # (1, H*W, D)
    for group, depth in enumerate(config.depth):
        before = x
        for number in range(depth):
            name = f"layers.{group}.blocks.{number}"
            if number % 2:
                x = run(blocks.global_block, name, x, height, width, heads, times, scale)
            else:
                own = local[config.is_shifted(group, number)]
                x = run(blocks.local_block, name, x, height, width, heads, *own)
        x = run(blocks.end_group, f"layers.{group}", x, before, height, width)
    features = run(blocks.end, ("norm.", "conv_after_body."), x, shallow)
    names = ("conv_before_upsample.", "upsample.", "conv_last.")
    steps = upsampling(config.upscale)
    found: Tensor = run(blocks.upsample, names, features, images, mean, steps, factor, strength)
    return found


def local_tables(
    run: Run, config: RGTConfig, height: int, width: int, is_shifted: bool
) -> tuple[Tensor | None, ...]:
    """The tables of both kinds of windows, as the local blocks take them."""
    found: list[Tensor | None] = []
    for sides in (config.split_size, config.split_size[::-1]):
        places, back, regions = windows(height, width, sides, is_shifted)
        found += [run.tensor(table) for table in (places, back, *offsets(sides))]
        found.append(None if regions is None else run.tensor(regions))
    return tuple(found)


def recursions(height: int, width: int) -> int:
    """The number of times that global attention reduces its image by 4."""
    return max(2, *(int(log(size // 16, 4)) for size in (height, width)))
