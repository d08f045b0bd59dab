"""Blocks, the units that a network is a chain of.

A network is a function `network(run, *inputs)` that calls `run(block, prefix, *inputs)`.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from opensora.engine.tensor import Tensor
from opensora.engine.tree import Tree

if TYPE_CHECKING:
    from opensora.engine.mindspore import CompiledBlock

Weights = Mapping[str, Tensor]
Prefix = str | tuple[str, ...]
Gradients = tuple[dict[str, Tensor], list[Tensor | None]]
"""Gradients of a block's weights by name, and of its inputs with None for constants."""
Pullback = Callable[[Tree], Gradients]
"""Maps the gradient of a block's output to those of its weights and inputs."""


class Differentiable(Protocol):
    """A `Block`, or a map between devices, which is not compiled: a tape can record both."""

    def __call__(self, weights: Weights, *inputs: Tree) -> Tree:
        """The output: a tensor, or a tuple of tensors."""
        ...

    def gradient(self, weights: Weights, inputs: tuple[Tree, ...], output_gradient: Tree) -> Gradients:
        """The gradients, given that of the output; the forward may be computed again."""
        ...

    def with_saved_activations(self, weights: Weights, *inputs: Tree) -> tuple[Tree, Pullback]:
        """The output, and its pullback, which does not compute the forward again."""
        ...


class Block:
    """A pure function `function(weights, *inputs) -> Tensor or tuple of Tensors`, compiled on first use for
    each set of shapes.

    Inputs that are tensors are differentiated; None, numbers, strings and tuples of them are constants of the
    compiled code. Called by itself, a block runs on MindSpore, which also has its gradients; an engine for
    inference only takes `function`.
    """

    def __init__(self, function: Callable[..., Tree], unused: str | None = None) -> None:
        """unused: prefix of weights that lie among the block's and are not read; they get no gradient."""
        self.function = function
        self._unused = unused

    def own(self, weights: Weights) -> Weights:
        """The weights that the function reads."""
        if self._unused is None:
            return weights
        return {name: value for name, value in weights.items() if not name.startswith(self._unused)}

    @cached_property
    def _compiled(self) -> "CompiledBlock":
        from opensora.engine.mindspore import CompiledBlock

        return CompiledBlock(self.function)

    def __call__(self, weights: Weights, *inputs: Tree) -> Tree:
        return self._compiled(self.own(weights), *inputs)

    def gradient(self, weights: Weights, inputs: tuple[Tree, ...], output_gradient: Tree) -> Gradients:
        """The gradients, given that of the output; the forward is computed again."""
        return self._compiled.gradient(self.own(weights), inputs, output_gradient)

    def with_saved_activations(self, weights: Weights, *inputs: Tree) -> tuple[Tree, Pullback]:
        """The output, and its pullback from saved activations: no second forward, but more memory.

        The framework's records are a stack: of several, the last pullback must be called first, and each
        once.
        """
        return self._compiled.with_saved_activations(self.own(weights), *inputs)


class Run(Protocol):
    """Runs the blocks of a network, each on its own part of the network's weights."""

    def __call__(self, block: Differentiable, prefix: Prefix, *inputs: Tree) -> Tree:
        """The block's output; its weights are those below `prefix`, see `subset`."""
        ...

    def tensor(self, array: np.ndarray) -> Tensor:
        """A numpy array, such as a table of positions, as an input for blocks."""
        ...


def subset(weights: Weights, prefix: Prefix) -> dict[str, Tensor]:
    """The weights below `prefix`, by the rest of their names; "" gives none (for blocks without weights).

    A tuple gives all weights whose names begin with one of its strings, by their whole names (for what has no
    prefix of its own). Of weights that are made when they are asked for, only those below `prefix` are.
    """
    return {short: weights[name] for short, name in names_below(weights, prefix).items()}


def names_below(weights: Weights, prefix: Prefix) -> dict[str, str]:
    """The names of `subset`, each with the name among all weights."""
    if isinstance(prefix, tuple):
        return {name: name for name in weights if name.startswith(prefix)}
    start = f"{prefix}."
    return {name[len(start) :]: name for name in weights if name.startswith(start)} if prefix else {}


def as_array(value: Any) -> Any:
    """The numpy array of a tensor of any engine; everything else as it is."""
    return value.asnumpy() if hasattr(value, "asnumpy") else value
