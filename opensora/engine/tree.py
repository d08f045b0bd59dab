"""Arrays and tensors in nested lists and tuples, as networks take and return them."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

Tree: TypeAlias = Any
"""A tensor, array or constant, or a list or tuple of trees."""


def tree_map(function: Callable[[Any], Any], value: Tree) -> Tree:
    """The tree of the function's results; lists become tuples."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(tree_map(function, item) for item in value))
    if isinstance(value, list | tuple):
        return tuple(tree_map(function, item) for item in value)
    return function(value)


def leaves(value: Tree, is_leaf: Callable[[Any], bool]) -> list[Any]:
    """The leaves of a tree in order; `is_leaf` says which items count."""
    found: list[Any] = []
    tree_map(lambda item: found.append(item) if is_leaf(item) else None, value)
    return found


def filled(value: Tree, others: Iterator[Any], is_leaf: Callable[[Any], bool]) -> Tree:
    """The tree with its leaves replaced by `others`."""
    return tree_map(lambda item: next(others) if is_leaf(item) else item, value)
