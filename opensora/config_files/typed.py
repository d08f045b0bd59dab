"""Values of a configuration file, checked against the types and ranges of a dataclass.

    @dataclass(frozen=True)
    class Config:
        num_layers: Annotated[int, Range(1, 1000)] = 28
        names: tuple[str, ...] = ()

    config = typed(Config, read_settings(path), path)

Errors name the file, the key, the value and what belongs there.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from opensora.config_files.reading import MAX_INTEGER, shown
from opensora.console import printable

T = TypeVar("T")

TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


@dataclass(frozen=True)
class Range:
    """Limits of a number, both allowed: `Annotated[int, Range(1, 1000)]`. For a tuple, those of each item."""

    low: float
    high: float


@dataclass(frozen=True)
class Length:
    """Limits of the number of items in a tuple: `Annotated[tuple[int, ...], Length(1, 8)]`."""

    low: int
    high: int


def typed(kind: type[T], values: Any, where: object, *, strict: bool = False) -> T:
    """The dataclass `kind` from the object in a file, checked against the types and ranges of its fields.

    where: the file, for errors. strict: unknown names are errors; otherwise they are passed over. Raises
    ValueError for a value of another type or out of range, and for a missing one without a default.
    """
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{where} holds {shown(values)}, where an object of names and values belongs: correct it"
        )
    hints = get_type_hints(kind, include_extras=True)
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    unknown = [name for name in values if name not in known]
    if strict and unknown:
        raise ValueError(f"{where} has the unknown name {shown(unknown[0])}: use one of {', '.join(known)}")
    for name, item in known.items():
        if name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"{where} has no {name!r}: add it, or download or save the file again")
    chosen = {name: checked(hints[name], values[name], where, name) for name in known if name in values}
    try:
        return kind(**chosen)
    except ValueError as error:  # of values that do not fit together
        raise ValueError(f"{where}: {error}") from error


def ranges(kind: type) -> dict[str, Range]:
    """The fields of a dataclass that have a range."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: limits
        for name, hint in hints.items()
        for limits in getattr(hint, "__metadata__", ())
        if isinstance(limits, Range)
    }


def checked(hint: Any, value: Any, where: object, name: str) -> Any:
    """The value of a field of type `hint`: lists become tuples where it is one, objects become dataclasses.

    Raises ValueError that names the field for a value of another type or out of range.
    """
    try:
        return _convert(hint, value, where, name)
    except _Mismatch as mismatch:
        raise ValueError(
            f"{where} says {name} = {shown(value)}, where {mismatch} belongs: correct it"
        ) from None


class _Mismatch(Exception):
    """A value is of another type or out of range; the text describes what belongs there."""


def _convert(hint: Any, value: Any, where: object, name: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        converted = _convert(arguments[0], value, where, name)
        for limits in arguments[1:]:
            _check_limits(limits, converted)
        return converted
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where, name)
    if origin is Literal:
        if value not in arguments or type(value) not in map(type, arguments):
            raise _Mismatch("one of " + ", ".join(map(repr, arguments)))
        return value
    if origin in (tuple, list):
        return _convert_items(hint, value, where, name)
    if origin in (dict, Mapping) or hint is dict:
        if not isinstance(value, dict):
            raise _Mismatch("an object")
        kind = arguments[1] if arguments else Any
        return {key: checked(kind, item, where, f"{name}.{printable(key)}") for key, item in value.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise _Mismatch("an object")
        return typed(hint, value, f"{where}: {name}")
    return _convert_scalar(hint, value)


def _convert_scalar(hint: Any, value: Any) -> Any:
    if hint is float and type(value) is int and abs(value) <= MAX_INTEGER:
        return float(value)
    if type(value) is not hint or (hint is int and abs(value) > MAX_INTEGER):
        raise _Mismatch(TYPE_NAMES.get(hint, getattr(hint, "__name__", str(hint))))
    if hint is float and not math.isfinite(value):
        raise _Mismatch("a finite number")
    return value


def _convert_union(kinds: tuple[Any, ...], value: Any, where: object, name: str) -> Any:
    wanted = []
    for kind in kinds:
        if kind is type(None):
            if value is None:
                return None
            continue
        try:
            return _convert(kind, value, where, name)
        except _Mismatch as mismatch:
            wanted.append(str(mismatch))
    raise _Mismatch(" or ".join(wanted))


def _convert_items(hint: Any, value: Any, where: object, name: str) -> Any:
    origin, kinds = get_origin(hint), get_args(hint)
    if not isinstance(value, list | tuple):
        raise _Mismatch("a list")
    if origin is tuple and kinds[-1] is not Ellipsis:
        if len(value) != len(kinds):
            raise _Mismatch(f"a list of {len(kinds)} items")
    else:
        kinds = (kinds[0],) * len(value)
    pairs = enumerate(zip(kinds, value, strict=True))
    return origin(checked(kind, item, where, f"{name}[{number}]") for number, (kind, item) in pairs)


def _check_limits(limits: Any, value: Any) -> None:
    if isinstance(limits, Length) and not limits.low <= len(value) <= limits.high:
        raise _Mismatch(f"a list of {limits.low} to {limits.high} items")
    if isinstance(limits, Range):
        for number in value if isinstance(value, tuple | list) else (value,):
            if number is not None and not limits.low <= number <= limits.high:
                raise _Mismatch(f"a number from {limits.low:g} to {limits.high:g}")
