"""Activations in the forms that are fast and exact on every device."""

from typing import Any

from opensora.runtime import mindspore

ops = mindspore().ops


def silu(x: Any) -> Any:
    return x * ops.sigmoid(x)


def gelu(x: Any) -> Any:
    """GELU in its tanh approximation (arXiv:1606.08415), written with a sigmoid: 1 + tanh(z) = 2 sigmoid(2 z)."""
    return x * ops.sigmoid(1.5957691216057308 * x * (1.0 + 0.044715 * x * x))
