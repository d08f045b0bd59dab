"""AMT-G: a frame between two frames, from flows that are refined by correlations of all pairs of pixels
(arXiv:2304.09790)."""

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from opensora.engine import Engine, open_engine
from opensora.engine.block import Run, as_array
from opensora.models.amt import blocks
from opensora.models.amt.config import SMALLEST, STRIDE, AMTConfig, open_amt, weight_shapes
from opensora.nn import Tensor
from opensora.weights import WeightsError


class Prediction(NamedTuple):
    """The frame, and for each decoder from coarse to fine its flow (B, 4, h, w) and features (B, C, h, w).

    flows0, flows1: the last decoder's, of full size, to the first and to the second frame.
    """

    frame: Tensor
    flows: tuple[Tensor, ...]
    features: tuple[Tensor, ...]
    flows0: Tensor
    flows1: Tensor


class AMT:
    """The network: its configuration, and its weights under the published names."""

    def __init__(self, config: AMTConfig, weights: Mapping[str, Tensor], engine: Engine) -> None:
        self.config, self.weights, self.engine = config, weights, engine

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, engine: str | Engine = "mindspore", precision: str = "fp32"
    ) -> "AMT":
        """Load AMT-G from a file (.pth, .safetensors), or a folder with config.json. Raises WeightsError."""
        config, arrays = open_amt(source)
        opened = open_engine(engine, precision)
        return cls(config, opened.weights(arrays), opened)

    @classmethod
    def from_weights(
        cls,
        weights: Mapping[str, Tensor],
        *,
        engine: str | Engine = "mindspore",
        precision: str = "fp32",
        **config: Any,
    ) -> "AMT":
        """A network from arrays or tensors under the published names.

        config: values of `AMTConfig`. Raises WeightsError for missing names and wrong shapes.
        """
        chosen = AMTConfig.from_dict(config)
        shapes = weight_shapes(chosen)
        wrong = [name for name in shapes if tuple(getattr(weights.get(name), "shape", ())) != shapes[name]]
        if wrong:
            raise WeightsError(
                f"the weights of AMT lack {len(wrong)} tensors or have them in another shape "
                f"({', '.join(wrong[:10])}): use those of AMT-G"
            )
        opened = open_engine(engine, precision)
        arrays = {name: np.ascontiguousarray(as_array(weights[name]), np.float32) for name in shapes}
        return cls(chosen, opened.weights(arrays), opened)

    def __call__(
        self, frame0: Tensor, frame1: Tensor, time: float = 0.5, *, scale_factor: float = 1.0
    ) -> Tensor:
        """The frame (B, 3, H, W) at `time` between two frames (B, 3, H, W), RGB in 0..1.

        time: between 0, the first frame, and 1, the second. scale_factor: size at which motion is estimated,
        relative to the frames; below 1 it takes less time and memory, and larger motions are found. Frames of
        any size are padded by their border to what the network takes. Raises ValueError for other values.
        """
        first, second = (np.asarray(as_array(frame), np.float32) for frame in (frame0, frame1))
        if first.ndim != 4 or first.shape[1] != 3 or first.shape != second.shape:
            raise ValueError(f"the frames are {first.shape} and {second.shape}: both must be (B, 3, H, W)")
        if not 0 < time < 1:
            raise ValueError(f"time {time} is not between the frames: use a number above 0 and below 1")
        if scale_factor not in (1, 0.5, 0.25):
            raise ValueError(f"scale_factor {scale_factor} is not supported: use 1, 0.5 or 0.25")
        height, width = first.shape[2:]
        margins = [padding(size, scale_factor) for size in (height, width)]
        first, second = (np.pad(frame, ((0, 0), (0, 0), *margins), mode="edge") for frame in (first, second))
        frame = self.predict(first, second, time, scale_factor).frame
        (top, _), (left, _) = margins
        return frame[:, :, top : top + height, left : left + width]

    def between(self, frame0: np.ndarray, frame1: np.ndarray, factor: int) -> list[np.ndarray]:
        """The factor - 1 frames between two, evenly spaced; factor: a power of 2.

        Frames are float32 (B, 3, H, W) in 0..1. The frame in the middle is found first, then those between it
        and the others, as in the reference; they are padded once.
        """
        height, width = frame0.shape[2:]
        (top, bottom), (left, right) = padding(height), padding(width)

        def middles(first: np.ndarray, second: np.ndarray, factor: int) -> list[np.ndarray]:
            if factor == 1:
                return []
            middle = self.engine.output(self.predict(first, second).frame)
            return [*middles(first, middle, factor // 2), middle, *middles(middle, second, factor // 2)]

        margins = ((0, 0), (0, 0), (top, bottom), (left, right))
        first, second = (np.pad(frame, margins, mode="edge") for frame in (frame0, frame1))
        found = middles(first, second, factor)
        return [frame[:, :, top : top + height, left : left + width] for frame in found]

    def predict(
        self, frame0: np.ndarray, frame1: np.ndarray, time: float = 0.5, scale_factor: float = 1.0
    ) -> Prediction:
        """The frame and what led to it, for frames whose height and width are as `padding` makes them."""
        times = np.full((len(frame0), 1, 1, 1), time, np.float32)
        return self.engine.run(interpolate, self.weights, self.config, frame0, frame1, times, scale_factor)


def padding(size: int, scale_factor: float = 1.0) -> tuple[int, int]:
    """Pixels before and after `size` pixels, with which the network takes them."""
    step = int(STRIDE / scale_factor)
    more = max(ceil(size / step) * step, int(SMALLEST / scale_factor)) - size
    return more // 2, more - more // 2


def interpolate(
    run: Run, config: AMTConfig, frame0: Tensor, frame1: Tensor, time: Tensor, scale_factor: float
) -> Prediction:
    """The network: `run` carries out its blocks."""
    side = config.skip_channels
    pair, mean = run(blocks.centre, "", frame0, frame1)  # (2B, 3, H, W), (B, 1, 1, 1)
    height, width = pair.shape[2:]
    small = pair
    if scale_factor != 1:
        small = run(blocks.resized, "", pair, int(height * scale_factor), int(width * scale_factor))

    matching = run(blocks.matching_features, "feat_encoder", small)  # (2B, 128, h/8, w/8)
    pyramids = run(blocks.correlate, "", matching, config.corr_lvls)
    half, quarter, eighth, sixteenth = run(blocks.context_features, "encoder", small)

    def look_up(flow: Tensor, reduction: int) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = run(
            blocks.look_up, "", flow, time, config.corr_radius, reduction, *pyramids
        )
        return found

    def updated(
        name: str, features: Tensor, flow: Tensor, small_flow: Tensor, seen: Tensor, reduction: int
    ) -> tuple[Tensor, Tensor]:
        change = run(blocks.refine, name, features, small_flow, seen, reduction)
        result: tuple[Tensor, Tensor] = run(blocks.add, "", features, flow, *change)
        return result

    flow, features = run(blocks.first_decoder, "decoder4", sixteenth, time, side)  # at 1/8
    seen, small_flow = look_up(flow, 1)
    features, flow = updated("update4", features, flow, small_flow, seen, 1)
    flows, all_features = [flow], [features]

    for level, context, reduction in ((3, eighth, 2), (2, quarter, 4)):  # at 1/4, then at 1/2
        flow, features = run(blocks.decoder, f"decoder{level}", features, context, flow, side)
        seen, small_flow = look_up(flow, reduction)
        features, flow = updated(f"update{level}_low", features, flow, small_flow, seen, reduction)
        seen = run(blocks.enlarged, "", seen, reduction)
        features, flow = updated(f"update{level}_high", features, flow, flow, seen, 1)
        flows.append(flow)
        all_features.append(features)

    merged = run(blocks.last_decoder, "decoder1", features, half, flow, side, config.num_flows)
    if scale_factor != 1:
        merged = run(blocks.full_size, "", *merged, height, width)
    frame = run(blocks.combine, "comb_block", pair, mean, *merged)
    return Prediction(frame, tuple(flows), tuple(all_features), *merged[:2])
