"""LPIPS: the perceptual distance of arXiv:1801.03924 on features of VGG16 (arXiv:1409.1556).

Names of the weights are the release's: `net.slice<k>.<n>` for VGG16's convolutions, where n is torchvision's place in the chain,
and `lin<k>.model.1` for the heads. The features' widths follow from the weights.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from opensora.engine.block import Block
from opensora.engine.mindspore import Forward, Tape
from opensora.nn.convolution import conv2d
from opensora.runtime import mindspore
from opensora.weights import open_file

ms = mindspore()
ops = ms.ops

SLICES = (("0", "2"), ("5", "7"), ("10", "12", "14"), ("17", "19", "21"), ("24", "26", "28"))
# ImageNet's mean and deviation for pixels in [-1, 1], as in the authors' released code.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


def _prepare(w: Any, image: Any) -> Any:
    shift, scale = ms.Tensor(SHIFT, ms.float32), ms.Tensor(SCALE, ms.float32)
    return (image - ops.reshape(shift, (1, 3, 1, 1))) / ops.reshape(scale, (1, 3, 1, 1))


def _slice(w: Any, x: Any, convolutions: tuple[str, ...]) -> Any:
    """(N, C, H, W) -> (N, C', H/2, W/2), or (N, C', H, W) for the first slice, which pools nothing."""
    if convolutions[0] != "0":
        x = ops.max_pool2d(x, 2, 2)
    for name in convolutions:
        x = ops.relu(conv2d(x, w[name + ".weight"], w[name + ".bias"]))
    return x


def _distance(w: Any, features: Any, target_features: Any) -> Any:
    """Weighted squared difference of the unit-length features, averaged over the pixels: (N, 1, 1, 1)."""
    difference = _unit_length(features) - _unit_length(target_features)
    return ops.mean(ops.conv2d(difference * difference, w["weight"]), (2, 3), True)


def _unit_length(x: Any) -> Any:
    # The small number under the root keeps the gradient finite where no feature is active.
    return x / (ops.sqrt(ops.sum(x * x, 1, True) + 1e-20) + 1e-10)


def _sum(w: Any, *distances: Any) -> Any:
    total = distances[0]
    for distance in distances[1:]:
        total = total + distance
    return total


PREPARE, SLICE, DISTANCE, SUM = Block(_prepare), Block(_slice), Block(_distance), Block(_sum)


class LPIPS:
    """The distance of two batches of images; `weights` has the release's names."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self.weights = dict(weights)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Any]) -> "LPIPS":
        """From arrays or tensors under the release's names, or VGG16's under torchvision's (`features.<n>`) and the heads' beside them.

        Others (VGG16's classifier, the constants of the scaling) are left out. Raises ValueError for missing names.
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
                f"the weights of LPIPS lack {', '.join(missing[:10])}: join the files of VGG16 and of the heads"
            )
        return cls(tensors)

    @classmethod
    def from_files(cls, paths: Iterable[str | Path]) -> "LPIPS":
        """From one file, or several that together hold VGG16 and the heads; a released autoencoder's file has both, as part of its loss.

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

    def __call__(self, image: Any, target: Any) -> Any:
        """The distance of images (N, 3, H, W) in [-1, 1], at least 16 x 16: (N, 1, 1, 1)."""
        return self._forward(Forward(self.weights), image, target)

    def forward_with_tape(self, image: Any, target: Any) -> tuple[Any, Tape]:
        """The distance and the tape that walks back to weights and `image`; the features of `target` are taken as constants."""
        tape = Tape(self.weights)
        return self._forward(tape, image, target), tape

    def _forward(self, run: Forward, image: Any, target: Any) -> Any:
        targets = _features(Forward(self.weights), target)
        pairs = zip(_features(run, image), targets, strict=True)
        return run(SUM, "", *(run(DISTANCE, f"lin{k}.model.1", *pair) for k, pair in enumerate(pairs)))


def _features(run: Forward, image: Any) -> list[Any]:
    x = run(PREPARE, "", image)
    features = []
    for k, convolutions in enumerate(SLICES, 1):
        x = run(SLICE, f"net.slice{k}", x, convolutions)
        features.append(x)
    return features


def _names() -> dict[str, str]:
    """Release name of every weight to the name under which its own publisher has it."""
    names = {f"lin{k}.model.1.weight": f"lin{k}.model.1.weight" for k in range(len(SLICES))}
    for k, convolutions in enumerate(SLICES, 1):
        for n in convolutions:
            names |= {f"net.slice{k}.{n}.{part}": f"features.{n}.{part}" for part in ("weight", "bias")}
    return names
