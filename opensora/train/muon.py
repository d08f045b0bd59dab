"""Muon: the matrices inside a network move by orthogonal steps, everything else by AdamW.

Keller Jordan and others, "Muon: an optimizer for hidden layers in neural networks" (2024), with the step length of arXiv:2502.16982.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from opensora.nn.flat import Whole
from opensora.runtime import mindspore
from opensora.train.optim import AdamW, Group
from opensora.train.options import OptimizerOptions

ms = mindspore()
ops = ms.ops

HIDDEN = re.compile(r"(^|\.)(\w+_)?(blocks?|mid|up|down)\.")
"""Of the names of weights in the repeated blocks of all models here: not embeddings, and not what reads or writes pixels and latents."""
TABLES = ("scale_shift_table", "relative_attention_bias.weight")
"""Endings of such names that are looked up or added, not multiplied."""
MOMENTUM = 0.95
STEP = 0.2
"""Root mean square of a step's elements in a square matrix, times the learning rate: that of AdamW's steps, so that both take one rate."""
ITERATIONS = 5
TINY = 1e-30
VALUES_AT_ONCE = 2**24
"""Of matrices that go through the iteration together: small ones take as long for their operators as for the arithmetic."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial whose iteration takes singular values above 0.01 into [0.68, 1.13]."""


def optimizer_of(
    options: OptimizerOptions, max_steps: int = 1, shares: Whole | None = None, masters: bool = False
) -> AdamW:
    """What `options.optim` names."""
    kind = Muon if options.optim == "muon" else AdamW
    return kind(options, max_steps, shares, masters)


class Muon(AdamW):
    """The step of a matrix is its momentum with all singular values made about one. Kernels are matrices of (outputs, inputs * positions).

    Where devices share out the optimizer's states, each has its part of the momentum, hears of the whole and makes all steps itself.
    """

    def _is_hidden(self, name: str, shape: Sequence[int]) -> bool:
        return len(shape) > 1 and HIDDEN.search(name) is not None and not name.endswith(TABLES)

    def _moved(
        self, group: Group, own: Any, gradient: Any, moments: Sequence[Any], scale: float, rate: float
    ) -> tuple[Any, ...]:
        if not group.hidden:
            return super()._moved(group, own, gradient, moments, scale, rate)
        direction, momentum = _nesterov(gradient, *moments, ms.Tensor(np.float32(scale)))
        steps = orthogonal(group.layout.unpack(self.shares.whole(direction, group.layout.length)))
        steps = group.layout.pack({name: step * step_length(step.shape) for name, step in steps.items()})
        numbers = ms.Tensor(np.array((1 - rate * group.decay, rate), np.float32))
        return _step(own, self.shares.part(steps), numbers), momentum


def step_length(shape: Sequence[int]) -> float:
    """What an orthogonal matrix is multiplied with, before the learning rate.

    A kernel's positions add up to one output, so that its sides are channels: counted by elements, steps of kernels diverged.
    """
    return STEP * math.sqrt(max(shape[:2]))


def orthogonal(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Each weight (outputs, inputs, ...) as a matrix, with all singular values in [0.68, 1.13] but those below a hundredth of its norm."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, weight in weights.items():
        alike.setdefault(_wide_shape(weight.shape), []).append(name)
    results: dict[str, Any] = {}
    for (rows, columns), names in alike.items():
        many = max(1, VALUES_AT_ONCE // (rows * columns))
        for start in range(0, len(names), many):
            chosen = names[start : start + many]
            matrices = ops.stack([_wide(weights[name]) for name in chosen])  # (n, rows, columns)
            results.update(zip(chosen, ops.unstack(_orthogonal(matrices)), strict=True))
    return {name: _narrow(results[name], weight.shape) for name, weight in weights.items()}


def _wide_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a weight as a matrix, transposed where it has more rows."""
    rows, columns = sorted((shape[0], math.prod(shape[1:])))
    return rows, columns


def _wide(weight: Any) -> Any:
    matrix = ops.reshape(weight, (weight.shape[0], -1))
    return matrix if matrix.shape == _wide_shape(weight.shape) else ops.transpose(matrix, (1, 0))


def _narrow(matrix: Any, shape: Sequence[int]) -> Any:
    """The inverse of `_wide`."""
    return ops.reshape(matrix if matrix.shape[0] == shape[0] else ops.transpose(matrix, (1, 0)), tuple(shape))


@ms.jit
def _orthogonal(matrices: Any) -> Any:
    """The polynomials act on the Gram matrices, which are small where matrices are wide: (n, rows, columns), rows <= columns."""
    identity = ops.eye(matrices.shape[1], dtype=ms.float32)
    gram = ops.BatchMatMul(transpose_b=True)(matrices, matrices)  # (n, rows, rows)
    square_norm = ops.reshape(ops.sum(ops.sum(gram * identity, -1), -1) + TINY, (-1, 1, 1))
    gram, factor = gram / square_norm, identity / ops.sqrt(square_norm)
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        polynomial = first * identity + third * gram + fifth * ops.BatchMatMul()(gram, gram)
        factor = ops.BatchMatMul()(polynomial, factor)
        gram = ops.BatchMatMul()(ops.BatchMatMul()(polynomial, gram), polynomial)
    return ops.BatchMatMul()(factor, matrices)


@ms.jit
def _nesterov(gradient: Any, momentum: Any, scale: Any) -> tuple[Any, Any]:
    gradient = gradient * scale
    momentum = momentum + (1 - MOMENTUM) * (gradient - momentum)
    return gradient + MOMENTUM * (momentum - gradient), momentum


@ms.jit
def _step(weight: Any, step: Any, numbers: Any) -> Any:
    keep, rate = ops.unstack(numbers)
    return weight * keep - rate * step
