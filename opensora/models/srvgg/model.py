"""SRVGGNetCompact: convolutions at the size of the input, the last one computes all pixels of a block.

Its source is Real-ESRGAN (arXiv:2107.10833) and its repository.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from opensora.engine import Engine, open_engine
from opensora.engine.block import Block, Run, Weights, as_array
from opensora.engine.tensor import Tensor
from opensora.models.enlargement import mixed
from opensora.models.srvgg.config import PACKAGED, SRVGGConfig, weight_shapes
from opensora.nn import F
from opensora.weights import WeightsError, open_file, open_weights


class SRVGG:
    """The network: its sizes, and its weights under the published names."""

    def __init__(self, config: SRVGGConfig, weights: Mapping[str, Tensor], engine: Engine) -> None:
        self.config, self.weights, self.engine = config, weights, engine

    @classmethod
    def from_pretrained(
        cls, source: str | Path = PACKAGED, *, engine: str | Engine = "mindspore", precision: str = "fp32"
    ) -> "SRVGG":
        """Load a file (.pth, .safetensors); its sizes follow from it. Raises WeightsError."""
        shapes = {name: entry.shape for name, entry in open_file(source).entries.items()}
        config = SRVGGConfig.of_shapes(shapes)
        if config is None:
            raise WeightsError(f"{source} does not hold the weights of SRVGGNetCompact: use another file")
        opened = open_engine(engine, precision)
        return cls(config, opened.weights(open_weights(source, expected=weight_shapes(config))), opened)

    @classmethod
    def from_weights(
        cls, weights: Mapping[str, np.ndarray], *, engine: str | Engine = "mindspore", precision: str = "fp32"
    ) -> "SRVGG":
        """A network from arrays under the published names. Raises WeightsError for wrong names and shapes."""
        shapes = {name: tuple(value.shape) for name, value in weights.items()}
        config = SRVGGConfig.of_shapes(shapes)
        if config is None or weight_shapes(config) != shapes:
            raise WeightsError("the weights are not those of SRVGGNetCompact: use others")
        opened = open_engine(engine, precision)
        return cls(config, opened.weights(dict(weights)), opened)

    @property
    def scale(self) -> int:
        """The factor by which the network itself enlarges."""
        return self.config.upscale

    def __call__(self, images: Tensor, factor: int | None = None, strength: float = 1.0) -> Tensor:
        """Images (B, 3, H, W), RGB in 0..1 -> (B, 3, factor * H, factor * W), not clipped.

        factor: at most `scale`, the default; below it the result is reduced (bicubic). strength: share of the
        network in the result; the rest is a bicubic enlargement, which keeps noise and grain.
        """
        factor = factor or self.scale
        assert 0 < factor <= self.scale
        values = self.engine.input(np.asarray(as_array(images), np.float32))
        return self.engine.run(enlarge, self.weights, self.config, values, factor, strength)


def enlarge(run: Run, config: SRVGGConfig, images: Tensor, factor: int, strength: float) -> Tensor:
    """The network: `run` carries out its block."""
    return run(enlarged, "body", images, config.num_conv, config.upscale, factor, strength)


@Block
def enlarged(w: Weights, images: Tensor, num_conv: int, scale: int, factor: int, strength: float) -> Tensor:
    batch, channels, height, width = images.shape
    x = images
    for number in range(num_conv + 1):
        x = F.conv2d(x, w[f"{2 * number}.weight"], w[f"{2 * number}.bias"])
        x = F.prelu(x, w[f"{2 * number + 1}.weight"])
    last = 2 * (num_conv + 1)
    x = F.conv2d(x, w[f"{last}.weight"], w[f"{last}.bias"])  # (B, 3 * scale**2, H, W)
    # The network computes what differs from the image with repeated pixels.
    repeated = F.tile(F.expand_dims(images, 2), (1, 1, scale**2, 1, 1))
    x = x + F.reshape(repeated, (batch, channels * scale**2, height, width))
    return mixed(F.pixel_shuffle(x, scale), images, factor, strength)
