"""Engines run networks that are written as blocks, pure functions of their weights."""

from collections.abc import Callable, Container, Mapping
from typing import Any, Protocol

import numpy as np

from opensora.engine.block import Block, Prefix, Weights

Network = Callable[..., Any]
"""`network(run, *inputs)` calls `run(block, prefix, *inputs)` for each of its blocks; see `opensora.engine.block.Run`."""


class Engine(Protocol):
    """Runs networks. Inputs are arrays or tensors, which may lie in lists and tuples, or constants; outputs have `asnumpy()`."""

    name: str
    precision: str
    device: str
    """"CPU" or "Ascend"."""

    def tensor(self, array: np.ndarray) -> Any:
        """The array as one of the engine's tensors, whose memory it may share."""
        ...

    def weights(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """All of a model's weights as the engine keeps them, in memory or ready to be read."""
        ...

    def on_demand(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """Weights that the engine takes from `arrays` for each block when it runs, and lets go after it."""
        ...

    def run(self, network: Network, weights: Weights, *inputs: Any) -> Any:
        """The output of a network."""
        ...

    def call(self, block: Block, weights: Weights, *inputs: Any) -> Any:
        """The output of a block whose weights change from call to call."""
        ...

    def bind(self, function: Callable[..., Any], weights: Weights) -> Callable[..., Any]:
        """`function(weights, *inputs)` as a function of its inputs. What is compiled for it goes when it goes."""
        ...

    def tape(self, weights: Weights, saved: Container[Prefix] = ()) -> Any:
        """A run that remembers its way for gradients; see `opensora.engine.mindspore.Tape`. ValueError for an engine without gradients."""
        ...


ENGINES = ("mindspore", "openvino")


def open_engine(name: str = "mindspore", precision: str = "fp32") -> Engine:
    """The engine of this name. Raises ValueError for one that is unknown or cannot compute in this precision."""
    if name == "openvino":
        from opensora.engine.openvino import OpenVINO

        return OpenVINO(precision)
    if name == "mindspore":
        from opensora.engine.mindspore import MindSpore

        return MindSpore(precision)
    raise ValueError(f"engine {name!r} is unknown: choose one of {', '.join(ENGINES)}")
