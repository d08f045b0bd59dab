"""The digest of an OpenVINO graph: equal graphs, with equal constants, have the same in every process."""

import hashlib
from typing import Any

from opensora.engine.graph import PRECISE

SMALLEST = 64
"""Operators of the smallest graph that is worth a file: smaller ones compile as quickly as they are read."""
LARGEST = 2**27
"""Bytes of constants in the largest one: beyond them, hashing and reading take longer than compiling."""


def graph_digest(model: Any, *settings: Any) -> str | None:
    """The sha256 of a model and of the settings that it is compiled with, in hexadecimal.

    None for a graph that is not worth keeping.
    """
    operators = model.get_ordered_ops()
    if len(operators) < SMALLEST or _constant_bytes(operators) > LARGEST:
        return None
    digest = hashlib.sha256(repr(settings).encode())
    places = {operator.get_friendly_name(): place for place, operator in enumerate(operators)}
    for operator in operators:
        sources = [
            (places[value.get_node().get_friendly_name()], value.get_index())
            for value in operator.input_values()
        ]
        digest.update(
            repr(
                (operator.get_type_name(), sources, _attributes(operator), PRECISE in operator.get_rt_info())
            ).encode()
        )
        if operator.get_type_name() == "Constant":
            digest.update(memoryview(operator.data).cast("B") if operator.data.size else b"")
    return digest.hexdigest()


def _attributes(operator: Any) -> Any:
    if operator.get_type_name() == "Constant":
        return str(operator.get_element_type()), tuple(operator.get_output_shape(0))
    return sorted(operator.get_attributes().items())


def _constant_bytes(operators: list[Any]) -> int:
    return sum(operator.get_byte_size() for operator in operators if operator.get_type_name() == "Constant")
