"""Operators that stay in float32: the marks, the attribute, and a model that is otherwise the same."""

from typing import Any

import numpy as np

from opensora.engine.graph import PRECISE, Node, constant, openvino, opset, precisely, tracing
from opensora.engine.openvino import _core
from opensora.engine.precise import keep_precise
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
    assert kinds(graph, PRECISE) == {"MVN", "Add"}
    kept = keep_precise(_core(), graph)
    assert kinds(kept, ATTRIBUTE) == {"MVN", "Add"}
    assert [list(parameter.shape) for parameter in kept.inputs] == [[3, 64]]
    found = _core().compile_model(kept, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    np.testing.assert_array_equal(found, expected)


def test_a_model_without_marks_is_left_alone() -> None:
    x = opset().parameter([2], np.float32)
    graph = openvino().Model([opset().negative(x)], [x])
    assert keep_precise(_core(), graph) is graph
