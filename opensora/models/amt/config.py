"""Configuration of AMT-G and the names and shapes of its weights, as in the published file.

Loads without MindSpore.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from opensora.config_files import Length, Range, typed
from opensora.weights import CONFIG, Shapes, TensorSource, load_config, open_weights

STRIDE = 16
"""Height and width of the network's images are multiples of this."""
SMALLEST = 128
"""Smallest height and width of the network's images, for which every level of the correlation has pixels."""
FLOW_CHANNELS = 4
"""x and y of the flow to the first frame, then to the second."""
ENCODER_CHANNELS = {"conv1": 64, "layer1": 64, "layer2": 112, "layer3": 160, "layer3_2": 160}
MATCHING_CHANNELS = 128


@dataclass(frozen=True)
class AMTConfig:
    """The defaults are AMT-G's. The names are those of the authors' configuration files."""

    corr_radius: Annotated[int, Range(0, 16)] = 3
    """The correlation is looked up in 2 * corr_radius + 1 positions along each axis."""
    corr_lvls: Annotated[int, Range(1, 4)] = 4
    num_flows: Annotated[int, Range(1, 64)] = 5
    """Pairs of flows whose results are averaged."""
    channels: Annotated[tuple[Annotated[int, Range(1, 4096)], ...], Length(4, 4)] = (84, 96, 112, 128)
    """Channels of the features at 1/2, 1/4, 1/8 and 1/16 of the size."""
    skip_channels: Annotated[int, Range(1, 4096)] = 84

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: object = CONFIG) -> "AMTConfig":
        """From a config.json's content; other keys are passed over. where: the file, for errors.

        Raises ValueError for values out of range.
        """
        return typed(cls, values, where)

    @property
    def lookup_channels(self) -> int:
        """Numbers looked up for a pixel, in the correlation with the other frame, for both frames."""
        return int(2 * self.corr_lvls * (2 * self.corr_radius + 1) ** 2)


def weight_shapes(config: AMTConfig) -> Shapes:
    """Shape of every weight by its name in the published file."""
    shapes: Shapes = {}
    _matching_encoder(shapes)
    _context_encoder(shapes, config)
    _decoders(shapes, config)
    first, second, third, _ = config.channels
    for name, channels in (
        ("update4", third),
        ("update3_low", second),
        ("update2_low", first),
        ("update3_high", second),
        ("update2_high", first),
    ):
        _update_block(shapes, name, channels, config)
    merged = 3 * config.num_flows
    _convolution(shapes, "comb_block.0", merged, 2 * merged, 7)
    shapes["comb_block.1.weight"] = (2 * merged,)
    _convolution(shapes, "comb_block.2", 2 * merged, 3, 7)
    return shapes


def _convolution(shapes: Shapes, name: str, inputs: int, outputs: int, kernel: int = 3) -> None:
    shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
    shapes[f"{name}.bias"] = (outputs,)


def _with_prelu(shapes: Shapes, name: str, inputs: int, outputs: int, kernel: int = 3) -> None:
    _convolution(shapes, f"{name}.0", inputs, outputs, kernel)
    shapes[f"{name}.1.weight"] = (outputs,)


def _matching_encoder(shapes: Shapes) -> None:
    before = ENCODER_CHANNELS["conv1"]
    _convolution(shapes, "feat_encoder.conv1", 3, before, 7)
    for layer, channels in list(ENCODER_CHANNELS.items())[1:]:
        for number in range(2):
            name = f"feat_encoder.{layer}.{number}"
            _convolution(shapes, f"{name}.conv1", before, channels)
            _convolution(shapes, f"{name}.conv2", channels, channels)
            if before != channels:
                _convolution(shapes, f"{name}.downsample.0", before, channels, 1)
            before = channels
    _convolution(shapes, "feat_encoder.conv2", before, MATCHING_CHANNELS, 1)


def _context_encoder(shapes: Shapes, config: AMTConfig) -> None:
    before = 3
    for level, channels in enumerate(config.channels, 1):
        _with_prelu(shapes, f"encoder.pyramid{level}.0", before, channels, 7 if level == 1 else 3)
        _with_prelu(shapes, f"encoder.pyramid{level}.1", channels, channels)
        before = channels


def _decoders(shapes: Shapes, config: AMTConfig) -> None:
    first, second, third, fourth = config.channels
    for level, inputs, width, outputs in (
        (4, 2 * fourth + 1, 2 * fourth, third + FLOW_CHANNELS),
        (3, 3 * third + FLOW_CHANNELS, 3 * third, second + FLOW_CHANNELS),
        (2, 3 * second + FLOW_CHANNELS, 3 * second, first + FLOW_CHANNELS),
        (1, 3 * first + FLOW_CHANNELS, 3 * first, 8 * config.num_flows),
    ):
        name, side = f"decoder{level}.convblock", config.skip_channels
        _with_prelu(shapes, f"{name}.0", inputs, width)
        for number, channels in enumerate((width, side, width, side), 1):
            _with_prelu(shapes, f"{name}.1.conv{number}", channels, channels)
        _convolution(shapes, f"{name}.1.conv5", width, width)
        shapes[f"{name}.1.prelu.weight"] = (width,)
        shapes[f"{name}.2.weight"] = (width, outputs, 4, 4)
        shapes[f"{name}.2.bias"] = (outputs,)


def _update_block(shapes: Shapes, name: str, channels: int, config: AMTConfig) -> None:
    _convolution(shapes, f"{name}.convc1", config.lookup_channels, 256, 1)
    _convolution(shapes, f"{name}.convc2", 256, 192)
    _convolution(shapes, f"{name}.convf1", FLOW_CHANNELS, 128, 7)
    _convolution(shapes, f"{name}.convf2", 128, 64)
    _convolution(shapes, f"{name}.conv", 192 + 64, 188)
    _convolution(shapes, f"{name}.gru.0", 188 + FLOW_CHANNELS + channels, 192)
    _convolution(shapes, f"{name}.gru.2", 192, 192)
    for head, outputs in (("feat_head", channels), ("flow_head", FLOW_CHANNELS)):
        _convolution(shapes, f"{name}.{head}.0", 192, 192)
        _convolution(shapes, f"{name}.{head}.2", 192, outputs)


def open_amt(source: str | Path) -> tuple[AMTConfig, TensorSource]:
    """The configuration and weights of a file, which is AMT-G's, or of a folder with config.json.

    Raises WeightsError.
    """
    config = AMTConfig()
    if Path(source).is_dir():
        config = AMTConfig.from_dict(load_config(source), Path(source) / CONFIG)
    return config, open_weights(source, "model", expected=weight_shapes(config))
