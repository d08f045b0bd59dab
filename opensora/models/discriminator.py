"""Discriminator: PatchGAN (arXiv:1611.07004, section 3.2.2), which tells real patches of frames or videos from reconstructed ones.

Convolutions that halve the size, batch norm (arXiv:1502.03167) between them, and one logit per patch; layers and widths follow
from the weights. Names are those of the release's loss: `main.0` and `main.2` convolutions, `main.3` norm, `main.5` convolution, ...
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from opensora.nn.block import Block, Forward, Tape
from opensora.nn.convolution import from_frames, time_tap, to_frames
from opensora.runtime import mindspore

ms = mindspore()
ops = ms.ops

KERNEL = {2: 4, 3: 3}  # kernel size by dimensions
PADDING = 1
MOMENTUM = 0.1
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def convolution_names(count: int) -> list[str]:
    """Where the convolutions lie: one with its activation, then threes of convolution, norm and activation, then the last."""
    return ["0", *(str(3 * i - 1) for i in range(1, count))]


def _network(w: Any, x: Any, layers: int, training: bool) -> tuple[Any, ...]:
    """The logits, then, for each norm, the mean and the unbiased variance (C,) of this batch, or the running ones."""
    batch, video = x.shape[0], len(x.shape) == 5
    volumes = len(w["0.weight"].shape) == 5
    if video:
        x = to_frames(x) if volumes else _to_images(x)
    names = convolution_names(layers + 2)
    statistics: tuple[Any, ...] = ()
    for i, name in enumerate(names):
        stride = 2 if i < layers else 1
        if volumes:
            # Time is halved at most twice, since clips have fewer frames than rows.
            x = _convolution_3d(x, w[name + ".weight"], batch, stride if i < 2 else 1, stride)
        else:
            x = ops.conv2d(x, w[name + ".weight"], None, stride, "pad", PADDING)
        if name + ".bias" in w:
            x = ops.bias_add(x, w[name + ".bias"])
        else:
            norm = str(int(name) + 1)
            x, mean, variance = _batch_norm(w, norm, x, training)
            statistics = (*statistics, mean, variance)
        if i <= layers:
            x = ops.maximum(x, 0.2 * x)  # leaky ReLU
    return (from_frames(x, batch) if volumes else x, *statistics)


def _to_images(video: Any) -> Any:
    """(B, C, T, H, W) -> (B*T, C, H, W), the order in which the release flattens videos."""
    return ops.reshape(ops.transpose(video, (0, 2, 1, 3, 4)), (-1, video.shape[1], *video.shape[3:]))


def _convolution_3d(x: Any, weight: Any, batch: int, time_stride: int, stride: int) -> Any:
    """Of a video (T*B, C, H, W), time outermost, between two frames of zeros, as the sum over the time taps."""
    kernel = ops.transpose(weight, (2, 0, 1, 3, 4))  # (taps, out, in, kh, kw)
    taps = kernel.shape[0]
    zeros = ops.zeros((PADDING * batch, *x.shape[1:]), x.dtype)
    padded = ops.concat((zeros, x, zeros), 0)
    y = ops.conv2d(time_tap(padded, batch, 0, taps, time_stride), kernel[0], None, stride, "pad", PADDING)
    for tap in range(1, taps):
        y = y + ops.conv2d(time_tap(padded, batch, tap, taps, time_stride), kernel[tap], None, stride, "pad", PADDING)
    return y


def _batch_norm(w: Any, name: str, x: Any, training: bool, eps: float = 1e-5) -> tuple[Any, Any, Any]:
    """x (N, C, H, W), normalised by this batch or by the running statistics, and the mean and unbiased variance (C,)."""
    if training:
        mean = ops.mean(x, (0, 2, 3), True)  # (1, C, 1, 1)
        x = x - mean
        variance = ops.mean(x * x, (0, 2, 3))  # (C,)
        count = x.shape[0] * x.shape[2] * x.shape[3]
        mean, unbiased = ops.reshape(mean, (-1,)), variance * (count / (count - 1))
    else:
        mean, variance = w[name + ".running_mean"], w[name + ".running_var"]
        x = x - ops.reshape(mean, (1, -1, 1, 1))
        unbiased = variance
    x = x * ops.reshape(w[name + ".weight"] * ops.rsqrt(variance + eps), (1, -1, 1, 1))
    return ops.bias_add(x, w[name + ".bias"]), mean, unbiased


NETWORK = Block(_network)


class Discriminator:
    """`weights` has the release's names, running statistics included. dims: 2 looks at frames by themselves, 3 at videos."""

    def __init__(self, weights: Mapping[str, Any], dims: int) -> None:
        self.weights = dict(weights)
        self.dims = dims
        self.layers = sum(len(value.shape) == dims + 2 for value in weights.values()) - 2

    @classmethod
    def from_weights(cls, weights: Mapping[str, Any], dims: int) -> "Discriminator":
        """From arrays or tensors under the release's names. Raises ValueError where they are not those of such a discriminator."""
        kernels = sorted(name for name, value in weights.items() if len(value.shape) > 1)
        expected = sorted(f"main.{name}.weight" for name in convolution_names(len(kernels)))
        if kernels != expected or len(kernels) < 3 or any(len(weights[name].shape) != dims + 2 for name in kernels):
            shapes = ", ".join(f"{name} {list(weights[name].shape)}" for name in kernels)
            raise ValueError(f"these are not the convolutions of a {dims}-D discriminator: {shapes}; check dims and the file")
        return cls({name: value if isinstance(value, ms.Tensor) else ms.Tensor(value) for name, value in weights.items()}, dims)

    @classmethod
    def initialise(cls, dims: int, rng: np.random.Generator, layers: int = 3, width: int = 64) -> "Discriminator":
        """Fresh weights as PatchGAN's: normal, of deviation 0.02 around 0 (convolutions) or 1 (norms).

        layers: how many convolutions halve the size. width: channels of the first, doubled by the next up to eightfold.
        """
        channels = [3, *(width * min(2**i, 8) for i in range(layers + 1)), 1]
        weights: dict[str, np.ndarray] = {}
        for i, name in enumerate(convolution_names(layers + 2)):
            outputs, inputs = channels[i + 1], channels[i] * KERNEL[dims] ** dims
            weights[f"main.{name}.weight"] = rng.normal(0.0, 0.02, (outputs, channels[i], *[KERNEL[dims]] * dims))
            if i in (0, layers + 1):
                weights[f"main.{name}.bias"] = rng.uniform(-1.0, 1.0, outputs) / np.sqrt(inputs)
                continue
            norm = f"main.{int(name) + 1}"
            weights[norm + ".weight"] = rng.normal(1.0, 0.02, outputs)
            weights[norm + ".bias"] = weights[norm + ".running_mean"] = np.zeros(outputs)
            weights[norm + ".running_var"] = np.ones(outputs)
            weights[norm + ".num_batches_tracked"] = np.zeros((), np.int64)
        singles = {name: value.astype(np.float32) if value.dtype == np.float64 else value for name, value in weights.items()}
        return cls.from_weights(singles, dims)

    @property
    def trainable(self) -> dict[str, Any]:
        """The weights that an optimizer changes: all but the running statistics."""
        return {name: value for name, value in self.weights.items() if not name.endswith(BUFFERS)}

    def __call__(self, x: Any, training: bool = False) -> Any:
        """Logits, positive for real. The norms use the running statistics, or where `training` those of this batch.

        dims 3: videos (B, 3, T, H, W) -> (B, 1, t, h, w). dims 2: images (N, 3, H, W), or a video as its B*T frames -> (N, 1, h, w).
        """
        weights = {name: value for name, value in self.weights.items() if not name.endswith("num_batches_tracked")}
        return Forward(self.trainable if training else weights)(NETWORK, "main", x, self.layers, training)[0]

    def forward_with_tape(self, x: Any) -> tuple[Any, dict[str, Any], Tape]:
        """Logits in training, the running statistics after this batch by name, and the tape that walks back to weights and x.

        Nothing changes here: the caller takes the statistics over with `weights.update(statistics)`.
        """
        tape = Tape(self.trainable)
        logits, *moments = tape(NETWORK, "main", x, self.layers, True)
        statistics = {}
        for i, name in enumerate(convolution_names(self.layers + 2)[1:-1]):
            norm = f"main.{int(name) + 1}"
            for buffer, value in zip(BUFFERS, moments[2 * i : 2 * i + 2], strict=False):
                running = self.weights[f"{norm}.{buffer}"]
                statistics[f"{norm}.{buffer}"] = running + MOMENTUM * (value - running)
            statistics[norm + ".num_batches_tracked"] = self.weights[norm + ".num_batches_tracked"] + 1
        return logits, statistics, tape
