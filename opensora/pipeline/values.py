"""Checks of single arguments, for functions that users call from Python.

A value of another type is a TypeError, one out of range a ValueError; both name the argument.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from opensora.config_files import shown
from opensora.engine.block import as_array


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number from low to high."""
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, not {kind(value)}")
    try:
        number = operator.index(value)
    except TypeError as error:  # an array of several
        raise TypeError(f"{name} must be a whole number, not {kind(value)}") from error
    if not low <= number <= high:
        raise ValueError(f"{name} {shown(number)} is out of range: use {low} to {high}")
    return number


def number(name: str, value: Any, low: float, high: float) -> float:
    """A finite number from low to high."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number, not {kind(value)}")
    if not (low <= value <= high and math.isfinite(value)):
        raise ValueError(f"{name} {shown(value)} is out of range: use {low:g} to {high:g}")
    return float(value)


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, not {kind(value)}")
    return bool(value)


def function(name: str, value: Any) -> Callable[..., Any] | None:
    """A function, or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function, not {kind(value)}")
    return value


def texts(name: str, value: Any) -> list[str]:
    """A text, or a list or tuple of texts."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise TypeError(f"{name} must be a text or a list of texts, not {kind(value)}")
    if not items:
        raise ValueError(f"{name} is an empty list: give at least one text")
    for place, item in enumerate(items):
        if not isinstance(item, str):
            raise TypeError(f"{name}[{place}] must be a text, not {kind(item)}")
    return [str(item) for item in items]


def numbers(name: str, value: Any, axes: str) -> np.ndarray:
    """A float32 array of finite numbers, copied from an array or tensor with these axes, such as "B L D"."""
    array = as_array(value)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be an array, not {kind(value)}")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold numbers, not {array.dtype}")
    wanted = axes.split()
    if array.ndim != len(wanted) or not array.size:
        raise ValueError(f"{name} must have the shape ({', '.join(wanted)}), not {array.shape}")
    result = np.array(array, np.float32)
    if not np.isfinite(result).all():
        raise ValueError(f"{name} holds NaN or infinite values")
    return result


def kind(value: Any) -> str:
    """A value of the wrong type for a message: its type, and itself if that is short."""
    name = type(value).__name__
    return f"{name} {shown(value)}" if type(value) in (bool, int, float, str, bytes) else name
