"""I3D: Inception-v1 inflated to 3-D (arXiv:1705.07750). Its class scores are the features of the Frechet
video distance.

Weights have the names of `i3d_pretrained_400.pt`: `<layer>.conv3d.weight`, `<layer>.bn.*` and
`logits.conv3d`; in an Inception module `<layer>.<branch>.conv3d.weight`. The widths follow from the weights.
"""

from collections.abc import Iterator, Mapping

from opensora.engine.block import Block, Weights
from opensora.engine.mindspore import Forward
from opensora.nn import Tensor
from opensora.runtime import mindspore

ms = mindspore()
ops = ms.ops

SIZE = 224
"""Height and width of the videos that the published weights were trained with."""
LEAST_FRAMES = 9
"""Time is divided by 8, and pairs of the remaining frames are averaged, which needs two."""
BRANCHES = {"b0": 1, "b1a": 1, "b1b": 3, "b2a": 1, "b2b": 3, "b3b": 1}
"""Kernel sizes in an Inception module."""

Triple = tuple[int, int, int]
# The layers in order. A convolution has (kernel, stride), a pooling the same for three axes, and an Inception
# module None.
CHAIN: dict[str, tuple[int, int] | tuple[Triple, Triple] | None] = {
    "Conv3d_1a_7x7": (7, 2),
    "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1": (1, 1),
    "Conv3d_2c_3x3": (3, 1),
    "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": None,
    "Mixed_3c": None,
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "Mixed_4b": None,
    "Mixed_4c": None,
    "Mixed_4d": None,
    "Mixed_4e": None,
    "Mixed_4f": None,
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
    "Mixed_5b": None,
    "Mixed_5c": None,
}


@Block
def convolution(w: Weights, x: Tensor, stride: int) -> Tensor:
    return _unit(w, "", x, stride)


@Block
def inception(w: Weights, x: Tensor) -> Tensor:
    """An Inception module: four branches, concatenated along the channels."""
    narrow = _unit(w, "b1b.", _unit(w, "b1a.", x))
    narrower = _unit(w, "b2b.", _unit(w, "b2a.", x))
    pooled = _unit(w, "b3b.", ops.MaxPool3D((3, 3, 3), (1, 1, 1), "same")(x))
    return ops.concat((_unit(w, "b0.", x), narrow, narrower, pooled), 1)


def _unit(w: Weights, prefix: str, x: Tensor, stride: int = 1) -> Tensor:
    """Convolution, batch norm with running statistics, ReLU.

    If the padding is odd, the additional zero is at the end, as in TensorFlow.
    """
    weight, norm = w[prefix + "conv3d.weight"], prefix + "bn."
    x = ops.Conv3D(weight.shape[0], weight.shape[2:], pad_mode="same", stride=stride)(x, weight)
    scale = w[norm + "weight"] * ops.rsqrt(w[norm + "running_var"] + 1e-5)
    shift = w[norm + "bias"] - w[norm + "running_mean"] * scale
    return ops.relu(x * ops.reshape(scale, (1, -1, 1, 1, 1)) + ops.reshape(shift, (1, -1, 1, 1, 1)))


@Block
def max_pool(w: Weights, x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    return ops.MaxPool3D(kernel, stride, "same")(x)


@Block
def head(w: Weights, x: Tensor) -> Tensor:
    """(B, C, T, h, w) -> (B, classes): the scores of pairs of neighbouring frames, averaged."""
    frames = ops.mean(x, (3, 4))  # (B, C, T)
    windows = 0.5 * (frames[:, :, 1:] + frames[:, :, :-1])
    weight = ops.reshape(w["conv3d.weight"], w["conv3d.weight"].shape[:2])
    return ops.matmul(ops.mean(windows, 2), ops.transpose(weight, (1, 0))) + w["conv3d.bias"]


class I3D:
    """The network; `weights` has the published names."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = dict(weights)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> "I3D":
        """A network from arrays or tensors under the published names; others, such as counters, are ignored.

        Raises ValueError for missing names and for kernels of another shape.
        """
        expected = dict(_kernels())
        missing = [name for name in expected if name not in weights]
        if missing:
            raise ValueError(
                f"the weights of I3D lack {len(missing)} tensors ({', '.join(missing[:10])}): "
                "use i3d_pretrained_400"
            )
        for name, kernel in expected.items():
            shape = tuple(weights[name].shape)
            if shape[2:] != kernel or (name == "Conv3d_1a_7x7.conv3d.weight" and shape[1] != 3):
                raise ValueError(
                    f"{name} of I3D has the shape {list(shape)}: "
                    "use the weights for RGB frames, i3d_pretrained_400"
                )
        return cls(
            {
                name: value if isinstance(value := weights[name], ms.Tensor) else ms.Tensor(value)
                for name in expected
            }
        )

    def __call__(self, video: Tensor) -> Tensor:
        """Class scores (B, classes) of videos (B, 3, T, H, W) in [-1, 1].

        T is at least LEAST_FRAMES. Height and width are usually SIZE.
        """
        run, x = Forward(self.weights), video
        for name, layer in CHAIN.items():
            if layer is None:
                x = run(inception, name, x)
            elif name.startswith("MaxPool"):
                x = run(max_pool, "", x, *layer)
            else:
                x = run(convolution, name, x, layer[1])
        return run(head, "logits", x)


def _kernels() -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name of every tensor and its kernel size, which is () for vectors."""
    for name, layer in CHAIN.items():
        if layer is None:
            for branch, size in BRANCHES.items():
                yield from _unit_kernels(f"{name}.{branch}", size)
        elif isinstance(layer[0], int):
            yield from _unit_kernels(name, layer[0])
    yield "logits.conv3d.weight", (1, 1, 1)
    yield "logits.conv3d.bias", ()


def _unit_kernels(name: str, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.conv3d.weight", (size, size, size)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.bn.{part}", ()
