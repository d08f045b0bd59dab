"""An engine for inference with MindSpore in reserve: a graph that it refuses does not end a run."""

import logging
import sys
from collections.abc import Callable, Container, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from opensora.engine import Engine, EngineError, Network, open_engine
from opensora.engine.block import Block, Prefix, Weights, as_array
from opensora.engine.tensor import Tensor
from opensora.engine.tree import Tree
from opensora.engine.turns import take_mindspore
from opensora.engine.weights import OnDemand
from opensora.runtime import UnsupportedVersion, set_device

if TYPE_CHECKING:
    from opensora.engine.mindspore import Tape

log = logging.getLogger(__name__)


def say_reserve(error: Exception) -> None:
    """One line about an engine that failed."""
    log.warning("%s: MindSpore computes instead", " ".join(str(error).split())[:300])


class WithReserve:
    """Asks its engine, and MindSpore for the rest of its life once the engine has failed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._failed = False
        # Weights of the first engine, and the same as MindSpore's tensors.
        self._moved: dict[int, tuple[Weights, Weights]] = {}

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def precision(self) -> str:
        return self._engine.precision

    @property
    def device(self) -> str:
        return self._engine.device

    def tensor(self, array: np.ndarray) -> Tensor:
        return self._engine.tensor(array)

    def input(self, array: np.ndarray) -> Tensor:
        return self._engine.input(array)

    def output(self, tensor: Tensor) -> np.ndarray:
        return np.asarray(as_array(tensor), np.float32)

    def weights(self, arrays: Mapping[str, np.ndarray]) -> Weights:
        return self._engine.weights(arrays)

    def on_demand(self, arrays: Mapping[str, np.ndarray]) -> Weights:
        return self._engine.on_demand(arrays)

    def run(self, network: Network, weights: Weights, *inputs: Tree) -> Tree:
        return self._attempt(lambda: self._engine.run(network, self._own(weights), *inputs))

    def call(self, block: Block, weights: Weights, *inputs: Tree) -> Tree:
        # Weights that change from call to call are not worth keeping.
        return self._attempt(
            lambda: self._engine.call(
                block, self._engine.weights(weights) if self._failed else weights, *inputs
            )
        )

    def bind(self, function: Callable[..., Tree], weights: Weights) -> Callable[..., Tree]:
        bound = self._engine.bind(function, weights)

        def attempt(*inputs: Tree) -> Tree:
            nonlocal bound
            try:
                return bound(*inputs)
            except EngineError as error:
                self._fall_back(error)
                bound = self._engine.bind(function, weights)
                return bound(*inputs)

        return attempt

    def new_call(self) -> None:
        self._engine.new_call()

    def close(self) -> None:
        self._engine.close()
        self._moved.clear()

    def tape(self, weights: Weights, saved: Container[Prefix] = ()) -> "Tape":
        return self._engine.tape(weights, saved)

    def _attempt(self, action: Callable[[], Tree]) -> Tree:
        try:
            return action()
        except EngineError as error:
            self._fall_back(error)
            return action()

    def _fall_back(self, error: EngineError) -> None:
        if self._failed:
            return
        if find_spec("mindspore") is None:
            raise UnsupportedVersion(f"{error}; MindSpore, the reserve, is not installed") from error
        say_reserve(error)
        take_mindspore()
        if "mindspore" not in sys.modules:
            set_device("CPU")
        self._engine, self._failed = open_engine("mindspore"), True

    def _own(self, weights: Weights) -> Weights:
        """The weights as the engine keeps them."""
        if not self._failed:
            return weights
        if id(weights) not in self._moved:
            if isinstance(weights, OnDemand):
                moved: Weights = self._engine.on_demand(weights.arrays)
            else:
                moved = self._engine.weights(weights)
            self._moved[id(weights)] = weights, moved
        return self._moved[id(weights)][1]
