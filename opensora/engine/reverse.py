"""Gradients of OpenVINO graphs: the graph that computes them, by reverse accumulation."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from opensora.engine.graph import STOP, openvino, opset
from opensora.engine.rules import RULES
from opensora.engine.rules_convolution import CONVOLUTION_RULES

Output: TypeAlias = Any
"""An output of a node of the graph; the library's own classes have no type information."""
Key = tuple[str, int]

ALL_RULES = {**RULES, **CONVOLUTION_RULES}
CHANNELS_OUT = {
    "Convolution": [0],
    "ConvolutionBackpropData": [1],
    "GroupConvolution": [0, 1],
}
"""The axes of the kernel that are not summed over."""
LONG = 128
"""Multiplications for each number of a product that is saved. The scores of attention have fewer."""


def differentiate(
    outputs: Sequence[Output], by_outputs: Sequence[Output | None], wanted: Sequence[Output]
) -> list[Output | None]:
    """The gradients by the `wanted` outputs, given those by `outputs`; None where nothing depends on one.

    Raises NotImplementedError for an operator without a rule.
    """
    nodes = openvino().Model(list(outputs), _parameters(outputs)).get_ordered_ops()
    varying = _depending(nodes, {_key(output) for output in wanted})
    arrived: dict[Key, Output] = {}
    for output, gradient in zip(outputs, by_outputs, strict=True):
        if gradient is not None:
            _add(arrived, output, gradient)
    for node in reversed(nodes):
        own = [(node.get_name(), index) for index in range(node.get_output_size())]
        if not any(key in arrived for key in own) or node.get_input_size() == 0:
            continue
        sources = node.input_values()
        wants = [_key(source) in varying for source in sources]
        if not any(wants) or node.get_friendly_name().startswith(STOP):
            continue
        rule = ALL_RULES.get(node.get_type_name())
        if rule is None:
            raise NotImplementedError(f"the operator {node.get_type_name()} has no gradient")
        parts = rule(node, [arrived.get(key) for key in own], wants)
        for source, part, wants_it in zip(sources, parts, wants, strict=False):
            if part is not None and wants_it:
                _add(arrived, source, part)
    return [arrived.get(_key(output)) for output in wanted]


def residuals(found: Sequence[Output], inputs: Sequence[Any], by_outputs: Sequence[Any]) -> list[Output]:
    """The outputs that the forward has to save for the graph of the gradients.

    Only long products are saved: what lies between them takes less time to compute again than to write and
    read. found: the gradients. inputs, by_outputs: the parameters of the forward and those of the outputs'
    gradients.
    """
    nodes = openvino().Model(list(found), [*inputs, *by_outputs]).get_ordered_ops()
    backward = _depending(nodes, {(parameter.get_name(), 0) for parameter in by_outputs})
    saved: dict[Key, Output] = {}
    seen: set[Key] = set()
    stack = [
        source
        for node in nodes
        if node.get_output_size() and (node.get_name(), 0) in backward
        for source in node.input_values()
        if _key(source) not in backward
    ]
    while stack:
        output = stack.pop()
        if _key(output) in seen:
            continue
        seen.add(_key(output))
        if products(output.get_node()) >= LONG:
            saved[_key(output)] = output
        else:
            stack.extend(output.get_node().input_values())
    return list(saved.values())


def cut(found: Sequence[Output], parameters: Sequence[Any], outputs: Sequence[Output]) -> list[Any]:
    """Replace `outputs` by new parameters in the graph of the gradients `found`; returns these parameters."""
    stand_ins = {
        _key(output): opset().parameter(list(output.get_shape()), output.get_element_type())
        for output in outputs
    }
    for node in openvino().Model(list(found), list(parameters)).get_ordered_ops():
        for place, source in enumerate(node.input_values()):
            if _key(source) in stand_ins:
                node.input(place).replace_source_output(stand_ins[_key(source)].output(0))
    return list(stand_ins.values())


def products(node: Any) -> int:
    """Multiplications for one number of a node's output, if it is a product of matrices or a convolution."""
    kind = node.get_type_name()
    if kind == "MatMul":
        return int(node.input_value(0).get_shape()[-2 if node.get_attributes()["transpose_a"] else -1])
    if kind in CHANNELS_OUT:
        return int(np.prod(np.delete(node.input_value(1).get_shape(), CHANNELS_OUT[kind])))
    return 0


def _key(output: Output) -> Key:
    return output.get_node().get_name(), output.get_index()


def _parameters(outputs: Sequence[Output]) -> list[Any]:
    """The parameters that the outputs depend on."""
    seen: set[str] = set()
    found, stack = [], [output.get_node() for output in outputs]
    while stack:
        node = stack.pop()
        if node.get_name() in seen:
            continue
        seen.add(node.get_name())
        if node.get_type_name() == "Parameter":
            found.append(node)
        stack.extend(source.get_node() for source in node.input_values())
    return found


def _depending(nodes: Sequence[Any], wanted: set[Key]) -> set[Key]:
    """The outputs that depend on the wanted ones, these included; nodes: in their order."""
    varying = set(wanted)
    for node in nodes:
        if any(_key(source) in varying for source in node.input_values()):
            varying.update((node.get_name(), index) for index in range(node.get_output_size()))
    return varying


def _add(arrived: dict[Key, Output], output: Output, gradient: Output) -> None:
    key = _key(output)
    arrived[key] = opset().add(arrived[key], gradient).output(0) if key in arrived else gradient
