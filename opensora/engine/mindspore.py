"""Blocks on MindSpore: each is compiled once for all layers of one shape, and so is its gradient.

A model's forward is written once as `run(block, prefix, *inputs)` calls. `Forward` only computes. `Tape` also
keeps each block's inputs, and no more unless told to, so that `Tape.gradients` can walk back. A block's
backward recomputes its forward (activation checkpointing, arXiv:1604.06174). Compile time does not grow with
depth.
"""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import TypeVar

import numpy as np

from opensora.engine import Network
from opensora.engine.block import Block, Differentiable, Gradients, Prefix, Pullback, Weights, subset
from opensora.engine.tensor import Tensor
from opensora.engine.tree import Tree, tree_map
from opensora.engine.turns import computing
from opensora.engine.weights import OnDemand
from opensora.interrupts import while_mindspore_computes
from opensora.runtime import compute_dtype, device, mindspore

ms = mindspore()

OUT_OF_MEMORY = re.compile(
    "bad_alloc|[Aa]llocat(e|ion).*(fail|memory)|[Mm]emory (is)?n[o']t enough", re.DOTALL
)
K = TypeVar("K")

_settings = {"jit": True}


def set_jit(enabled: bool) -> None:
    """Compile blocks (the default), or run operator by operator, which is slower and easier to debug."""
    _settings["jit"] = enabled


class CompiledBlock:
    """A block's function, gradient and recorded form, each compiled on first use; see `Block`."""

    def __init__(self, function: Callable[..., Tree]) -> None:
        self.function = function
        self._forward = ms.jit(function)
        self._backward = ms.jit(_backward_of(function))
        self._one_by_one = _one_by_one(function)
        self._recorded = ms.jit(self._one_by_one)

    def __call__(self, weights: Weights, *inputs: Tree) -> Tree:
        if not _settings["jit"]:
            return self.function(weights, *inputs)
        return self._forward(ms.mutable(dict(weights)) if weights else (), *inputs)

    def gradient(self, weights: Weights, inputs: tuple[Tree, ...], output_gradient: Tree) -> Gradients:
        if _settings["jit"]:
            if isinstance(output_gradient, tuple):
                # A plain tuple of tensors would be compiled in as a constant, at every call.
                output_gradient = ms.mutable(output_gradient)
            result = self._backward(output_gradient, ms.mutable(dict(weights)) if weights else (), *inputs)
            weight_gradients = dict(result[0]) if weights else {}
            tensors = iter(result[1:] if weights else result)
        else:
            result = _eager_gradient(self.function, weights, inputs, output_gradient)
            weight_gradients = dict(zip(weights, result, strict=False))
            tensors = iter(result[len(weights) :])
        return weight_gradients, [next(tensors) if isinstance(value, ms.Tensor) else None for value in inputs]

    def with_saved_activations(self, weights: Weights, *inputs: Tree) -> tuple[Tree, Pullback]:
        """Saves nothing in compiled code on a CPU.

        In the framework's records, a cell with its own `bprop`, as `nn` has them for CPUs, gets the values of
        another call of the same shape.
        """
        if _settings["jit"] and device() == "CPU":
            return self(weights, *inputs), partial(self.gradient, weights, inputs)
        names, copies = tuple(weights), _copies(inputs)
        function = self._recorded if _settings["jit"] else self._one_by_one

        def flat(*tensors: Tensor) -> Tree:
            return function(names, *tensors[: len(names)], *_filled(inputs, copies, tensors[len(names) :]))

        output, pull = ms.vjp(flat, *weights.values(), *copies.values())

        def pullback(output_gradient: Tree) -> Gradients:
            result = pull(*output_gradient) if isinstance(output_gradient, tuple) else pull(output_gradient)
            result = result if isinstance(result, tuple) else (result,)
            return dict(zip(names, result, strict=False)), _filled(
                [None] * len(inputs), copies, result[len(names) :]
            )

        return output, pullback


def _one_by_one(function: Callable[..., Tree]) -> Callable[..., Tree]:
    """The same function with its weights one by one.

    Next to a dict of weights, the gradients of the inputs that the framework records are zeros.
    """

    def run(names: tuple[str, ...], *arguments: Tree) -> Tree:
        weights = {}
        for i, name in enumerate(names):
            weights[name] = arguments[i]
        return function(weights, *arguments[len(names) :])

    return run


def _copies(inputs: Sequence[Tree]) -> dict[int, Tensor]:
    """Copies of the tensors among the inputs, by place.

    If an object stands in several places of a record, the framework sums its gradients; if it stands in
    several records, the framework knows the last one only.
    """
    return {place: value.copy() for place, value in enumerate(inputs) if isinstance(value, ms.Tensor)}


def _filled(inputs: Sequence[Tree], places: Iterable[int], tensors: Sequence[Tensor]) -> list[Tree]:
    """The inputs with tensors in these places."""
    values = list(inputs)
    for place, tensor in zip(places, tensors, strict=True):
        values[place] = tensor
    return values


def _backward_of(function: Callable[..., Tree]) -> Callable[..., Tree]:
    def backward(output_gradient: Tree, weights: Weights, *inputs: Tree) -> tuple[Tensor, ...]:
        return ms.ops.GradOperation(get_all=True, sens_param=True)(function)(
            weights, *inputs, output_gradient
        )

    return backward


def _eager_gradient(
    function: Callable[..., Tree], weights: Weights, inputs: tuple[Tree, ...], output_gradient: Tree
) -> tuple[Tensor, ...]:
    names, copies = list(weights), _copies(inputs)

    def flat(*tensors: Tensor) -> Tree:
        return function(
            dict(zip(names, tensors, strict=False)), *_filled(inputs, copies, tensors[len(names) :])
        )

    return ms.ops.GradOperation(get_all=True, sens_param=True)(flat)(
        *weights.values(), *copies.values(), output_gradient
    )


class MindSpore:
    """The engine that also trains. Its tensors are MindSpore's."""

    name = "mindspore"

    def __init__(self, precision: str = "fp32") -> None:
        """precision: number format of the weights. Raises ValueError if the device has no kernels for it."""
        self.precision = precision
        self.device = device()
        self._dtype = compute_dtype(precision)

    def tensor(self, array: np.ndarray) -> Tensor:
        return ms.Tensor.from_numpy(array)

    def input(self, array: np.ndarray) -> Tensor:
        return self._cast(np.ascontiguousarray(array))

    def output(self, tensor: Tensor) -> np.ndarray:
        return np.asarray(tensor.astype(ms.float32).asnumpy())

    def weights(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Tensors that share the arrays' memory, so that nothing is held twice."""
        return {name: self._cast(arrays[name]) for name in arrays}

    def on_demand(self, arrays: Mapping[str, np.ndarray]) -> OnDemand:
        return OnDemand(arrays, self._cast)

    def run(self, network: Network, weights: Weights, *inputs: Tree) -> Tree:
        with _inference():
            return network(Forward(weights), *tree_map(as_tensor, inputs))

    def call(self, block: Block, weights: Weights, *inputs: Tree) -> Tree:
        with _inference():
            return block(weights, *tree_map(as_tensor, inputs))

    def bind(self, function: Callable[..., Tree], weights: Weights) -> Callable[..., Tree]:
        """Operators run one by one: compiled code would keep its working memory until the process ends."""
        tensors = {name: as_tensor(value) for name, value in weights.items()}
        return lambda *inputs: function(tensors, *tree_map(as_tensor, inputs))

    def new_call(self) -> None:
        """The framework keeps its graphs."""

    def close(self) -> None:
        """Let go all graphs of the process that the framework has compiled."""
        ms.ms_memory_recycle()

    def tape(self, weights: Weights, saved: Container[Prefix] = ()) -> "Tape":
        return Tape(weights, saved)

    def _cast(self, array: np.ndarray) -> Tensor:
        tensor = ms.Tensor.from_numpy(array)
        return tensor if tensor.dtype == self._dtype else tensor.astype(self._dtype)


@contextmanager
def _inference() -> Iterator[None]:
    """The framework computes. Raises MemoryError where it says that there is no memory."""
    computing()
    try:
        with while_mindspore_computes():
            yield
    except RuntimeError as error:
        if OUT_OF_MEMORY.search(str(error)):
            raise MemoryError("MindSpore found no memory") from error
        raise


def as_tensor(value: Tree) -> Tree:
    """Arrays as tensors; everything else as it is."""
    return ms.Tensor.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value


class Forward:
    """Runs blocks on sub-dicts of one weights dict: `run(block, prefix, *inputs)`.

    The prefix is "" for a block without weights.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def __call__(self, block: Differentiable, prefix: Prefix, *inputs: Tree) -> Tree:
        return block(subset(self.weights, prefix), *inputs)

    def tensor(self, array: np.ndarray) -> Tensor:
        return ms.Tensor(array)


class Tape(Forward):
    """Runs blocks and remembers their inputs, for one walk back through `gradients`."""

    def __init__(self, weights: Weights, keeps: Container[Prefix] = ()) -> None:
        """keeps: prefixes of the blocks whose activations are saved, so that they are not computed again."""
        super().__init__(weights)
        self._keeps = keeps
        self._records: list[tuple[Pullback, Prefix, tuple[Tree, ...], tuple[Tensor, ...]]] = []

    def __call__(self, block: Differentiable, prefix: Prefix, *inputs: Tree) -> Tree:
        if prefix in self._keeps:
            output, pullback = block.with_saved_activations(subset(self.weights, prefix), *inputs)
        else:
            output, pullback = (
                super().__call__(block, prefix, *inputs),
                partial(self._recomputed, block, prefix, inputs),
            )
        self._records.append((pullback, prefix, inputs, output if isinstance(output, tuple) else (output,)))
        return output

    def _recomputed(
        self, block: Differentiable, prefix: Prefix, inputs: tuple[Tree, ...], output_gradient: Tree
    ) -> Gradients:
        return block.gradient(subset(self.weights, prefix), inputs, output_gradient)

    def gradients(self, outputs: Sequence[tuple[Tensor, Tensor]], wanted: Sequence[Tensor] = ()) -> Gradients:
        """Walk back from `outputs`, pairs of a tensor that a block returned and the loss's gradient by it.

        Returns the gradients by weight name, and those of the `wanted` tensors, None where none flows. The
        tape is used up: a block's record is freed as soon as its backward is done.
        """
        by_tensor: dict[int, Tensor] = {}
        by_weight: dict[str, Tensor] = {}
        for tensor, gradient in outputs:
            self._add(by_tensor, id(tensor), gradient)
        keep = {id(tensor) for tensor in wanted}
        while self._records:
            pullback, prefix, inputs, results = self._records.pop()
            arriving = [
                by_tensor.get(id(result)) if id(result) in keep else by_tensor.pop(id(result), None)
                for result in results
            ]
            idle = all(gradient is None for gradient in arriving)
            if idle and prefix not in self._keeps:
                continue
            filled = tuple(self.zeros(r) if g is None else g for r, g in zip(results, arriving, strict=True))
            weights, tensors = pullback(filled if len(filled) > 1 else filled[0])
            if idle:  # The framework's records are a stack: this one had to be taken off.
                continue
            for name, gradient in weights.items():
                self._add(by_weight, name if isinstance(prefix, tuple) else f"{prefix}.{name}", gradient)
            for tensor, gradient in zip(inputs, tensors, strict=True):
                if gradient is not None:
                    self._add(by_tensor, id(tensor), gradient)
        return by_weight, [by_tensor.get(id(tensor)) for tensor in wanted]

    def peek(self, outputs: Sequence[tuple[Tensor, Tensor]], blocks: int) -> dict[str, Tensor]:
        """The gradients of the weights of the last `blocks` blocks, by name; the tape stays as it is."""
        end = copy(self)
        end._records = self._records[-blocks:]
        return end.gradients(outputs)[0]

    def _add(self, gradients: dict[K, Tensor], key: K, gradient: Tensor) -> None:
        gradients[key] = self.sum(gradients[key], gradient) if key in gradients else gradient

    @staticmethod
    def sum(first: Tensor, second: Tensor) -> Tensor:
        return first + second

    @staticmethod
    def zeros(tensor: Tensor) -> Tensor:
        """Zeros of the tensor's shape."""
        return ms.ops.zeros_like(tensor)
