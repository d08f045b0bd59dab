"""A group of one, and calls for Ascend: their arguments fit the installed operators (docs/ascend.md)."""

import inspect
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.engine.mindspore import Tape
from opensora.parallel import collectives
from opensora.parallel.collectives import LinearMap, ProcessGroup


def test_a_group_of_one_changes_nothing() -> None:
    group, x = ProcessGroup(), ms.Tensor(np.arange(6, dtype=np.float32).reshape(3, 2))
    for collective in (group.all_reduce, group.all_gather, group.reduce_scatter, group.all_to_all):
        assert collective(x) is x
    assert group.agree("alone") == ["alone"] and group.sent == 0


@pytest.mark.parametrize("saved", [(), ("",)])
def test_a_linear_map_on_a_tape_gives_its_transpose(saved: tuple[str, ...]) -> None:
    tape, x = Tape({}, saved), ms.Tensor(np.ones((2, 3), np.float32))
    twice = LinearMap(
        lambda value: ms.ops.concat((value, value)), lambda gradient: gradient[:2] + gradient[2:]
    )
    output = tape(twice, "", x)
    weights, (by_x,) = tape.gradients(
        [(output, ms.Tensor(np.arange(12, dtype=np.float32).reshape(4, 3)))], wanted=[x]
    )
    assert weights == {}
    np.testing.assert_array_equal(by_x.asnumpy(), [[6, 8, 10], [12, 14, 16]])


@pytest.mark.parametrize(
    ("call", "arguments", "names"),
    [
        (ms.ops.AllReduce.__init__, (None,), {"group": "g"}),
        (ms.ops.AllGather.__init__, (None,), {"group": "g"}),
        (ms.ops.ReduceScatter.__init__, (None,), {"group": "g"}),
        (ms.mint.distributed.all_to_all_single, (None, None), {"group": "g"}),
        (ms.mint.distributed.all_gather, ([], None), {"group": "g"}),
        (ms.communication.create_group, ("g", [0, 1]), {}),
        (ms.communication.init, (), {}),
    ],
)
def test_calls_fit_the_installed_signatures(
    call: Any, arguments: tuple[Any, ...], names: dict[str, Any]
) -> None:
    inspect.signature(inspect.unwrap(call)).bind(*arguments, **names)


def test_ascend_takes_its_own_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """With operators that compute what the documentation says for two ranks that hold the same."""
    calls = []

    def stand_in(name: str, result: Any) -> Any:
        class Operator:
            def __init__(self, op: str = "sum", *, group: str) -> None:
                calls.append((name, group))

            def __call__(self, x: Any) -> Any:
                return result(x)

        return Operator

    def all_to_all_single(output: Any, input: Any, group: str | None = None) -> None:
        calls.append(("AlltoAll", group))
        output.assign_value(ms.ops.concat((input[:1], input[:1])))

    monkeypatch.setattr(collectives, "on_ascend", lambda: True)
    monkeypatch.setattr(collectives.ops, "AllGather", stand_in("AllGather", lambda x: ms.ops.concat((x, x))))
    monkeypatch.setattr(
        collectives.ops, "ReduceScatter", stand_in("ReduceScatter", lambda x: 2 * x[: len(x) // 2])
    )
    monkeypatch.setattr(collectives.distributed, "all_to_all_single", all_to_all_single)
    group, x = ProcessGroup((4, 5), 4, "pair"), ms.Tensor(np.array([[1.0], [2.0]], np.float32))
    assert group.all_gather(x).asnumpy().ravel().tolist() == [1, 2, 1, 2]
    assert group.reduce_scatter(x).asnumpy().ravel().tolist() == [2]
    assert group.all_to_all(x).asnumpy().ravel().tolist() == [1, 1]
    assert calls == [("AllGather", "pair"), ("ReduceScatter", "pair"), ("AlltoAll", "pair")]
