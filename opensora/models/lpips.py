"""LPIPS: the perceptual distance of arXiv:1801.03924 on features of VGG16 (arXiv:1409.1556).

Weights have the names of the release: `net.slice<k>.<n>` for the convolutions of VGG16, where n is the index
in torchvision's chain, and `lin<k>.model.1` for the heads. The widths of the features follow from the
weights.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from opensora.engine.block import Block, Weights
from opensora.engine.mindspore import Forward, Tape
from opensora.nn import Tensor
from opensora.nn.convolution import conv2d
from opensora.runtime import mindspore
from opensora.weights import open_file

ms = mindspore()
ops = ms.ops

SLICES = (("0", "2"), ("5", "7"), ("10", "12", "14"), ("17", "19", "21"), ("24", "26", "28"))
# Mean and deviation of ImageNet for pixels in [-1, 1], as in the code of the authors.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


@Block
def normalise(w: Weights, image: Tensor) -> Tensor:
    shift, scale = ms.Tensor(SHIFT, ms.float32), ms.Tensor(SCALE, ms.float32)
    return (image - ops.reshape(shift, (1, 3, 1, 1))) / ops.reshape(scale, (1, 3, 1, 1))


@Block
def vgg_slice(w: Weights, x: Tensor, convolutions: tuple[str, ...]) -> Tensor:
    """(N, C, H, W) -> (N, C', H/2, W/2). The first slice has no pooling: (N, 3, H, W) -> (N, C', H, W)."""
    if convolutions[0] != "0":
        x = ops.max_pool2d(x, 2, 2)
    for name in convolutions:
        x = ops.relu(conv2d(x, w[name + ".weight"], w[name + ".bias"]))
    return x


@Block
def feature_distance(w: Weights, features: Tensor, target_features: Tensor) -> Tensor:
    """Weighted squared difference of features of unit length, averaged over the pixels: (N, 1, 1, 1)."""
    difference = _unit_length(features) - _unit_length(target_features)
    return ops.mean(ops.conv2d(difference * difference, w["weight"]), (2, 3), True)


def _unit_length(x: Tensor) -> Tensor:
    # 1e-20 keeps the gradient of the root finite where all features are zero.
    return x / (ops.sqrt(ops.sum(x * x, 1, True) + 1e-20) + 1e-10)


@Block
def add(w: Weights, *distances: Tensor) -> Tensor:
    """The sum of the slices' distances."""
    total = distances[0]
    for distance in distances[1:]:
        total = total + distance
    return total


class LPIPS:
    """The distance of two batches of images; `weights` has the names of the release."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = dict(weights)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> "LPIPS":
        """A metric from arrays or tensors under the names of the release.

        VGG16 may have the names of torchvision instead (`features.<n>`). Other tensors, such as the
        classifier of VGG16, are ignored. Raises ValueError for missing names.
        """
        tensors, missing = {}, []
        for name, published in _names().items():
            value = weights.get(name, weights.get(published))
            if value is None:
                missing.append(name)
            else:
                tensors[name] = value if isinstance(value, ms.Tensor) else ms.Tensor(value)
        if missing:
            raise ValueError(
                f"the weights of LPIPS lack {', '.join(missing[:10])}: "
                "give the files of VGG16 and of the heads together"
            )
        return cls(tensors)

    @classmethod
    def from_files(cls, paths: Iterable[str | Path]) -> "LPIPS":
        """A metric from files that together contain VGG16 and the heads.

        The file of a released autoencoder contains both, as a part of its loss.
        Raises WeightsError for a file that cannot be read, ValueError for missing names.
        """
        weights = {}
        for path in paths:
            file = open_file(path)
            for stored in file.entries:
                name = stored.removeprefix("loss.").removeprefix("perceptual_loss.")
                if name.startswith(("net.slice", "lin", "features.")):
                    weights[name] = file.read(stored)
        return cls.from_weights(weights)

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """The distance (N, 1, 1, 1) of images (N, 3, H, W) in [-1, 1], at least 16x16."""
        return self._forward(Forward(self.weights), image, target)

    def forward_with_tape(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tape]:
        """The distance, and the tape for gradients of weights and `image`; `target` is a constant."""
        tape = Tape(self.weights)
        return self._forward(tape, image, target), tape

    def _forward(self, run: Forward, image: Tensor, target: Tensor) -> Tensor:
        targets = _features(Forward(self.weights), target)
        pairs = zip(_features(run, image), targets, strict=True)
        return run(
            add, "", *(run(feature_distance, f"lin{k}.model.1", *pair) for k, pair in enumerate(pairs))
        )


def _features(run: Forward, image: Tensor) -> list[Tensor]:
    x = run(normalise, "", image)
    features = []
    for k, convolutions in enumerate(SLICES, 1):
        x = run(vgg_slice, f"net.slice{k}", x, convolutions)
        features.append(x)
    return features


def _names() -> dict[str, str]:
    """Names in torchvision or the authors' file, by the release's names of the weights."""
    names = {f"lin{k}.model.1.weight": f"lin{k}.model.1.weight" for k in range(len(SLICES))}
    for k, convolutions in enumerate(SLICES, 1):
        for n in convolutions:
            names |= {f"net.slice{k}.{n}.{part}": f"features.{n}.{part}" for part in ("weight", "bias")}
    return names
