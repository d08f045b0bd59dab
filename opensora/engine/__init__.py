"""Engines run networks that are written as blocks, pure functions of their weights."""

from collections.abc import Callable, Container, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import numpy as np

from opensora.engine.block import Block, Prefix, Weights
from opensora.engine.tensor import Tensor
from opensora.engine.tree import Tree, tree_map
from opensora.runtime import on_cpu

if TYPE_CHECKING:
    from opensora.engine.mindspore import Tape

Network = Callable[..., Tree]
"""`network(run, *inputs)` calls `run(block, prefix, *inputs)` for each of its blocks; see `block.Run`."""


class Engine(Protocol):
    """Runs networks. Inputs are arrays, tensors, lists and tuples of them, or constants.

    Outputs have `asnumpy()`.
    """

    @property
    def name(self) -> str:
        """One of ENGINES."""
        ...

    @property
    def precision(self) -> str: ...

    @property
    def device(self) -> str:
        """ "CPU" or "Ascend"."""
        ...

    def tensor(self, array: np.ndarray) -> Tensor:
        """The array as one of the engine's tensors, whose memory it may share."""
        ...

    def input(self, array: np.ndarray) -> Tensor:
        """A float32 array as an input for networks, in the engine's precision."""
        ...

    def output(self, tensor: Tensor) -> np.ndarray:
        """A network's output as a float32 array."""
        ...

    def weights(self, arrays: Mapping[str, np.ndarray]) -> Weights:
        """All of a model's weights as the engine keeps them, in memory or ready to be read."""
        ...

    def on_demand(self, arrays: Mapping[str, np.ndarray]) -> Weights:
        """Weights that the engine takes from `arrays` for each block when it runs, and lets go after it."""
        ...

    def run(self, network: Network, weights: Weights, *inputs: Tree) -> Tree:
        """The output of a network."""
        ...

    def call(self, block: Block, weights: Weights, *inputs: Tree) -> Tree:
        """The output of a block whose weights change from call to call."""
        ...

    def bind(self, function: Callable[..., Tree], weights: Weights) -> Callable[..., Tree]:
        """`function(weights, *inputs)` as a function of its inputs, which owns what is compiled for it."""
        ...

    def new_call(self) -> None:
        """A call of a pipeline begins: what was compiled for earlier ones may go if memory is needed."""
        ...

    def close(self) -> None:
        """Let go what is compiled, as far as the engine can; what is called later is compiled again."""
        ...

    def tape(self, weights: Weights, saved: Container[Prefix] = ()) -> "Tape":
        """A run that records blocks for gradients; see `opensora.engine.mindspore.Tape`.

        Raises ValueError for an engine without gradients.
        """
        ...


def run_network(
    engine: Engine, tape: "Tape | None", network: Network, weights: Weights, *inputs: Tree
) -> Tree:
    """The output of a network. tape: one of the engine, which records the call for gradients, or None."""
    if tape is None:
        return engine.run(network, weights, *inputs)
    tensor = tape.tensor
    return network(
        tape, *tree_map(lambda value: tensor(value) if isinstance(value, np.ndarray) else value, inputs)
    )


class EngineError(RuntimeError):
    """An engine is not installed, or cannot compile or run a graph; another engine may."""


ENGINES = ("mindspore", "openvino")
ENGINE_CHOICES = ("auto", *ENGINES)


def open_engine(name: "str | Engine" = "mindspore", precision: str = "fp32") -> Engine:
    """The engine of this name; an engine is returned as it is.

    Raises ValueError for an unknown engine or one that cannot compute in this precision, EngineError for one
    that is not installed.
    """
    if not isinstance(name, str):
        return name
    if name == "openvino":
        from opensora.engine.openvino import OpenVINO

        return OpenVINO(precision)
    if name == "mindspore":
        from opensora.engine.mindspore import MindSpore

        return MindSpore(precision)
    raise ValueError(f"engine {name!r} is unknown: choose one of {', '.join(ENGINES)}")


def resolve_engine(name: str) -> str:
    """One of ENGINES for one of ENGINE_CHOICES on a CPU, without loading it."""
    if name == "auto":
        return "openvino" if find_spec("openvino") is not None else "mindspore"
    return name


def choose_engine(name: str = "auto", precision: str = "fp32") -> Engine:
    """The engine for inference, one of ENGINE_CHOICES; "auto" is OpenVINO on a CPU.

    Where OpenVINO is missing or fails, MindSpore takes over. Raises ValueError as `open_engine` does.
    """
    if name == "mindspore" or (name == "auto" and not on_cpu()):
        return open_engine("mindspore", precision)
    if name not in ENGINE_CHOICES:
        raise ValueError(f"engine {name!r} is unknown: choose one of {', '.join(ENGINE_CHOICES)}")
    from opensora.engine.reserve import WithReserve, say_reserve

    try:
        return WithReserve(open_engine("openvino", precision))
    except EngineError as error:
        say_reserve(error)
        return open_engine("mindspore", precision)


def choose_training_engine(name: str = "auto", precision: str = "fp32") -> Engine:
    """The engine for training, one of ENGINE_CHOICES; its weights are MindSpore's tensors.

    precision: what OpenVINO computes products in; MindSpore computes in the format of the weights that it
        gets. Raises ValueError for OpenVINO on another device than a CPU, or a precision that it lacks there.
    """
    if name == "mindspore" or (name == "auto" and not on_cpu()):
        return open_engine("mindspore")
    if not on_cpu():
        raise ValueError("engine openvino computes on a CPU: leave out --engine with another device")
    from opensora.engine.reserve import say_reserve

    try:
        from opensora.engine.training import TrainingOpenVINO

        return TrainingOpenVINO(precision)
    except (EngineError, ImportError) as error:
        say_reserve(error)
        return open_engine("mindspore")
