"""Training on a CPU with OpenVINO: every block is a graph, and so is its gradient; weights are inputs.

The tensors between blocks are MindSpore's and share the memory of the graphs' outputs, so losses,
optimizers and maps between devices need not know.
"""

import ctypes
import math
import sys
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from opensora.engine import EngineError, Network
from opensora.engine.block import Block, Differentiable, Gradients, Prefix, Pullback, Weights, as_array
from opensora.engine.graph import PRECISE, Node, openvino, opset, tracing
from opensora.engine.mindspore import Forward, Tape, as_tensor
from opensora.engine.openvino import OpenVINO, _as_engine_error, _core, _settings
from opensora.engine.precise import keep_precise
from opensora.engine.reserve import say_reserve
from opensora.engine.reverse import Output, cut, differentiate, products, residuals
from opensora.engine.tensor import Tensor
from opensora.engine.tree import Tree, tree_map
from opensora.runtime import mindspore

ms = mindspore()
Arrays: TypeAlias = list[np.ndarray]

M_MMAP_THRESHOLD, PAGES_OF_ITS_OWN = -3, 2**22
"""The C library's number of the setting, and bytes of an array."""
LARGE = 2**21
"""Elements of a tensor. A graph with a larger one gives its working memory back after each call."""


class TrainingOpenVINO(OpenVINO):
    """OpenVINO with gradients. Networks run block by block, because their weights change."""

    def __init__(self, precision: str = "fp32") -> None:
        """precision: the format that products of matrices, and their gradients, are computed in; tensors and
        everything else stay in float32.

        Raises EngineError if the library is missing or broken, ValueError if the processor lacks the format.
        """
        super().__init__(precision)
        self._blocks: dict[Block, GraphBlock] = {}

    def tensor(self, array: np.ndarray) -> Tensor:
        return ms.Tensor.from_numpy(array)

    def weights(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        return {name: ms.Tensor.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays}

    def run(self, network: Network, weights: Weights, *inputs: Tree) -> Tree:
        return network(GraphForward(self, weights), *inputs)

    def call(self, block: Block, weights: Weights, *inputs: Tree) -> Tree:
        return self.block(block)(weights, *inputs)

    def tape(self, weights: Weights, saved: Container[Prefix] = ()) -> Tape:
        return GraphTape(self, weights, saved)

    def block(self, block: Differentiable) -> Differentiable:
        """A block as graphs; maps between devices stay MindSpore's."""
        if not isinstance(block, Block):
            return block
        if block not in self._blocks:
            self._blocks[block] = GraphBlock(block, self.precision)
        return self._blocks[block]


class GraphForward(Forward):
    """`Forward` with blocks as graphs."""

    def __init__(self, engine: TrainingOpenVINO, weights: Weights) -> None:
        super().__init__(weights)
        self._engine = engine

    def __call__(self, block: Differentiable, prefix: Prefix, *inputs: Tree) -> Tree:
        return super().__call__(self._engine.block(block), prefix, *inputs)


class GraphTape(Tape):
    """`Tape` with blocks as graphs."""

    def __init__(self, engine: TrainingOpenVINO, weights: Weights, keeps: Container[Prefix] = ()) -> None:
        super().__init__(weights, keeps)
        self._engine = engine

    def __call__(self, block: Differentiable, prefix: Prefix, *inputs: Tree) -> Tree:
        return super().__call__(self._engine.block(block), prefix, *inputs)

    @staticmethod
    def sum(first: Tensor, second: Tensor) -> Tensor:
        """Computed here: every graph would wait for an operator of the framework's."""
        return ms.Tensor.from_numpy(as_array(first) + as_array(second))

    @staticmethod
    def zeros(tensor: Tensor) -> Tensor:
        return ms.Tensor.from_numpy(np.zeros(tensor.shape, np.float32))


class GraphBlock:
    """A block, compiled for each set of shapes and constants that it meets.

    MindSpore computes a block that OpenVINO refuses.
    """

    def __init__(self, block: Block, precision: str = "fp32") -> None:
        self._block, self._precision = block, precision
        self._graphs: dict[Hashable, BlockGraphs] = {}
        self._refused = False

    def __call__(self, weights: Weights, *inputs: Tree) -> Tree:
        return self._attempt(
            lambda graphs, arrays: graphs.forward(arrays),
            lambda: self._block(weights, *map(as_tensor, inputs)),
            weights,
            inputs,
        )

    def gradient(self, weights: Weights, inputs: tuple[Tree, ...], output_gradient: Tree) -> Gradients:
        result: Gradients = self._attempt(
            lambda graphs, arrays: graphs.gradient(arrays, output_gradient),
            lambda: self._block.gradient(weights, tuple(map(as_tensor, inputs)), output_gradient),
            weights,
            inputs,
        )
        return result

    def with_saved_activations(self, weights: Weights, *inputs: Tree) -> tuple[Tree, Pullback]:
        result: tuple[Tree, Pullback] = self._attempt(
            lambda graphs, arrays: graphs.recorded(arrays),
            lambda: self._block.with_saved_activations(weights, *map(as_tensor, inputs)),
            weights,
            inputs,
        )
        return result

    def _attempt(
        self,
        compute: Callable[["BlockGraphs", Arrays], Any],
        otherwise: Callable[[], Any],
        weights: Weights,
        inputs: tuple[Tree, ...],
    ) -> Any:
        if not self._refused:
            own = self._block.own(weights)
            try:
                return compute(self._of(own, inputs), _arrays(own, inputs))
            except EngineError as error:
                say_reserve(error)
                self._refused = True
        return otherwise()

    def _of(self, weights: Weights, inputs: tuple[Tree, ...]) -> "BlockGraphs":
        key = tuple((name, tuple(value.shape)) for name, value in weights.items()), _signature(inputs)
        if key not in self._graphs:
            self._graphs[key] = BlockGraphs(self._block, weights, inputs, self._precision)
        return self._graphs[key]


class BlockGraphs:
    """A block for fixed shapes and constants, its gradient, and its form that saves activations.

    Each is compiled where it is first used. Arrays are those of the weights, then those among the inputs.
    """

    def __init__(self, block: Block, weights: Weights, inputs: tuple[Tree, ...], precision: str) -> None:
        self._block, self._names, self._precision = block, tuple(weights), precision
        self._shapes = [(array.shape, array.dtype) for array in _arrays(weights, inputs)]
        self._constants = tuple(None if _is_tensor(value) else value for value in inputs)
        self._places = [place for place, value in enumerate(inputs) if _is_tensor(value)]
        self._forward: Graph | None = None
        self._backward: Graph | None = None
        self._recording: tuple[Graph, Graph] | None = None
        self._is_tuple = False
        self._present: list[bool] = []

    def forward(self, arrays: Arrays) -> Tree:
        if self._forward is None:
            parameters, outputs = self._trace()
            self._forward = Graph(outputs, parameters, self._precision)
        return self._output(self._forward(arrays))

    def gradient(self, arrays: Arrays, output_gradient: Tree) -> Gradients:
        if self._backward is None:
            parameters, outputs = self._trace()
            by_outputs, found = self._differentiated(parameters, outputs)
            self._backward = Graph(found, [*parameters, *by_outputs], self._precision)
        return self._gradients(self._backward([*arrays, *_parts(output_gradient)]))

    def recorded(self, arrays: Arrays) -> tuple[Tree, Pullback]:
        """The output, and its pullback from saved activations."""
        if self._recording is None:
            parameters, outputs = self._trace()
            by_outputs, found = self._differentiated(parameters, outputs)
            saved = residuals(found, parameters, by_outputs)
            forward = Graph([*outputs, *saved], parameters, self._precision)
            stand_ins = cut(found, [*parameters, *by_outputs], saved)
            backward = Graph(found, [*parameters, *by_outputs, *stand_ins], self._precision)
            self._recording = forward, backward
            self._count = len(outputs)
        forward, backward = self._recording
        results = forward(arrays)
        saved_arrays = results[self._count :]

        def pullback(output_gradient: Tree) -> Gradients:
            return self._gradients(backward([*arrays, *_parts(output_gradient), *saved_arrays]))

        return self._output(results[: self._count]), pullback

    def _trace(self) -> tuple[list[Any], list[Output]]:
        """(parameters, outputs) of the block's graph."""
        with _as_engine_error("OpenVINO does not take this graph"), tracing():
            parameters = [opset().parameter(shape, dtype) for shape, dtype in self._shapes]
            nodes = [Node(parameter.output(0)) for parameter in parameters]
            inputs = list(self._constants)
            for place, node in zip(self._places, nodes[len(self._names) :], strict=True):
                inputs[place] = node
            output = self._block.function(dict(zip(self._names, nodes, strict=False)), *inputs)
        self._is_tuple = isinstance(output, tuple)
        return parameters, [node.output for node in (output if self._is_tuple else (output,))]

    def _differentiated(
        self, parameters: Sequence[Any], outputs: Sequence[Output]
    ) -> tuple[list[Any], list[Output]]:
        """Parameters for the outputs' gradients, and the gradients by the inputs that have one."""
        with _as_engine_error("OpenVINO does not take this graph"):
            by_outputs = [opset().parameter(output.get_shape(), np.float32) for output in outputs]
            wanted = [parameter.output(0) for parameter in parameters]
            found = differentiate(outputs, [parameter.output(0) for parameter in by_outputs], wanted)
        self._present = [gradient is not None for gradient in found]
        return by_outputs, [gradient for gradient in found if gradient is not None]

    def _output(self, arrays: Arrays) -> Tree:
        tensors = tuple(map(ms.Tensor.from_numpy, arrays))
        return tensors if self._is_tuple else tensors[0]

    def _gradients(self, arrays: Arrays) -> Gradients:
        rest = iter(arrays)
        tensors = [ms.Tensor.from_numpy(next(rest)) if present else None for present in self._present]
        by_weight = {
            name: tensor for name, tensor in zip(self._names, tensors, strict=False) if tensor is not None
        }
        by_input: list[Tensor | None] = [None] * len(self._constants)
        for place, tensor in zip(self._places, tensors[len(self._names) :], strict=True):
            by_input[place] = tensor
        return by_weight, by_input


class Graph:
    """A compiled graph: from arrays to arrays."""

    def __init__(self, results: Sequence[Output], parameters: Sequence[Any], precision: str = "fp32") -> None:
        places = {parameter.get_name(): place for place, parameter in enumerate(parameters)}
        names = [result.get_node().get_name() for result in results]
        # Parameters among the results, whose memory the library confuses; they are passed on here.
        self._passed = [places.get(name) for name in names]
        computed = [result for result, passed in zip(results, self._passed, strict=True) if passed is None]
        self._shapes = [
            (tuple(result.get_shape()), result.get_element_type().to_dtype()) for result in computed
        ]
        self._compiled = None
        if computed:
            _keep_large_arrays_apart()
            with _as_engine_error("OpenVINO does not take this graph"):
                model = openvino().Model(computed, list(parameters))
                self._compiled = _compiled(model, precision)
        # Graphs keep their working memory, some twenty tensors; of large ones it would fill the machine.
        arrays = [
            *(result.get_shape() for result in computed),
            *(p.output(0).get_shape() for p in parameters),
        ]
        self._is_large = max((math.prod(shape) for shape in arrays), default=0) > LARGE
        self._request: Any = None

    def __call__(self, arrays: Arrays) -> Arrays:
        results = [np.empty(*shape) for shape in self._shapes]
        if self._compiled is not None:
            with _as_engine_error("OpenVINO failed"):
                self._infer(self._compiled, arrays, results)
        computed = iter(results)
        return [next(computed) if place is None else arrays[place] for place in self._passed]

    def _infer(self, compiled: Any, arrays: Arrays, results: Arrays) -> None:
        request, tensor = self._request or compiled.create_infer_request(), openvino().Tensor
        for place, array in enumerate(arrays):
            request.set_input_tensor(place, tensor(array, shared_memory=True))
        for place, array in enumerate(results):
            request.set_output_tensor(place, tensor(array, shared_memory=True))
        request.infer()
        if self._is_large:
            del request  # it holds on to the arrays
            compiled.release_memory()
        else:
            self._request = request


def _compiled(model: Any, precision: str) -> Any:
    """The model compiled; products compute in this precision if they are not marked, the rest in float32."""
    operators = model.get_ordered_ops()
    if not any(products(operator) and PRECISE not in operator.get_rt_info() for operator in operators):
        precision = "fp32"  # the library forgets the mark of some products
    if precision != "fp32":
        for operator in operators:
            if not products(operator):
                operator.get_rt_info()[PRECISE] = 1
        model = keep_precise(_core(), model)
    return _core().compile_model(model, "CPU", _settings(precision))


@lru_cache(maxsize=1)
def _keep_large_arrays_apart() -> None:
    """Let the C library give every large array pages of its own, which go back to the system.

    By itself it raises the limit with every large array that is freed, and then the heap of a training run
    grows by the holes between them.
    """
    if sys.platform.startswith("linux") and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, PAGES_OF_ITS_OWN)


def _arrays(weights: Weights, inputs: tuple[Tree, ...]) -> Arrays:
    values = [*weights.values(), *(value for value in inputs if _is_tensor(value))]
    return [np.ascontiguousarray(as_array(value)) for value in values]


def _parts(gradient: Tree) -> Arrays:
    parts = gradient if isinstance(gradient, tuple) else (gradient,)
    return [np.ascontiguousarray(as_array(part)) for part in parts]


def _is_tensor(value: Tree) -> bool:
    return isinstance(value, np.ndarray | ms.Tensor)


def _signature(value: Tree) -> Hashable:
    return tree_map(lambda item: (tuple(item.shape), str(item.dtype)) if _is_tensor(item) else item, value)
