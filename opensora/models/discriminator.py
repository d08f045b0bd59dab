"""PatchGAN discriminator (arXiv:1611.07004, section 3.2.2): tells patches of real videos from reconstructed
ones.

Convolutions halve the size, with batch norm (arXiv:1502.03167) between them, down to one logit per patch. The
number and widths of layers follow from the weights. Names are those of the release's loss: `main.0` and
`main.2` are convolutions, `main.3` is a norm, `main.5` a convolution, and so on.
"""

from collections.abc import Mapping

import numpy as np

from opensora.engine.block import Block, Differentiable, Weights
from opensora.engine.mindspore import Forward, Tape
from opensora.models.initial import normal, uniform
from opensora.nn import Tensor
from opensora.nn.convolution import from_frames, time_tap, to_frames
from opensora.runtime import mindspore

ms = mindspore()
ops = ms.ops

KERNEL = {2: 4, 3: 3}
"""Kernel size for 2-D and 3-D convolutions."""
PADDING = 1
MOMENTUM = 0.1
EPS = 1e-5
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def convolution_names(count: int) -> list[str]:
    """Places of `count` convolutions in the chain.

    The first is followed by an activation, each later one by a norm and an activation, the last by nothing.
    """
    return ["0", *(str(3 * i - 1) for i in range(1, count))]


@Block
def flatten_frames(w: Weights, video: Tensor, volumes: bool) -> Tensor:
    """(B, C, T, H, W) -> (T*B, C, H, W) for 3-D convolutions, else (B*T, C, H, W) as in the release."""
    if volumes:
        return to_frames(video)
    return ops.reshape(ops.transpose(video, (0, 2, 1, 3, 4)), (-1, video.shape[1], *video.shape[3:]))


@Block
def convolution(w: Weights, x: Tensor, batch: int, time_stride: int, stride: int, activate: bool) -> Tensor:
    """A convolution of images (N, C, H, W), or of videos (T*B, C, H, W) with zero frames before and after."""
    y = _convolve(x, w["weight"], batch, time_stride, stride)
    if "bias" in w:
        y = ops.bias_add(y, w["bias"])
    return _leaky_relu(y) if activate else y


def _convolution_2d(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return ops.conv2d(x, weight, None, stride, "pad", PADDING)


def _convolve(x: Tensor, weight: Tensor, batch: int, time_stride: int, stride: int) -> Tensor:
    """A 2-D convolution, or a 3-D one as the sum of 2-D convolutions over the time taps."""
    if len(weight.shape) == 4:
        return _convolution_2d(x, weight, stride)
    kernel = ops.transpose(weight, (2, 0, 1, 3, 4))  # (taps, out, in, kh, kw)
    taps = kernel.shape[0]
    zeros = ops.zeros((PADDING * batch, *x.shape[1:]), x.dtype)
    padded = ops.concat((zeros, x, zeros), 0)
    y = _convolution_2d(time_tap(padded, batch, 0, taps, time_stride), kernel[0], stride)
    for tap in range(1, taps):
        y = y + _convolution_2d(time_tap(padded, batch, tap, taps, time_stride), kernel[tap], stride)
    return y


def _leaky_relu(x: Tensor) -> Tensor:
    return ops.maximum(x, 0.2 * x)


@Block
def channel_mean(w: Weights, x: Tensor) -> Tensor:
    """(N, C, H, W) -> (C,)."""
    return ops.mean(x, (0, 2, 3))


@Block
def centre(w: Weights, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """x minus its mean (C,), and the mean square (C,) of the result."""
    x = x - ops.reshape(mean, (1, -1, 1, 1))
    return x, ops.mean(x * x, (0, 2, 3))


@Block
def scale(w: Weights, x: Tensor, variance: Tensor) -> Tensor:
    """The second half of a batch norm, and the activation after it."""
    x = x * ops.reshape(w["weight"] * ops.rsqrt(variance + EPS), (1, -1, 1, 1))
    return _leaky_relu(ops.bias_add(x, w["bias"]))


@Block
def to_video(w: Weights, x: Tensor, batch: int) -> Tensor:
    """(T*B, C, H, W) -> (B, C, T, H, W)."""
    return from_frames(x, batch)


class Discriminator:
    """The discriminator of the autoencoder's adversarial loss."""

    def __init__(self, weights: Mapping[str, Tensor], dims: int) -> None:
        """
        weights: tensors under the names of the release, running statistics included.
        dims: 2 treats each frame by itself, 3 treats videos.
        """
        self.weights = dict(weights)
        self.dims = dims
        self.layers = sum(len(value.shape) == dims + 2 for value in weights.values()) - 2
        self.all_reduce_mean: Differentiable | None = None
        """Takes the mean of a tensor over devices with different clips: batch norms then cover all clips."""
        self.devices = 1
        """The number of these devices."""

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor], dims: int) -> "Discriminator":
        """A discriminator from arrays or tensors under the names of the release.

        Raises ValueError for weights that are not those of a discriminator with `dims` dimensions.
        """
        kernels = sorted(name for name, value in weights.items() if len(value.shape) > 1)
        expected = sorted(f"main.{name}.weight" for name in convolution_names(len(kernels)))
        dims_fit = all(len(weights[name].shape) == dims + 2 for name in kernels)
        if kernels != expected or len(kernels) < 3 or not dims_fit:
            shapes = ", ".join(f"{name} {list(weights[name].shape)}" for name in kernels)
            raise ValueError(
                f"these are not the convolutions of a {dims}-D discriminator: {shapes}; "
                "check dims and the file"
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
        """Random weights as in PatchGAN: normal with deviation 0.02, around 0 for convolutions and 1 for
        norms.

        layers: the number of convolutions that halve the size. width: channels after the first convolution;
        each later one doubles them, up to eightfold.
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
    def trainable(self) -> dict[str, Tensor]:
        """The weights that an optimizer updates: all but the running statistics."""
        return {name: value for name, value in self.weights.items() if not name.endswith(BUFFERS)}

    def __call__(self, x: Tensor, training: bool = False) -> Tensor:
        """Logits, positive for real patches.

        x: for 3 dims videos (B, 3, T, H, W) -> (B, 1, t, h, w); for 2 dims images (N, 3, H, W) -> (N, 1, h,
        w), or videos, whose frames become N = B*T images.
        training: normalise with the statistics of this batch in place of the running statistics.
        """
        return self._forward(Forward(self.trainable), x, training)[0]

    def forward_with_tape(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor], Tape]:
        """Logits in training, the running statistics after this batch by name, and the tape for gradients.

        The discriminator does not change. The caller updates the statistics with
        `weights.update(statistics)`.
        """
        tape = Tape(self.trainable)
        logits, statistics = self._forward(tape, x, training=True)
        return logits, statistics, tape

    def _forward(self, run: Forward, x: Tensor, training: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and in training the running statistics after this batch by name."""
        batch, volumes = x.shape[0], self.dims == 3
        if len(x.shape) == 5:
            x = run(flatten_frames, "", x, volumes)
        statistics: dict[str, Tensor] = {}
        for i, name in enumerate(convolution_names(self.layers + 2)):
            stride = 2 if i < self.layers else 1
            time_stride = stride if i < 2 else 1  # clips have fewer frames than rows
            x = run(convolution, f"main.{name}", x, batch, time_stride, stride, i == 0)
            if 0 < i <= self.layers:
                x, moved = self._norm(run, f"main.{int(name) + 1}", x, training)
                statistics |= moved
        return (run(to_video, "", x, batch) if volumes else x), statistics

    def _norm(self, run: Forward, name: str, x: Tensor, training: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch norm and its activation; in training also its running statistics after this batch."""
        running = {buffer: self.weights[f"{name}.{buffer}"] for buffer in BUFFERS}
        if not training:
            centred, _ = run(centre, "", x, running["running_mean"])
            return run(scale, name, centred, running["running_var"]), {}
        mean = self._over_devices(run, run(channel_mean, "", x))
        centred, square = run(centre, "", x, mean)
        variance = self._over_devices(run, square)
        count = self.devices * x.shape[0] * x.shape[2] * x.shape[3]
        moments = {"running_mean": mean, "running_var": variance * (count / (count - 1))}
        moved = {
            buffer: running[buffer] + MOMENTUM * (value - running[buffer])
            for buffer, value in moments.items()
        }
        moved["num_batches_tracked"] = running["num_batches_tracked"] + 1
        return run(scale, name, centred, variance), {
            f"{name}.{buffer}": value for buffer, value in moved.items()
        }

    def _over_devices(self, run: Forward, value: Tensor) -> Tensor:
        return value if self.all_reduce_mean is None else run(self.all_reduce_mean, "", value)
