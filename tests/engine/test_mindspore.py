from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from opensora.engine.block import Block, subset
from opensora.engine.mindspore import Forward, Tape, set_jit
from opensora.nn.attention import attention, merge_heads, split_heads


def affine(w: Any, x: Any) -> Any:
    return x * w["scale"] + w["shift"]


def product(w: Any, x: Any, y: Any) -> Any:
    return x * y


def with_constants(w: Any, x: Any, absent: Any, power: int, name: str, grid: tuple[int, int]) -> Any:
    y = x * w[name] * (grid[0] - grid[1])
    for _ in range(power - 1):
        y = y * x
    return y if absent is None else y + absent


def halves(w: Any, x: Any) -> tuple[Any, Any]:
    return x * w["first"], x * x


def same_input_twice(w: Any, x: Any, y: Any) -> Any:
    return x * x * y


Affine, Product, Constants, Halves, Twice = (
    Block(affine),
    Block(product),
    Block(with_constants),
    Block(halves),
    Block(same_input_twice),
)


def tensor(*values: float) -> ms.Tensor:
    return ms.Tensor(np.array(values, np.float32))


def numbers(value: Any) -> list[float]:
    return [round(float(item), 5) for item in value.asnumpy()]


class Everything:
    def __contains__(self, prefix: object) -> bool:
        return True


@pytest.fixture(params=["recomputing", "saving"])
def make_tape(request: pytest.FixtureRequest) -> Any:
    """A tape whose blocks all compute their forward again, or none of them."""
    return lambda weights: Tape(weights, Everything() if request.param == "saving" else ())


with_saved_activations, gradient_of = Block.with_saved_activations, Block.gradient


def test_weights_by_prefix() -> None:
    weights = {"a.w": 1, "a.b.w": 2, "ab.w": 3, "table": 4}
    assert subset(weights, "a") == {"w": 1, "b.w": 2}
    assert subset(weights, "") == {}
    assert subset(weights, ("table", "ab.")) == {"ab.w": 3, "table": 4}


def test_a_chain_and_its_gradients(mode: str, make_tape: Any) -> None:
    weights = {
        "one.scale": tensor(2, 3),
        "one.shift": tensor(1, 1),
        "two.scale": tensor(5, 7),
        "two.shift": tensor(0, 0),
    }
    x = tensor(10, 20)
    tape = make_tape(weights)
    y = tape(Affine, "two", tape(Affine, "one", x))
    assert numbers(y) == [105, 427]
    assert numbers(Forward(weights)(Affine, "two", Forward(weights)(Affine, "one", x))) == [105, 427]
    gradients, [by_x] = tape.gradients([(y, tensor(1, 10))], [x])
    assert {name: numbers(value) for name, value in gradients.items()} == {
        "two.scale": [21, 610],
        "two.shift": [1, 10],
        "one.scale": [50, 1400],
        "one.shift": [5, 70],
    }
    assert numbers(by_x) == [10, 210]


def test_weights_named_whole_keep_their_names(mode: str, make_tape: Any) -> None:
    weights = {"scale": tensor(2), "shift": tensor(1), "other": tensor(0)}
    tape = make_tape(weights)
    y = tape(Affine, ("scale", "shift"), tensor(3))
    gradients, _ = tape.gradients([(y, tensor(1))])
    assert {name: numbers(value) for name, value in gradients.items()} == {"scale": [3], "shift": [1]}


def test_a_weight_that_two_blocks_share_accumulates(mode: str, make_tape: Any) -> None:
    tape = make_tape({"a.scale": tensor(2), "a.shift": tensor(0)})
    y = tape(Affine, "a", tape(Affine, "a", tensor(3)))
    gradients, _ = tape.gradients([(y, tensor(1))])
    assert (
        numbers(y) == [12] and numbers(gradients["a.scale"]) == [12] and numbers(gradients["a.shift"]) == [3]
    )


def test_a_tensor_that_two_blocks_read_accumulates(mode: str, make_tape: Any) -> None:
    tape = make_tape({"a.scale": tensor(2), "a.shift": tensor(0)})
    x = tensor(3)
    y = tape(Product, "", tape(Affine, "a", x), x)
    _, [by_x] = tape.gradients([(y, tensor(1))], [x])
    assert numbers(y) == [18] and numbers(by_x) == [12]


def test_one_tensor_in_two_places_of_a_block(mode: str, make_tape: Any) -> None:
    tape, x = make_tape({}), tensor(3)
    y = tape(Twice, "", x, x)
    _, [by_x] = tape.gradients([(y, tensor(1))], [x])
    assert numbers(y) == [27] and numbers(by_x) == [27]


def test_constants_and_none_have_no_gradient(mode: str) -> None:
    inputs = (tensor(3), None, 2, "scale", (5, 1))
    assert numbers(Constants({"scale": tensor(2)}, *inputs)) == [72]
    weights, by_input = Constants.gradient({"scale": tensor(2)}, inputs, tensor(1))
    assert numbers(weights["scale"]) == [36] and numbers(by_input[0]) == [48] and by_input[1:] == [None] * 4
    with_tensor = (tensor(3), tensor(1), 3, "scale", (2, 1))
    _, by_input = Constants.gradient({"scale": tensor(2)}, with_tensor, tensor(1))
    assert numbers(Constants({"scale": tensor(2)}, *with_tensor)) == [55]
    assert [None if value is None else numbers(value) for value in by_input] == [[54], [1], None, None, None]


def test_outputs_of_a_tuple_flow_back_each_or_both(mode: str, make_tape: Any) -> None:
    weights = {"h.first": tensor(2)}
    for chosen, by_weight, by_x in (((0,), [3], [2]), ((1,), [0], [6]), ((0, 1), [3], [8])):
        tape, x = make_tape(weights), tensor(3)
        outputs = tape(Halves, "h", x)
        gradients, wanted = tape.gradients([(outputs[i], tensor(1)) for i in chosen], [x])
        assert [numbers(output) for output in outputs] == [[6], [9]]
        assert numbers(gradients["h.first"]) == by_weight and numbers(wanted[0]) == by_x


def test_gradients_of_tensors_in_the_middle(mode: str, make_tape: Any) -> None:
    tape = make_tape({"a.scale": tensor(2), "a.shift": tensor(0)})
    x, unused = tensor(3), tensor(1)
    middle = tape(Affine, "a", x)
    y = tape(Product, "", middle, middle)
    gradients, wanted = tape.gradients([(y, tensor(1))], [middle, x, unused])
    assert [None if value is None else numbers(value) for value in wanted] == [[12], [24], None]
    assert numbers(gradients["a.scale"]) == [36]


def test_an_output_that_is_also_an_input_gets_both_gradients(mode: str, make_tape: Any) -> None:
    tape = make_tape({"a.scale": tensor(2), "a.shift": tensor(0)})
    middle = tape(Affine, "a", tensor(3))
    y = tape(Product, "", middle, middle)
    gradients, _ = tape.gradients([(y, tensor(1)), (middle, tensor(100)), (middle, tensor(1000))])
    assert numbers(gradients["a.scale"]) == [(12 + 1100) * 3]


def test_blocks_on_no_path_to_the_outputs_are_left_out(mode: str, make_tape: Any) -> None:
    tape = make_tape({"a.scale": tensor(2), "a.shift": tensor(0), "b.scale": tensor(2), "b.shift": tensor(0)})
    x = tensor(3)
    y, _ = tape(Affine, "a", x), tape(Affine, "b", x)
    gradients, _ = tape.gradients([(y, tensor(1))])
    assert sorted(gradients) == ["a.scale", "a.shift"]


def test_a_tape_is_used_up(make_tape: Any) -> None:
    tape = make_tape({"a.scale": tensor(2), "a.shift": tensor(0)})
    y = tape(Affine, "a", tensor(3))
    tape.gradients([(y, tensor(1))])
    assert tape.gradients([(y, tensor(1))]) == ({}, [])


def test_the_compiled_code_serves_every_layer_and_a_second_shape() -> None:
    traces = []

    def traced(w: Any, x: Any) -> Any:
        note(x.shape)
        return x * w["scale"]

    @ops.constexpr
    def note(shape: tuple[int, ...]) -> bool:
        traces.append(shape)
        return True

    block = Block(traced)
    for scale in (2.0, 3.0, 4.0):
        assert numbers(block({"scale": tensor(scale, scale)}, tensor(1, 2))) == [scale, 2 * scale]
    first = len(traces)
    assert set(traces) == {(2,)}
    block({"scale": tensor(5, 5)}, tensor(3, 4))
    assert len(traces) == first
    assert numbers(block({"scale": tensor(2, 2, 2)}, tensor(1, 2, 3))) == [2, 4, 6]
    assert set(traces) == {(2,), (3,)}


def test_blocks_of_two_closures_do_not_share_code(mode: str) -> None:
    def times(number: float) -> Any:
        def function(w: Any, x: Any) -> Any:
            return x * w["scale"] * number

        return function

    two, three = Block(times(2.0)), Block(times(3.0))
    weights = {"scale": tensor(1)}
    assert (numbers(two(weights, tensor(1))), numbers(three(weights, tensor(1)))) == ([2], [3])
    for block, expected in ((two, [2]), (three, [3])):
        by_weight, by_input = block.gradient(weights, (tensor(1),), tensor(1))
        assert numbers(by_weight["scale"]) == expected and numbers(by_input[0]) == expected


def test_which_blocks_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that do are not computed again: their backward is never compiled."""
    kept: list[int] = []
    monkeypatch.setattr(
        Block,
        "with_saved_activations",
        lambda self, weights, *inputs: (
            kept.append(len(inputs)) or with_saved_activations(self, weights, *inputs)
        ),
    )
    monkeypatch.setattr(
        Block,
        "gradient",
        lambda self, weights, inputs, gradient: (
            gradients.append(1) or gradient_of(self, weights, inputs, gradient)
        ),
    )
    gradients: list[int] = []
    tape, x = Tape({"a.scale": tensor(2), "a.shift": tensor(0)}, {"a"}), tensor(3)
    y = tape(Product, "", tape(Affine, "a", tape(Affine, "a", x)), x)
    assert kept == [1, 1] and not gradients
    _, [by_x] = tape.gradients([(y, tensor(1))], [x])
    assert numbers(by_x) == [24] and gradients == [1]


def attends_twice(w: Any, x: Any, y: Any) -> Any:
    def heads(tokens: Any) -> Any:
        return split_heads(ops.matmul(tokens, w["matrix"]), 2)

    x = merge_heads(attention(heads(x), heads(x), heads(x)))
    return merge_heads(attention(heads(x), heads(y), heads(y)))


def test_saved_activations_of_two_attentions_of_one_shape() -> None:
    """The framework's records confuse calls of a cell with its own gradient."""
    rng, block = np.random.default_rng(0), Block(attends_twice)
    x, y, by_output = (ms.Tensor(rng.standard_normal((2, 3, 4)).astype(np.float32)) for _ in range(3))
    weights = {"matrix": ms.Tensor(rng.standard_normal((4, 4)).astype(np.float32))}
    by_weight, by_input = block.with_saved_activations(weights, x, y)[1](by_output)
    set_jit(False)
    expected_by_weight, expected_by_input = block.gradient(weights, (x, y), by_output)
    set_jit(True)
    pairs = zip(
        [*by_weight.values(), *by_input], [*expected_by_weight.values(), *expected_by_input], strict=True
    )
    for found, expected in pairs:
        np.testing.assert_allclose(found.asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4), (2, 5)])
def test_compiled_and_not_agree(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    weights = {name: ms.Tensor(rng.standard_normal(shape).astype(np.float32)) for name in ("scale", "shift")}
    x, by_y = (ms.Tensor(rng.standard_normal(shape).astype(np.float32)) for _ in range(2))
    results = []
    for jit in (True, False):
        set_jit(jit)
        by_weight, [by_x] = Affine.gradient(weights, (x,), by_y)
        results.append([Affine(weights, x), by_weight["scale"], by_weight["shift"], by_x])
    set_jit(True)
    for compiled, eager in zip(*results, strict=True):
        np.testing.assert_allclose(compiled.asnumpy(), eager.asnumpy(), rtol=1e-6)
