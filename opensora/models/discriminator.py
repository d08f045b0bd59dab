"""Discriminator: PatchGAN (arXiv:1611.07004, section 3.2.2), which tells real patches of frames or videos from reconstructed ones.

Convolutions that halve the size, batch norm (arXiv:1502.03167) between them, and one logit per patch; layers and widths follow
from the weights. Names are those of the release's loss: `main.0` and `main.2` convolutions, `main.3` norm, `main.5` convolution, ...
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from opensora.engine.block import Block, Differentiable
from opensora.engine.mindspore import Forward, Tape
from opensora.models.initial import normal, uniform
from opensora.nn.convolution import from_frames, time_tap, to_frames
from opensora.runtime import mindspore

ms = mindspore()
ops = ms.ops

KERNEL = {2: 4, 3: 3}  # kernel size by dimensions
PADDING = 1
MOMENTUM = 0.1
EPS = 1e-5
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def convolution_names(count: int) -> list[str]:
    """Where the convolutions lie: one with its activation, then threes of convolution, norm and activation, then the last."""
    return ["0", *(str(3 * i - 1) for i in range(1, count))]


def _layout(w: Any, video: Any, volumes: bool) -> Any:
    """(B, C, T, H, W) -> (T*B, C, H, W) for convolutions in time, else (B*T, C, H, W), the order in which the release flattens videos."""
    if volumes:
        return to_frames(video)
    return ops.reshape(ops.transpose(video, (0, 2, 1, 3, 4)), (-1, video.shape[1], *video.shape[3:]))


def _convolution(w: Any, x: Any, batch: int, time_stride: int, stride: int, bends: bool) -> Any:
    """x (N, C, H, W), or of a video (T*B, C, H, W) with time outermost, between two frames of zeros."""
    weight = w["weight"]
    y = (
        _convolution_3d(x, weight, batch, time_stride, stride)
        if len(weight.shape) == 5
        else _convolution_2d(x, weight, stride)
    )
    if "bias" in w:
        y = ops.bias_add(y, w["bias"])
    return _leaky(y) if bends else y


def _convolution_2d(x: Any, weight: Any, stride: int) -> Any:
    return ops.conv2d(x, weight, None, stride, "pad", PADDING)


def _convolution_3d(x: Any, weight: Any, batch: int, time_stride: int, stride: int) -> Any:
    """The sum over the time taps."""
    kernel = ops.transpose(weight, (2, 0, 1, 3, 4))  # (taps, out, in, kh, kw)
    taps = kernel.shape[0]
    zeros = ops.zeros((PADDING * batch, *x.shape[1:]), x.dtype)
    padded = ops.concat((zeros, x, zeros), 0)
    y = _convolution_2d(time_tap(padded, batch, 0, taps, time_stride), kernel[0], stride)
    for tap in range(1, taps):
        y = y + _convolution_2d(time_tap(padded, batch, tap, taps, time_stride), kernel[tap], stride)
    return y


def _leaky(x: Any) -> Any:
    return ops.maximum(x, 0.2 * x)


def _mean(w: Any, x: Any) -> Any:
    """(N, C, H, W) -> (C,)."""
    return ops.mean(x, (0, 2, 3))


def _centre(w: Any, x: Any, mean: Any) -> tuple[Any, Any]:
    """x less its mean (C,), and the mean square of that (C,)."""
    x = x - ops.reshape(mean, (1, -1, 1, 1))
    return x, ops.mean(x * x, (0, 2, 3))


def _scale(w: Any, x: Any, variance: Any) -> Any:
    """The end of a norm, and the activation after it."""
    x = x * ops.reshape(w["weight"] * ops.rsqrt(variance + EPS), (1, -1, 1, 1))
    return _leaky(ops.bias_add(x, w["bias"]))


def _to_video(w: Any, x: Any, batch: int) -> Any:
    return from_frames(x, batch)


LAYOUT, CONVOLUTION, TO_VIDEO = Block(_layout), Block(_convolution), Block(_to_video)
MEAN, CENTRE, SCALE = Block(_mean), Block(_centre), Block(_scale)


class Discriminator:
    """`weights` has the release's names, running statistics included. dims: 2 looks at frames by themselves, 3 at videos."""

    def __init__(self, weights: Mapping[str, Any], dims: int) -> None:
        self.weights = dict(weights)
        self.dims = dims
        self.layers = sum(len(value.shape) == dims + 2 for value in weights.values()) - 2
        self.all_reduce_mean: Differentiable | None = None
        """The mean of a tensor over all devices, where each sees other clips: batch norms are then those of all clips together."""
        self.devices = 1

    @classmethod
    def from_weights(cls, weights: Mapping[str, Any], dims: int) -> "Discriminator":
        """From arrays or tensors under the release's names. Raises ValueError where they are not those of such a discriminator."""
        kernels = sorted(name for name, value in weights.items() if len(value.shape) > 1)
        expected = sorted(f"main.{name}.weight" for name in convolution_names(len(kernels)))
        if (
            kernels != expected
            or len(kernels) < 3
            or any(len(weights[name].shape) != dims + 2 for name in kernels)
        ):
            shapes = ", ".join(f"{name} {list(weights[name].shape)}" for name in kernels)
            raise ValueError(
                f"these are not the convolutions of a {dims}-D discriminator: {shapes}; check dims and the file"
            )
        return cls(
            {
                name: value if isinstance(value, ms.Tensor) else ms.Tensor(value)
                for name, value in weights.items()
            },
            dims,
        )

    @classmethod
    def initialise(
        cls, dims: int, rng: np.random.Generator, layers: int = 3, width: int = 64
    ) -> "Discriminator":
        """Fresh weights as PatchGAN's: normal, of deviation 0.02 around 0 (convolutions) or 1 (norms).

        layers: how many convolutions halve the size. width: channels of the first, doubled by the next up to eightfold.
        """
        channels = [3, *(width * min(2**i, 8) for i in range(layers + 1)), 1]
        weights: dict[str, np.ndarray] = {}
        for i, name in enumerate(convolution_names(layers + 2)):
            outputs, inputs = channels[i + 1], channels[i] * KERNEL[dims] ** dims
            weights[f"main.{name}.weight"] = normal(rng, (outputs, channels[i], *[KERNEL[dims]] * dims), 0.02)
            if i in (0, layers + 1):
                weights[f"main.{name}.bias"] = uniform(rng, (outputs,), inputs**-0.5)
                continue
            norm = f"main.{int(name) + 1}"
            weights[norm + ".weight"] = 1.0 + normal(rng, (outputs,), 0.02)
            weights[norm + ".bias"] = weights[norm + ".running_mean"] = np.zeros(outputs, np.float32)
            weights[norm + ".running_var"] = np.ones(outputs, np.float32)
            weights[norm + ".num_batches_tracked"] = np.zeros((), np.int64)
        return cls.from_weights(weights, dims)

    @property
    def trainable(self) -> dict[str, Any]:
        """The weights that an optimizer changes: all but the running statistics."""
        return {name: value for name, value in self.weights.items() if not name.endswith(BUFFERS)}

    def __call__(self, x: Any, training: bool = False) -> Any:
        """Logits, positive for real. The norms use the running statistics, or where `training` those of this batch.

        dims 3: videos (B, 3, T, H, W) -> (B, 1, t, h, w). dims 2: images (N, 3, H, W), or a video as its B*T frames -> (N, 1, h, w).
        """
        return self._forward(Forward(self.trainable), x, training)[0]

    def forward_with_tape(self, x: Any) -> tuple[Any, dict[str, Any], Tape]:
        """Logits in training, the running statistics after this batch by name, and the tape that walks back to weights and x.

        Nothing changes here: the caller takes the statistics over with `weights.update(statistics)`.
        """
        tape = Tape(self.trainable)
        logits, statistics = self._forward(tape, x, training=True)
        return logits, statistics, tape

    def _forward(self, run: Forward, x: Any, training: bool) -> tuple[Any, dict[str, Any]]:
        """The logits, and in training the running statistics after this batch."""
        batch, volumes = x.shape[0], self.dims == 3
        if len(x.shape) == 5:
            x = run(LAYOUT, "", x, volumes)
        statistics: dict[str, Any] = {}
        for i, name in enumerate(convolution_names(self.layers + 2)):
            stride = 2 if i < self.layers else 1
            # Time is halved at most twice, since clips have fewer frames than rows.
            x = run(CONVOLUTION, f"main.{name}", x, batch, stride if i < 2 else 1, stride, i == 0)
            if 0 < i <= self.layers:
                x, moved = self._norm(run, f"main.{int(name) + 1}", x, training)
                statistics |= moved
        return (run(TO_VIDEO, "", x, batch) if volumes else x), statistics

    def _norm(self, run: Forward, name: str, x: Any, training: bool) -> tuple[Any, dict[str, Any]]:
        """A batch norm and its activation, and in training its running statistics after this batch."""
        running = {buffer: self.weights[f"{name}.{buffer}"] for buffer in BUFFERS}
        if not training:
            centred, _ = run(CENTRE, "", x, running["running_mean"])
            return run(SCALE, name, centred, running["running_var"]), {}
        mean = self._mean_everywhere(run, run(MEAN, "", x))
        centred, square = run(CENTRE, "", x, mean)
        variance = self._mean_everywhere(run, square)
        count = self.devices * x.shape[0] * x.shape[2] * x.shape[3]
        moments = {"running_mean": mean, "running_var": variance * (count / (count - 1))}
        moved = {
            buffer: running[buffer] + MOMENTUM * (value - running[buffer])
            for buffer, value in moments.items()
        }
        moved["num_batches_tracked"] = running["num_batches_tracked"] + 1
        return run(SCALE, name, centred, variance), {
            f"{name}.{buffer}": value for buffer, value in moved.items()
        }

    def _mean_everywhere(self, run: Forward, value: Any) -> Any:
        return value if self.all_reduce_mean is None else run(self.all_reduce_mean, "", value)
