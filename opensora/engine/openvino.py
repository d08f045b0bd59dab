"""The OpenVINO engine: inference of whole networks on CPUs.

A network is compiled for its weights and the shapes of its inputs.
"""

import ctypes
import io
import logging
import os
from collections.abc import Callable, Container, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from opensora.engine import EngineError, Network
from opensora.engine.block import Block, Differentiable, Prefix, Weights, as_array, subset
from opensora.engine.cache import GraphCache, open_cache
from opensora.engine.digest import graph_digest
from opensora.engine.graph import Node, Operator, Trace, constant, openvino, opset, tracing
from opensora.engine.precise import keep_precise
from opensora.engine.programs import Growth, Programs
from opensora.engine.tensor import Tensor
from opensora.engine.tree import Tree, filled, leaves, tree_map
from opensora.engine.turns import computing
from opensora.engine.weights import OnDemand, dropping_pages

if TYPE_CHECKING:
    from opensora.engine.mindspore import Tape

log = logging.getLogger(__name__)

OUT_OF_MEMORY = (
    "bad_alloc",
    "Cannot allocate memory",
    "Failed to allocate",
    "could not create a memory object",
)
HINTS = {"fp32": "f32", "bf16": "bf16"}
THREADS = "OMP_NUM_THREADS"
KERNEL_CACHE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


class Array(np.ndarray):
    """A network's output: an array that also has a tensor's `asnumpy`."""

    def asnumpy(self) -> np.ndarray:
        return self.view(np.ndarray)


class OpenVINO:
    """Runs networks and keeps them compiled, for as long as it lives. Arrays go in, arrays come out."""

    name = "openvino"
    device = "CPU"

    def __init__(self, precision: str = "fp32") -> None:
        """precision: the format that the graphs compute in.

        Raises EngineError if the library is missing or broken, ValueError if the processor lacks the format.
        """
        if precision not in HINTS:
            raise ValueError(f"precision {precision!r} is not one of OpenVINO's: choose {' or '.join(HINTS)}")
        if precision == "bf16" and "BF16" not in capabilities():
            raise ValueError(
                "precision 'bf16' needs a processor that computes with it: use --precision fp32 here"
            )
        _core()
        self.precision = precision
        self._programs: Programs[Program] = Programs()
        self._cache = open_cache()

    def tensor(self, array: np.ndarray) -> Array:
        return array.view(Array)

    def input(self, array: np.ndarray) -> np.ndarray:
        return array

    def output(self, tensor: Tensor) -> np.ndarray:
        return np.asarray(as_array(tensor))

    def weights(self, arrays: Mapping[str, np.ndarray]) -> Weights:
        """Arrays that lie in files stay there; graphs share their memory."""
        return arrays.shared() if hasattr(arrays, "shared") else dict(arrays)

    def on_demand(self, arrays: Mapping[str, np.ndarray]) -> Weights:
        return OnDemand(arrays, np.asarray)

    def run(self, network: Network, weights: Weights, *inputs: Tree) -> Tree:
        if isinstance(weights, OnDemand):
            return network(BlockByBlock(self, weights), *inputs)
        # The program holds the weights, so that no other object gets their id.
        return self._program(
            (network, id(weights)), partial(_with_constants, network, weights), inputs, weights
        )

    def call(self, block: Block, weights: Weights, *inputs: Tree) -> Tree:
        own = block.own(weights)
        names = tuple(own)
        return self._program(
            (block, names), partial(_with_inputs, block, names), (tuple(own.values()), *inputs)
        )

    def bind(self, function: Callable[..., Tree], weights: Weights) -> Callable[..., Tree]:
        alone = OpenVINO(self.precision)
        alone._cache = None  # its graphs are quickly compiled, and hold the largest part of a model's weights
        return lambda *inputs: alone._program((), partial(_with_weights, function, weights), inputs)

    def _program(
        self,
        key: Hashable,
        function: Callable[..., Tree],
        inputs: tuple[Tree, ...],
        weights: Weights | None = None,
    ) -> Tree:
        """The output of a function of nodes, compiled for the shapes of these inputs.

        key: what identifies the function among those compiled for the same shapes.
        """
        computing()
        inputs = tree_map(_host, inputs)
        key = key, _signature(inputs)
        program = self._programs.get(key)
        if program is not None:
            return program(inputs)
        growth = Growth()
        with _as_engine_error("OpenVINO does not take this graph"), dropping_pages(weights):
            program = Program(function, inputs, self.precision, self._cache)
        output = program(inputs)
        self._programs.add(key, program, growth.bytes)
        return output

    def new_call(self) -> None:
        self._programs.new_call()

    def close(self) -> None:
        self._programs.clear()

    def tape(self, weights: Weights, saved: Container[Prefix] = ()) -> "Tape":
        raise ValueError("the engine openvino has no gradients: load the model with engine='mindspore'")


class BlockByBlock:
    """Runs the blocks of a network one after the other, each compiled once for all layers of one shape."""

    def __init__(self, engine: OpenVINO, weights: Weights) -> None:
        self._engine, self._weights = engine, weights

    def __call__(self, block: Differentiable, prefix: Prefix, *inputs: Tree) -> Tree:
        assert isinstance(block, Block)  # maps between devices are MindSpore's
        return self._engine.call(block, subset(self._weights, prefix), *inputs)

    def tensor(self, array: np.ndarray) -> np.ndarray:
        return array


def _with_constants(network: Network, weights: Weights, *inputs: Tree) -> Tree:
    return network(Trace(weights), *inputs)


def _with_weights(function: Callable[..., Tree], weights: Weights, *inputs: Tree) -> Tree:
    return function({name: constant(as_array(value)) for name, value in weights.items()}, *inputs)


def _with_inputs(block: Block, names: tuple[str, ...], weights: tuple[Node, ...], *inputs: Tree) -> Tree:
    return block.function(dict(zip(names, weights, strict=True)), *inputs)


class Program:
    """A compiled graph."""

    def __init__(
        self,
        function: Callable[..., Tree],
        inputs: tuple[Tree, ...],
        precision: str,
        cache: GraphCache | None = None,
    ) -> None:
        self.function = function
        with tracing():
            parameters = [opset().parameter(array.shape, array.dtype) for array in leaves(inputs, _is_leaf)]
            nodes = iter([Node(parameter.output(0)) for parameter in parameters])
            output = function(*filled(inputs, nodes, _is_leaf))
        results = [node.output for node in leaves(output, _is_leaf)]
        model = openvino().Model(results, parameters)
        compiled, self._content = _compiled(model, _settings(precision), cache)
        self._request = compiled.create_infer_request()
        # Nodes hold on to the graph and its constants: only their places are kept.
        self._output = tree_map(lambda item: np.empty(0) if _is_leaf(item) else item, output)
        self._count = len(results)
        self._lock = Lock()
        _programs.add(self)

    def keep_forever(self) -> None:
        """Let the library's objects be, even when the process ends."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._request))

    def __call__(self, inputs: tuple[Tree, ...]) -> Tree:
        with self._lock, _as_engine_error("OpenVINO failed"):
            for place, array in enumerate(leaves(inputs, _is_leaf)):
                self._request.set_input_tensor(place, openvino().Tensor(array, shared_memory=True))
            self._request.infer()
            arrays = [
                np.array(self._request.get_output_tensor(i).data).view(Array) for i in range(self._count)
            ]
        return filled(self._output, iter(arrays), _is_leaf)


_programs: WeakSet[Program] = WeakSet()


def _keep_programs() -> None:
    """In a forked child, destructors would wait for threads that are the parent's."""
    for program in list(_programs):
        program.keep_forever()
    if _core.cache_info().currsize:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_core()))


os.register_at_fork(after_in_child=_keep_programs)


def _compiled(model: Any, settings: dict[str, Any], cache: GraphCache | None) -> tuple[Any, Any]:
    """The graph compiled, or read from the cache: both compute the same bytes.

    Also the content of the cache's file, whose memory a graph shares that was read.
    """
    digest = None if cache is None else graph_digest(model, _environment(), settings)
    if cache is None or digest is None:
        return _core().compile_model(_prepared(model, settings), "CPU", settings), None
    kept = cache.read(digest)
    if kept is not None:
        try:
            content = openvino().Tensor(np.frombuffer(kept, np.uint8), shared_memory=True)
            return _core().import_model(content, "CPU", settings), content
        except RuntimeError as error:
            log.debug("the library does not take the graph from the cache: %s", error)
    compiled = _core().compile_model(_prepared(model, settings), "CPU", settings)
    stream = io.BytesIO()
    compiled.export_model(stream)
    cache.write(digest, stream.getvalue())
    return compiled, None


def _prepared(model: Any, settings: dict[str, Any]) -> Any:
    return model if settings["INFERENCE_PRECISION_HINT"] == "f32" else keep_precise(_core(), model)


@lru_cache(maxsize=1)
def _environment() -> dict[str, Any]:
    """The facts that compiled code depends on beside its graph."""
    return {
        "library": openvino().get_version(),
        "processor": _core().get_property("CPU", "FULL_DEVICE_NAME"),
        "capabilities": capabilities(),
        "limit": os.environ.get("DNNL_MAX_CPU_ISA", ""),
    }


def capabilities() -> list[str]:
    """The number formats that the processor computes in, such as "FP32" and "BF16".

    Raises EngineError if OpenVINO is missing or broken.
    """
    return list(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@lru_cache(maxsize=1)
def _core() -> Any:
    with _as_engine_error("OpenVINO cannot be loaded"):
        core = openvino().Core()
        if KERNEL_CACHE not in os.environ:
            _keep_no_kernels(core)
        return core


def _keep_no_kernels(core: Any) -> None:
    """Let the library's copy of oneDNN keep no kernels: the last 1024 would stay after their graphs are gone.

    It reads the variable when it makes its first kernel; other libraries shall not see it.
    """
    x, kernel = opset().parameter((1, 16, 8, 8), np.float32), np.ones((16, 16, 3, 3), np.float32)
    pairs = [[1, 1]] * 4  # strides, paddings and dilations
    first = opset().convolution(x, opset().constant(kernel), *pairs)
    os.environ[KERNEL_CACHE] = "0"
    try:
        core.compile_model(openvino().Model([first.output(0)], [x]), "CPU")
    finally:
        del os.environ[KERNEL_CACHE]


@contextmanager
def _as_engine_error(what: str) -> Iterator[None]:
    """Whatever fails inside is the engine's fault, and another one may succeed; but not without memory."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if any(words in str(error) for words in OUT_OF_MEMORY):
            raise MemoryError(f"{what}: memory ran out") from error
        raise EngineError(f"{what} ({type(error).__name__}: {error})") from error


def _settings(precision: str) -> dict[str, Any]:
    """One stream with all threads of this process: the same program gives the same bytes.

    No pinning: the library counts cores from the first, so several processes would share that one.
    """
    return {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": _threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }


def _threads() -> int:
    """The cores that this process may use, at most OMP_NUM_THREADS, as for MindSpore; 0 leaves the choice to
    the library.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    limit = os.environ.get(THREADS, "")
    wanted = int(limit) if limit.isdecimal() else 0
    return min(cores, wanted) if cores and wanted else cores or wanted


def multiply_once(size: int, precision: str) -> Callable[[], Tree]:
    """A product of two square matrices, compiled, for `measure_rates`."""
    square = np.ones((size, size), np.float32)
    multiply = partial(opset().matmul, transpose_a=False, transpose_b=True)
    return _once(lambda x: multiply(x.output, constant(square).output), square, precision)


def convolve_once(channels: int, frames: int, side: int, precision: str) -> Callable[[], Tree]:
    """A 3-D convolution that keeps height and width, compiled, for `measure_rates`."""
    kernel = np.ones((channels, channels, 3, 3, 3), np.float32)
    ones, pads = [1, 1, 1], [0, 1, 1]
    convolve = partial(opset().convolution, strides=ones, pads_begin=pads, pads_end=pads, dilations=ones)
    video = np.ones((1, channels, frames + 2, side, side), np.float32)
    return _once(lambda x: convolve(x.output, constant(kernel).output), video, precision)


def _once(operator: Callable[[Node], Operator], array: np.ndarray, precision: str) -> Callable[[], Tree]:
    with _as_engine_error("OpenVINO failed"):
        program = Program(lambda x: Node(operator(x).output(0)), (array,), precision)
    return partial(program, (array,))


def _host(value: Any) -> Any:
    """A tensor or array as a contiguous array."""
    value = as_array(value)
    if not isinstance(value, np.ndarray):
        return value
    # numpy has two types for 64-bit integers, and the library knows one of them.
    return np.ascontiguousarray(value).view(np.dtype(value.dtype.str))


def _is_leaf(value: Any) -> bool:
    return isinstance(value, np.ndarray | Node)


def _signature(value: Tree) -> Hashable:
    return tree_map(lambda item: (item.shape, item.dtype.str) if _is_leaf(item) else item, value)
