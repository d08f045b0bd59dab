"""OpenVINO graphs from functions of tensors: `Node` stands for a tensor while its function is traced."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, Union

import numpy as np

from opensora.engine.block import Block, Differentiable, Prefix, Weights, names_below
from opensora.engine.tree import Tree

CONVERTER = "openvino.tools.ovc"
PRECISE = "opensora_precise"
"""Marks operators that stay in float32, see `engine/precise.py`."""
_tracing: ContextVar[bool] = ContextVar("tracing", default=False)
_precise: ContextVar[bool] = ContextVar("precise", default=False)

Operator: TypeAlias = Any
"""An operator of the graph; the library has no type information."""
Output: TypeAlias = Any
"""An output of an operator."""


def openvino() -> Any:
    """The imported library. Raises ImportError where it is missing or cannot be loaded.

    The library imports its model converter, which reports every import to the vendor: it is kept out.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    asleep = CONVERTER not in sys.modules
    if asleep:
        # None marks a module that cannot be imported.
        sys.modules[CONVERTER] = None  # type: ignore[assignment]
    try:
        import openvino as library
    finally:
        if asleep:
            del sys.modules[CONVERTER]
    return library


def opset() -> Any:
    """The operators, in the set that all supported versions of the library have."""
    return openvino().opset13


def is_tracing() -> bool:
    """True if a function is being traced for OpenVINO in this thread; else tensors are MindSpore's."""
    return _tracing.get()


@contextmanager
def tracing() -> Iterator[None]:
    token = _tracing.set(True)
    try:
        yield
    finally:
        _tracing.reset(token)


@contextmanager
def precisely() -> Iterator[None]:
    """Operators of nodes that are made in the block stay in float32, whatever the precision."""
    token = _precise.set(True)
    try:
        yield
    finally:
        _precise.reset(token)


def is_precise() -> bool:
    """True in a `precisely` block."""
    return _precise.get()


def marked(output: Output) -> Output:
    """The same output, its operator marked in a `precisely` block."""
    if is_precise():
        output.get_node().get_rt_info()[PRECISE] = 1
    return output


Operand: TypeAlias = Union["Node", np.ndarray, float]
Index: TypeAlias = int | slice | tuple[int | slice, ...]


class Node:
    """A tensor of the graph, with the attributes and operators that models use of a MindSpore tensor."""

    def __init__(self, output: Output) -> None:
        self.output = marked(output)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.output.get_shape())

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        return self.output.get_element_type()

    def astype(self, dtype: Any) -> "Node":
        return self if self.dtype == dtype else self.map(lambda x: opset().convert(x, dtype.to_string()))

    def map(self, function: Callable[[Output], Operator]) -> "Node":
        """The result of an operator that works number by number."""
        return Node(function(self.output).output(0))

    def combine(
        self, function: Callable[[Output, Output], Operator], other: Operand, swapped: bool = False
    ) -> "Node":
        """The result of an operator that works number by number on two tensors, which broadcast."""
        pair = self.output, constant(other, self.dtype).output
        return Node(function(*(reversed(pair) if swapped else pair)).output(0))

    def __add__(self, other: Operand) -> "Node":
        return self.combine(opset().add, other)

    def __radd__(self, other: Operand) -> "Node":
        return self.combine(opset().add, other, swapped=True)

    def __sub__(self, other: Operand) -> "Node":
        return self.combine(opset().subtract, other)

    def __rsub__(self, other: Operand) -> "Node":
        return self.combine(opset().subtract, other, swapped=True)

    def __mul__(self, other: Operand) -> "Node":
        return self.combine(opset().multiply, other)

    def __rmul__(self, other: Operand) -> "Node":
        return self.combine(opset().multiply, other, swapped=True)

    def __truediv__(self, other: Operand) -> "Node":
        return self.combine(opset().divide, other)

    def __neg__(self) -> "Node":
        return self.map(opset().negative)

    def __ne__(self, other: Operand) -> "Node":  # type: ignore[override]  # as tensors do
        return self.combine(opset().not_equal, other)

    def __gt__(self, other: Operand) -> "Node":
        return self.combine(opset().greater, other)

    def __lt__(self, other: Operand) -> "Node":
        return self.combine(opset().less, other)

    __hash__ = object.__hash__

    def __iter__(self) -> Iterator["Node"]:
        return (self[i] for i in range(self.shape[0]))

    def __getitem__(self, index: Index) -> "Node":
        """Slices with positive steps and numbers, for the first axes."""
        items = index if isinstance(index, tuple) else (index,)
        starts, stops, steps, numbers = [], [], [], []
        for axis, (item, size) in enumerate(zip(items, self.shape, strict=False)):
            span = slice(item, item + 1 or None) if isinstance(item, int) else item
            start, stop, step = span.indices(size)
            starts.append(start)
            stops.append(stop)
            steps.append(step)
            if isinstance(item, int):
                numbers.append(axis)
        part = self._slice(starts, stops, steps)
        return Node(opset().squeeze(part.output, integers(numbers)).output(0)) if numbers else part

    def _slice(self, starts: list[int], stops: list[int], steps: list[int]) -> "Node":
        axes = [
            i
            for i, size in enumerate(self.shape[: len(starts)])
            if (starts[i], stops[i], steps[i]) != (0, size, 1)
        ]
        if not axes:
            return self
        bounds = (integers([values[i] for i in axes]) for values in (starts, stops, steps))
        return Node(opset().slice(self.output, *bounds, integers(axes)).output(0))


def integers(values: Iterable[int]) -> Operator:
    """These numbers, such as a shape or axes, as an argument of operators."""
    return opset().constant(np.array(list(values), np.int64))


def constant(value: Operand, dtype: Any = None) -> Node:
    """A node for a number of type `dtype` or for an array, whose memory the graph shares.

    A node is returned as it is.
    """
    if isinstance(value, Node):
        return value
    if isinstance(value, np.ndarray):
        return Node(openvino().op.Constant(np.ascontiguousarray(value), shared_memory=True).output(0))
    return Node(opset().constant(value, dtype.to_dtype()).output(0))


STOP = "stop_gradient"
"""Prefix of the names of nodes that no gradient passes."""


def stopped(x: Node) -> Node:
    """The same tensor, through which no gradient flows."""
    node = opset().reshape(x.output, opset().constant(np.array(x.shape, np.int64)), False)
    node.set_friendly_name(f"{STOP}_{node.get_name()}")
    return Node(node.output(0))


class Constants(Mapping[str, Node]):
    """A block's weights as constants of the graph, each made when it is asked for."""

    def __init__(self, names: Mapping[str, str], get: Callable[[str], Node]) -> None:
        """names: of the block's weights, each with the name among all weights, which `get` takes."""
        self._names, self._get = names, get

    def __getitem__(self, name: str) -> Node:
        return self._get(self._names[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Trace:
    """Runs the blocks of a network on nodes: its graph is what they compute. `Run` for OpenVINO."""

    def __init__(self, weights: Weights) -> None:
        """weights: arrays by name, or nodes."""
        self._weights = weights
        self._constants: dict[str, Node] = {}

    def __call__(self, block: Differentiable, prefix: Prefix, *inputs: Tree) -> Tree:
        assert isinstance(block, Block)  # maps between devices are MindSpore's
        return block.function(Constants(names_below(self._weights, prefix), self._constant), *inputs)

    def tensor(self, array: np.ndarray) -> Node:
        return constant(array)

    def _constant(self, name: str) -> Node:
        if name not in self._constants:
            self._constants[name] = constant(self._weights[name])
        return self._constants[name]
