"""CausalVAE in little memory, exactly: layer by layer, each over chunks of frames.

GroupNorm pools over time and upsampling in time looks one frame ahead, so a chunk cannot pass the whole
network alone. Here each layer runs over all chunks before the next layer starts. A causal convolution also
reads the two frames before its chunk. A norm uses sums over all frames, which are taken when frames are
written. Whatever acts on single frames (norms with known sums, 2-D blocks, upsampling in space) is computed
when it is read. So only the inputs of norms and of layers that join frames are stored.

Operators run one by one: compiled code would keep working memory for every shape and saves no time here.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from opensora.engine import Engine
from opensora.engine.block import Weights, as_array, subset
from opensora.models.causal_vae.blocks import BLOCKS, EVERY_SECOND_FRAME, attend_in_frames, mean_of_three
from opensora.models.causal_vae.config import Layer
from opensora.models.causal_vae.frames import (
    CHUNK_BYTES,
    Frames,
    Given,
    Interpolated,
    Mapped,
    Statistics,
    Stored,
    Workspace,
)
from opensora.models.geometry import FLOAT
from opensora.nn import F, Tensor
from opensora.nn.exchange import WorkSharing
from opensora.nn.window import UNPADDED

Function = Callable[..., Tensor]

# Overhead of a chunk, in frames.
COST_OF_A_CHUNK = 0.5


def run_chunked(
    layers: Sequence[Layer],
    engine: Engine,
    weights: Weights,
    video: np.ndarray,
    groups: int,
    workspace: Workspace,
    sharing: WorkSharing | None = None,
) -> np.ndarray:
    """Apply a chain of layers to a video: (B, C, F, H, W) -> (B, C', F', H', W').

    sharing: how several devices share the chunks; by default this one computes all.
    """
    run = ChunkedRun(engine, groups, workspace, sharing or WorkSharing())
    x: Frames = Given(video.transpose(2, 0, 1, 3, 4))
    for layer in layers:
        x = CHUNKED[layer.kind.chunked](run, layer, subset(weights, layer.prefix), x)
    frames, batch, *rest = x.shape
    result = np.empty((batch, rest[0], frames, *rest[1:]), np.float32)
    run.fill(workspace.place(result.transpose(2, 0, 1, 3, 4)), x)
    x.release()
    return result


# --- chunks ---


def chunk_frames(frames: int, frame_bytes: int) -> int:
    """Frames per chunk: about CHUNK_BYTES, chosen so that the last chunk is nearly full."""
    most = min(frames, max(1, CHUNK_BYTES // frame_bytes))
    return min(range(most, 0, -1), key=lambda size: -(-frames // size) * (size + COST_OF_A_CHUNK))


def chunk_of(x: Frames, channels: int = 0) -> int:
    """Frames per chunk of x, or of a result with `channels` channels. Mapped videos have their own."""
    if isinstance(x, Mapped):
        return x.chunk
    frames, batch, own, height, width = x.shape
    return chunk_frames(frames, FLOAT * batch * max(own, channels) * height * width)


def chunks(x: Frames) -> Iterator[np.ndarray]:
    """Frame numbers of every chunk, all of one length: a short last chunk repeats the last frame."""
    size = chunk_of(x)
    for start in range(0, x.shape[0], size):
        yield np.minimum(np.arange(start, start + size), x.shape[0] - 1)


# --- the steps of a layer ---


class ChunkedRun:
    """State of all layers: groups of norms, store of activations, division of chunks among devices."""

    def __init__(self, engine: Engine, groups: int, workspace: Workspace, sharing: WorkSharing) -> None:
        self.engine = engine
        self.groups = groups
        self.workspace = workspace
        self.sharing = sharing

    def bound(self, function: Function, weights: Weights) -> Callable[..., np.ndarray]:
        """A function of (weights, rows (n*B, C, H, W), ...) as one of frames (n, B, C, H, W)."""
        compute = self.engine.bind(function, weights)

        def on_frames(frames: np.ndarray, *constants: np.ndarray) -> np.ndarray:
            rows: np.ndarray = as_array(compute(frames.reshape(-1, *frames.shape[2:]), *constants))
            return rows.reshape(-1, frames.shape[1], *rows.shape[1:])

        return on_frames

    def computed(self, *videos: Frames) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
        """For each chunk, the number of its first frame and its frames in each video."""

        def read(frames: np.ndarray) -> tuple[np.ndarray, ...]:
            return tuple(video.read(frames) for video in videos)

        for frames, values in self.sharing.map(read, chunks(videos[0])):
            yield int(frames[0]), values

    def fill(self, target: Stored, x: Frames) -> None:
        """Compute all of x into a stored video."""
        for start, (value,) in self.computed(x):
            target.write(start, value)

    def stored(self, x: Frames) -> Stored:
        """x itself if it is stored, else x computed and stored."""
        if isinstance(x, Stored):
            return x
        target = self.workspace.store(x.shape)
        self.fill(target, x)
        x.release()
        return target

    def normalised(self, x: Frames, weights: Weights, function: Function) -> Mapped:
        """x after a norm over all frames; `function` applies the norm and what follows it."""
        if isinstance(x, Stored):
            statistics = x.statistics
        else:
            statistics = Statistics(x.shape)
            for start, (value,) in self.computed(x):
                statistics.add(start, value[: x.shape[0] - start])
        mean, variance = statistics.groups(self.groups)  # (B, groups)
        batch, channels = x.shape[1:3]
        constants = {name: np.tile(as_array(value), batch) for name, value in weights.items()}
        for name, value in (("mean", mean), ("variance", variance)):
            constants[name] = value.repeat(channels // self.groups, 1).ravel().astype(np.float32)
        compute = self.bound(function, constants)

        def chunk(frames: np.ndarray) -> np.ndarray:
            merged = frames.reshape(len(frames), 1, batch * channels, *x.shape[3:])
            return compute(merged).reshape(frames.shape)

        return Mapped(x, x.shape, chunk_of(x), chunk, keep=2)

    def convolved(
        self, x: Frames, weights: Weights, function: Function, stride: int = 1, **more: Tensor
    ) -> Mapped:
        """x after a causal convolution; weights: the layer's own, more: further weights of `function`."""
        kernel = np.ascontiguousarray(
            as_array(weights["weight"]).transpose(2, 0, 1, 3, 4)
        )  # (taps, out, in, kh, kw)
        if x.shape[0] == stride == 1:
            kernel = kernel.sum(0, keepdims=True)  # with one frame every tap sees the same pixels
        compute = self.bound(function, {"kernel": kernel, "bias": weights["bias"], **more})
        frames, batch, _, height, width = x.shape
        shape = (-(-frames // stride), batch, kernel.shape[1], height, width)
        size = chunk_of(x, kernel.shape[1])

        def chunk(window: np.ndarray) -> np.ndarray:
            return compute(window, batch)

        return Mapped(x, shape, size, chunk, before=len(kernel) - 1, stride=stride)


# --- layers ---


def _frame_by_frame(run: ChunkedRun, layer: Layer, w: Weights, x: Frames) -> Frames:
    """Blocks that act on single frames."""
    frames, batch, _, height, width = x.shape
    size = layer.kind.resize((frames, height, width))[1:]
    shape = (frames, batch, layer.channels_out, *size)
    largest = max(layer.channels_out * size[0] * size[1], layer.channels_in * height * width)
    chunk = x.chunk if isinstance(x, Mapped) else chunk_frames(frames, FLOAT * batch * largest)

    compute = run.bound(BLOCKS[layer.kind.block].function, w)
    return Mapped(x, shape, chunk, lambda part: compute(part, len(part) * batch, run.groups))


def _resnet_3d(run: ChunkedRun, layer: Layer, w: Weights, x: Frames) -> Frames:
    narrows = layer.channels_out < layer.channels_in
    # An input larger than the result is computed twice rather than stored.
    x = x if narrows and isinstance(x, Mapped) else run.stored(x)
    first = run.convolved(
        run.normalised(x, subset(w, "norm1"), _activate), subset(w, "conv1.conv"), _convolve
    )
    h = run.workspace.store(first.shape)
    if layer.channels_in == layer.channels_out:
        out = run.stored(x)
        run.fill(h, first)
    else:
        out = run.workspace.store(first.shape)
        pointwise = run.bound(_pointwise, subset(w, "nin_shortcut.conv"))
        shortcut = Mapped(x, first.shape, chunk_of(first), pointwise)
        for start, (value, shorter) in run.computed(first, shortcut):
            h.write(start, value)
            out.write(start, shorter)
        x.release()
    second = run.convolved(
        run.normalised(h, subset(w, "norm2"), _activate), subset(w, "conv2.conv"), _convolve
    )
    _add(run, out, second)
    h.release()
    return out


def _add(run: ChunkedRun, x: Stored, other: Frames) -> None:
    """x + other, in place of x."""
    for start, (value, more) in run.computed(other, x):
        x.write(start, more + value)


def _frame_attention(run: ChunkedRun, layer: Layer, w: Weights, x: Frames) -> Frames:
    x = run.stored(x)
    h = run.normalised(x, subset(w, "norm"), _normalise)
    _add(run, x, Mapped(h, h.shape, h.chunk, run.bound(attend_in_frames, w)))
    return x


def _whole(run: ChunkedRun, layer: Layer, w: Weights, x: Frames) -> Frames:
    """A layer that needs all frames at once; it is on the level with the smallest frames."""
    x = run.stored(x)
    everything = x.read(np.arange(x.shape[0]))
    compute = run.bound(BLOCKS[layer.kind.block].function, w)
    x.write(0, compute(everything, x.shape[1], run.groups))
    return x


def _norm_silu(run: ChunkedRun, layer: Layer, w: Weights, x: Frames) -> Frames:
    return run.normalised(run.stored(x), w, _activate)


def _causal_conv(run: ChunkedRun, layer: Layer, w: Weights, x: Frames) -> Frames:
    return run.convolved(x, subset(w, "conv"), _convolve)


def _time_downsample(run: ChunkedRun, layer: Layer, w: Weights, x: Frames) -> Frames:
    x = run.stored(x)
    frames, batch = x.shape[:2]
    shape = (-(-frames // 2), *x.shape[1:])
    compute = run.bound(_mean_of_three, {})
    return run.stored(Mapped(x, shape, chunk_of(x), lambda part: compute(part, batch), before=2, stride=2))


def _mixed_time_downsample(run: ChunkedRun, layer: Layer, w: Weights, x: Frames) -> Frames:
    return run.convolved(run.stored(x), subset(w, "conv"), _mixed_down, 2, mix_factor=w["mix_factor"])


def _time_upsample(run: ChunkedRun, layer: Layer, w: Weights, x: Frames) -> Frames:
    return Interpolated(run.stored(x))


def _mixed_time_upsample(run: ChunkedRun, layer: Layer, w: Weights, x: Frames) -> Frames:
    # Stored at once: the next layer may read it twice, and this convolution is expensive.
    return run.stored(
        run.convolved(
            Interpolated(run.stored(x)), subset(w, "conv.conv"), _mixed_up, mix_factor=w["mix_factor"]
        )
    )


CHUNKED: dict[str, Callable[[ChunkedRun, Layer, Weights, Frames], Frames]] = {
    "frames": _frame_by_frame,
    "conv": _causal_conv,
    "norm": _norm_silu,
    "resnet": _resnet_3d,
    "attention": _frame_attention,
    "whole": _whole,
    "mean": _time_downsample,
    "mixed_mean": _mixed_time_downsample,
    "interpolation": _time_upsample,
    "mixed_interpolation": _mixed_time_upsample,
}
"""Functions by the names that `LAYER_KINDS` gives them."""


# --- functions of a chunk ---


def _activate(w: Weights, x: Tensor) -> Tensor:
    return F.silu(_normalise(w, x))


def _normalise(w: Weights, x: Tensor) -> Tensor:
    return F.normalise_channels(x, w["weight"], w["bias"], w["mean"], w["variance"])


def _convolve(w: Weights, window: Tensor, batch: int) -> Tensor:
    return F.sum_over_taps(window, w["kernel"], w["bias"], batch)


def _pointwise(w: Weights, x: Tensor) -> Tensor:
    return F.sum_over_taps(
        x, F.reshape(w["weight"], (1, *w["weight"].shape[:2], 1, 1)), w["bias"], 1, UNPADDED
    )


def _mean_of_three(w: Weights, window: Tensor, batch: int) -> Tensor:
    return mean_of_three(window, batch)


def _mixed_down(w: Weights, window: Tensor, batch: int) -> Tensor:
    mix = F.sigmoid(w["mix_factor"])
    return mix * mean_of_three(window, batch) + (1.0 - mix) * F.sum_over_taps(
        window, w["kernel"], w["bias"], batch, EVERY_SECOND_FRAME
    )


def _mixed_up(w: Weights, window: Tensor, batch: int) -> Tensor:
    mix = F.sigmoid(w["mix_factor"])
    return mix * window[(w["kernel"].shape[0] - 1) * batch :] + (1.0 - mix) * F.sum_over_taps(
        window, w["kernel"], w["bias"], batch
    )
