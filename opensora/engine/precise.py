"""Operators of an OpenVINO graph that stay in float32 when the others compute in bfloat16.

The library keeps operators as they are that carry a certain attribute, but only its reader of model files can
give it. So a graph whose operators are marked is written without its weights, read with the attribute, and
gets its weights back.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from opensora.engine.graph import PRECISE, openvino, opset

LARGE = 2**10
"""Bytes of a constant that does not go through the file."""


def keep_precise(core: Any, model: Any) -> Any:
    """The same model, with the attribute for its marked operators. `model` is used up."""
    operators = model.get_ordered_ops()
    names = {operator.get_friendly_name() for operator in operators if PRECISE in operator.get_rt_info()}
    if not names:
        return model
    constants = {}
    for operator in operators:
        if operator.get_type_name() == "Constant" and operator.get_byte_size() > LARGE:
            parameter = opset().parameter(operator.get_output_shape(0), operator.get_element_type())
            parameter.set_friendly_name(operator.get_friendly_name())
            _replace(operator.output(0), parameter.output(0))
            model.add_parameters([parameter])
            constants[operator.get_friendly_name()] = operator
    with tempfile.TemporaryDirectory() as folder:
        description, numbers = Path(folder) / "graph.xml", Path(folder) / "graph.bin"
        openvino().serialize(model, description, numbers)
        copy = core.read_model(_with_attribute(description, names), numbers.read_bytes())
    for parameter in copy.get_parameters():
        constant = constants.get(parameter.get_friendly_name())
        if constant is not None:
            _replace(parameter.output(0), constant.output(0))
            copy.remove_parameter(parameter)
    return copy


def _with_attribute(description: Path, names: Iterable[str]) -> bytes:
    tree = ElementTree.parse(description)
    wanted = set(names)
    for layer in tree.iter("layer"):
        if layer.get("name") in wanted:
            info = layer.find("rt_info")
            if info is None:
                info = ElementTree.SubElement(layer, "rt_info")
            ElementTree.SubElement(info, "attribute", name="precise", version="0")
    return ElementTree.tostring(tree.getroot())


def _replace(old: Any, new: Any) -> None:
    for target in old.get_target_inputs():
        target.replace_source_output(new)
