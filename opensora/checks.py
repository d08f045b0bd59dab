"""Checks of option values. Each raises a ValueError that gives the option's name, its value and the remedy.

    def __post_init__(self) -> None:
        at_least(self, 1, "batch_size", "log_interval")
        within(self, 0, 1, "caption_dropout")

An option whose value is None was not given and passes every check.
"""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints


def at_least(options: object, least: float, *names: str) -> None:
    """Require `value >= least`."""
    for name, value in _given(options, names):
        if not value >= least:
            raise ValueError(f"{name} {value} is too small: use {least} or more")


def at_most(options: object, most: float, *names: str) -> None:
    """Require `value <= most`."""
    for name, value in _given(options, names):
        if not value <= most:
            raise ValueError(f"{name} {value} is too large: use {most} or less")


def above(options: object, bound: float, *names: str) -> None:
    """Require `value > bound`."""
    for name, value in _given(options, names):
        if not value > bound:
            raise ValueError(f"{name} {value} is too small: use more than {bound}")


def below(options: object, bound: float, *names: str) -> None:
    """Require `value < bound`."""
    for name, value in _given(options, names):
        if not value < bound:
            raise ValueError(f"{name} {value} is too large: use less than {bound}")


def within(options: object, low: float, high: float, *names: str) -> None:
    """Require `low <= value <= high`."""
    for name, value in _given(options, names):
        if not low <= value <= high:
            raise ValueError(f"{name} {value} is out of range: use {low} to {high}")


def one_of(options: object, *names: str) -> None:
    """Require one of the values that the field's `Literal` type lists."""
    hints = get_type_hints(type(options))
    for name, value in _given(options, names):
        choices = list(_choices(hints[name]))
        assert choices, f"{name} has no Literal type"
        if value not in choices:
            raise ValueError(f"{name} {value!r} is unknown: choose one of {', '.join(map(str, choices))}")


def _given(options: object, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name in names:
        value = getattr(options, name)
        if value is not None:
            yield name, value


def _choices(kind: Any) -> Iterator[Any]:
    """The values of a Literal, also inside of `Literal[...] | None`."""
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    else:
        for part in get_args(kind):
            yield from _choices(part)
