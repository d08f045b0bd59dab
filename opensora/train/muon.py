"""Muon: orthogonal updates for the matrices inside a network, AdamW for everything else.

Keller Jordan and others, "Muon: an optimizer for hidden layers in neural networks" (2024), with the step
length of arXiv:2502.16982.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from opensora.engine import Engine, open_engine
from opensora.engine.block import Block, Weights
from opensora.nn import F, Tensor
from opensora.nn.flat import ParameterSharding
from opensora.runtime import mindspore
from opensora.train.optim import FIRST, AdamW, AdamWRule, Optimizer, ParameterGroup, Step, UpdateRule
from opensora.train.options import OptimizerOptions

ms = mindspore()
ops = ms.ops

HIDDEN = re.compile(r"(^|\.)(\w+_)?(blocks?|mid|up|down)\.")
"""Matches names of weights in the repeated blocks of all models here: no embeddings, and no layer that reads
or writes pixels or latents."""
TABLES = ("scale_shift_table", "relative_attention_bias.weight")
"""Endings of such names that are looked up or added, not multiplied."""
MOMENTUM = 0.95
STEP = 0.2
"""Root mean square of a square matrix's update, as a multiple of the learning rate. AdamW's updates have
about the same, so that both rules take one learning rate (arXiv:2502.16982)."""
ITERATIONS = 5
TINY = 1e-30
VALUES_AT_ONCE = 2**19
"""Elements of the matrices that are stacked for one iteration: small matrices take as long to dispatch as to
compute, but larger stacks do not fit the processor's cache."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the odd polynomial. Its iteration takes singular values above 0.01 into [0.68, 1.13]."""


def make_optimizer(
    options: OptimizerOptions,
    max_steps: int = 1,
    sharding: ParameterSharding | None = None,
    masters: bool = False,
    engine: Engine | None = None,
) -> Optimizer:
    """The optimizer that `options.optim` names; see `Optimizer` for the arguments.

    engine: computes the products of Muon, by default MindSpore.
    """
    if options.optim == "muon":
        return Muon(options, max_steps, sharding, masters, engine)
    return AdamW(options, max_steps, sharding, masters)


class Muon(Optimizer):
    """Muon for the matrices in the network's blocks, AdamW for all other weights."""

    def __init__(
        self,
        options: OptimizerOptions,
        max_steps: int = 1,
        sharding: ParameterSharding | None = None,
        masters: bool = False,
        engine: Engine | None = None,
    ) -> None:
        super().__init__(options, max_steps, sharding, masters)
        self._engine = engine or open_engine()

    def rule_of(self, name: str, shape: Sequence[int]) -> UpdateRule:
        if len(shape) > 1 and HIDDEN.search(name) and not name.endswith(TABLES):
            return MuonRule(self.sharding, self._engine)
        return AdamWRule(self.options.betas, self.options.optim_eps)


class MuonRule:
    """The update of a matrix is its Nesterov momentum, orthogonalised: all singular values become about one.

    Kernels count as matrices (outputs, inputs * positions). A device that holds part of the momentum gathers
    the whole and computes every update itself.
    """

    name = "muon"
    moments = (FIRST,)

    def __init__(self, sharding: ParameterSharding, engine: Engine) -> None:
        self._sharding, self._engine = sharding, engine

    def __call__(
        self, group: ParameterGroup, weights: Tensor, gradient: Tensor, moments: Sequence[Tensor], step: Step
    ) -> tuple[Tensor, ...]:
        direction, momentum = _nesterov(gradient, *moments, ms.Tensor(np.float32(step.gradient_scale)))
        whole = group.layout.unpack(self._sharding.gather(direction, group.layout.length))
        own = self._sharding.local(group.layout.pack(updates(whole, self._engine)))
        numbers = np.array((1 - step.learning_rate * group.weight_decay, step.learning_rate), np.float32)
        return _step(weights, own, ms.Tensor(numbers)), momentum


def step_length(shape: Sequence[int]) -> float:
    """The factor on an orthogonal matrix, before the learning rate.

    It counts the channels of a kernel and not its positions, which add up to one output: with the larger
    factor of all elements, training of kernels diverged.
    """
    return STEP * math.sqrt(max(shape[:2]))


def updates(directions: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
    """The update of each weight (outputs, inputs, ...), before the learning rate.

    It is the direction as a matrix, with its singular values moved into [0.68, 1.13], times `step_length`.
    Singular values below a hundredth of the matrix's norm may stay smaller.
    """
    same_shape: dict[tuple[int, ...], list[str]] = {}
    for name, direction in directions.items():
        same_shape.setdefault(direction.shape, []).append(name)
    results: dict[str, Tensor] = {}
    for shape, names in same_shape.items():
        sides = shape[0], math.prod(shape[1:])
        is_square = sides[0] == sides[1]
        identity = None if is_square else engine.tensor(np.eye(min(sides), dtype=np.float32))
        many = max(1, VALUES_AT_ONCE // math.prod(shape))
        for start in range(0, len(names), many):
            chosen = names[start : start + many]
            parts = engine.call(UPDATES, {}, identity, *(directions[name] for name in chosen))
            results.update(zip(chosen, parts, strict=True))
    return {name: results[name] for name in directions}


def _updates(w: Weights, identity: Tensor, *directions: Tensor) -> tuple[Tensor, ...]:
    """Directions of one shape (outputs, inputs, ...) -> their updates; identity: of the smaller side,
    None for squares.
    """
    shape = directions[0].shape
    matrices = F.reshape(F.stack(directions, 0), (len(directions), shape[0], -1))  # (n, outputs, inputs)
    if identity is None:
        matrices = _orthogonalised_squares(matrices)
    elif identity.shape[0] == shape[0]:
        matrices = _orthogonalised(matrices, identity)
    else:
        matrices = _transposed(_orthogonalised(_transposed(matrices), identity))
    matrices = F.reshape(matrices * step_length(shape), (len(directions), *shape))
    return F.unstacked(matrices)


def _precise_updates(w: Weights, identity: Tensor, *directions: Tensor) -> tuple[Tensor, ...]:
    """`_updates` in float32, because each product of Gram matrices enlarges their rounding errors."""
    results: tuple[Tensor, ...] = F.precisely(_updates, w, identity, *directions)
    return results


UPDATES = Block(_precise_updates)


def _orthogonalised_squares(matrices: Tensor) -> Tensor:
    """Orthogonalise matrices (n, side, side): three products an iteration, where `_orthogonalised` has four.

    The polynomial acts on the matrices themselves: x <- first x + (third g + fifth g g) x with g = x x^T.
    """
    first, third, fifth = COEFFICIENTS
    matrices = matrices / F.sqrt(_square_norm(matrices))
    for _ in range(ITERATIONS):
        gram = F.product(matrices, matrices)
        polynomial = third * gram + fifth * F.product(gram, gram)
        matrices = first * matrices + F.product(polynomial, _transposed(matrices))
    return matrices


def _orthogonalised(matrices: Tensor, identity: Tensor) -> Tensor:
    """Orthogonalise matrices (n, rows, columns), rows < columns; identity: (rows, rows).

    The polynomials act on the Gram matrices, which are smaller. All of these are symmetric, and a product
    with the second one transposed is that with itself.
    """
    gram = F.product(matrices, matrices)  # (n, rows, rows)
    square_norm = _square_norm(matrices)
    gram, factor = gram / square_norm, identity / F.sqrt(square_norm)
    first, third, fifth = COEFFICIENTS
    for iteration in range(ITERATIONS):
        polynomial = first * identity + third * gram + fifth * F.product(gram, gram)
        factor = F.product(polynomial, factor)
        if iteration < ITERATIONS - 1:
            gram = F.product(F.product(polynomial, gram), polynomial)
    return F.product(factor, _transposed(matrices))


def _square_norm(matrices: Tensor) -> Tensor:
    """(n, rows, columns) -> (n, 1, 1)."""
    return F.reshape(F.sum(F.sum(matrices * matrices, -1), -1) + TINY, (-1, 1, 1))


def _transposed(matrices: Tensor) -> Tensor:
    """(n, rows, columns) -> (n, columns, rows)."""
    return F.transpose(matrices, (0, 2, 1))


@ms.jit
def _nesterov(gradient: Tensor, momentum: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    gradient = gradient * scale
    momentum = momentum + (1 - MOMENTUM) * (gradient - momentum)
    return gradient + MOMENTUM * (momentum - gradient), momentum


@ms.jit
def _step(weight: Tensor, update: Tensor, numbers: Tensor) -> Tensor:
    keep, rate = ops.unstack(numbers)
    return weight * keep - rate * update
