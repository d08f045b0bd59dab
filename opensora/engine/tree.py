"""Arrays and tensors in nested lists and tuples, as networks take and return them."""

from collections.abc import Callable, Iterator
from typing import Any


def tree_map(function: Callable[[Any], Any], value: Any) -> Any:
    """The same tuples, for lists too, of the function's results."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(tree_map(function, item) for item in value))
    if isinstance(value, list | tuple):
        return tuple(tree_map(function, item) for item in value)
    return function(value)


def leaves(value: Any, is_leaf: Callable[[Any], bool]) -> list[Any]:
    """Everything in these tuples that is a leaf, in order."""
    found: list[Any] = []
    tree_map(lambda item: found.append(item) if is_leaf(item) else None, value)
    return found


def filled(value: Any, others: Iterator[Any], is_leaf: Callable[[Any], bool]) -> Any:
    """The same with other leaves."""
    return tree_map(lambda item: next(others) if is_leaf(item) else item, value)
