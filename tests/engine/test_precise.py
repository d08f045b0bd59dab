"""Operators that stay in float32: the marks, the attribute, and a model that is otherwise the same."""

from collections.abc import Callable
from typing import Any

import numpy as np

from opensora.engine.graph import PRECISE, Node, constant, openvino, opset, precisely, tracing
from opensora.engine.openvino import _core
from opensora.engine.precise import keep_precise
from opensora.engine.tensor import Tensor
from opensora.nn import F

ATTRIBUTE = "DisablePrecisionConversion_0"


def model(weight: np.ndarray) -> Any:
    """A norm and a sum that are marked, and a product that is not."""
    with tracing():
        x = Node(opset().parameter([3, 64], np.float32).output(0))
        y = F.product(F.layer_norm(x), constant(weight))
        with precisely():
            y = y + x
    return openvino().Model([y.output], [x.output.get_node()])


def kinds(graph: Any, name: str) -> set[str]:
    """Types of the operators with this entry."""
    return {operator.get_type_name() for operator in graph.get_ops() if name in operator.get_rt_info()}


def test_marked_operators_get_the_attribute_and_weights_stay() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    x = np.random.default_rng(1).standard_normal((3, 64), np.float32)
    expected = _core().compile_model(model(weight), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    graph = model(weight)
    assert kinds(graph, PRECISE) == {"MVN", "Add", "Reshape"}
    kept = keep_precise(_core(), graph)
    assert kinds(kept, ATTRIBUTE) == {"MVN", "Add", "Reshape"}
    assert [list(parameter.shape) for parameter in kept.inputs] == [[3, 64]]
    found = _core().compile_model(kept, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    np.testing.assert_array_equal(found, expected)


def results(function: Callable[..., Any], *arrays: np.ndarray) -> list[np.ndarray]:
    """The function's output in float32, and in bfloat16 but for what is marked."""
    found = []
    for hint in ("f32", "bf16"):
        with tracing():
            inputs = [Node(opset().parameter(array.shape, np.float32).output(0)) for array in arrays]
            y = function(*inputs)
        graph = openvino().Model([y.output], [value.output.get_node() for value in inputs])
        settings = {"INFERENCE_PRECISION_HINT": hint}
        compiled = _core().compile_model(keep_precise(_core(), graph), "CPU", settings)
        found.append(compiled(list(arrays))[0])
    return found


def test_a_marked_linear_map_with_a_bias_computes_in_float32() -> None:
    rng = np.random.default_rng(2)
    weight, bias = rng.standard_normal((64, 64), np.float32), rng.standard_normal(64, np.float32)

    def linear(x: Node) -> Tensor:
        weights = {"map.weight": constant(weight), "map.bias": constant(bias)}
        return F.silu(F.linear(weights, "map", x))

    x = rng.standard_normal((3, 64), np.float32)
    plain, half = results(lambda value: F.precisely(linear, value), x)
    np.testing.assert_allclose(half, plain, rtol=1e-5, atol=1e-5)


def test_the_modulated_norm_between_products_computes_in_float32() -> None:
    """The products and these numbers are exact in bfloat16, but means of the numbers are not."""
    rng = np.random.default_rng(3)
    x = (256 + 2 * rng.integers(0, 32, (2, 3, 8, 64))).astype(np.float32)
    parts = (rng.integers(-8, 9, (3, 2, 64)) / 8).astype(np.float32)
    same = np.eye(64, dtype=np.float32)

    def modulated(x: Node, parts: Node) -> Tensor:
        x = F.product(x, constant(same))
        shift, scale, gate = F.precisely(lambda: F.unstacked(F.reshape(parts, (3, 2, 1, 1, 64))))
        y = F.product(F.modulate(F.layer_norm(x), scale, shift), constant(same))
        return F.product(F.add_gated(y, gate, y), constant(same))

    plain, half = results(modulated, x, parts)
    np.testing.assert_allclose(half, plain, rtol=0.01, atol=0.01)


def test_a_model_without_marks_is_left_alone() -> None:
    x = opset().parameter([2], np.float32)
    graph = openvino().Model([opset().negative(x)], [x])
    assert keep_precise(_core(), graph) is graph
