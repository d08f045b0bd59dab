"""Weights without a second copy: shared with their arrays, or made when a block asks."""

from collections.abc import Iterator, Mapping
from threading import Event

import numpy as np

from opensora.engine.block import subset
from opensora.engine.mindspore import MindSpore, as_tensor
from opensora.engine.weights import OnDemand, dropping_pages


class Counted(Mapping[str, np.ndarray]):
    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked: list[str] = []

    def __getitem__(self, name: str) -> np.ndarray:
        self.asked.append(name)
        return np.full(3, len(name), np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def test_only_what_a_block_needs_is_made() -> None:
    arrays = Counted("block.0.a", "block.0.bb", "block.1.a", "block.10.a", "out.weight")
    weights = OnDemand(arrays, as_tensor)
    assert set(weights) == set(arrays) and len(weights) == 5 and not arrays.asked
    block = subset(weights, "block.1")
    assert list(block) == ["a"] and arrays.asked == ["block.1.a"]
    np.testing.assert_array_equal(block["a"].asnumpy(), np.full(3, 9, np.float32))
    assert list(subset(weights, ("out.", "other."))) == ["out.weight"]
    assert arrays.asked == ["block.1.a", "out.weight"]


def test_loaded_tensors_share_the_memory_of_their_arrays() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    shared = MindSpore().weights({"a": array})
    array[1, 2] = 42
    assert float(shared["a"][1, 2].asnumpy()) == 42


def test_pages_are_dropped_meanwhile_and_at_the_end() -> None:
    class InFiles(dict[str, np.ndarray]):
        dropped = Event()

        def drop_pages(self) -> None:
            self.dropped.set()

    weights = InFiles()
    with dropping_pages(weights):
        assert weights.dropped.wait(60)
        weights.dropped.clear()
    assert weights.dropped.is_set()
    with dropping_pages({}):
        pass
