"""`Tensor`, the type of a tensor in signatures. Importing it does not import MindSpore."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the framework, which ships no type information. Its `asnumpy()` gives the numpy array."""
