"""Values of configuration files are of the types and ranges that a dataclass states."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from opensora.config_files import Length, Range, ranges, typed


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Range(0, 9)]


@dataclass(frozen=True)
class Config:
    layers: Annotated[int, Range(1, 1000)]
    scale: float = 1.0
    kind: Literal["a", "b"] = "a"
    name: str | None = None
    flag: bool = False
    pair: Annotated[tuple[int, int], Range(1, 64)] = (1, 1)
    levels: Annotated[tuple[str, ...], Length(0, 3)] = ()
    inner: dict[str, Inner] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def test_values_are_converted() -> None:
    content = {
        "layers": 3,
        "scale": 2,
        "kind": "b",
        "name": None,
        "pair": [4, 5],
        "levels": ["x"],
        "inner": {"one": {"size": 1, "more": 2}},
        "settings": {"any": [1]},
        "unknown": object(),
    }
    config = typed(Config, content, "f.json")
    assert config == Config(3, 2.0, "b", None, False, (4, 5), ("x",), {"one": Inner(1)}, {"any": [1]})
    assert isinstance(config.scale, float)
    assert ranges(Config) == {"layers": Range(1, 1000), "pair": Range(1, 64)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 10**9}, "layers = 1000000000, where a number from 1 to 1000 belongs"),
        ({"layers": 0}, "where a number from 1 to 1000 belongs"),
        ({"layers": True}, "layers = True, where a whole number belongs"),
        ({"layers": 2.0}, "where a whole number belongs"),
        ({"layers": "3"}, "layers = '3', where a whole number belongs"),
        ({"layers": None}, "where a whole number belongs"),
        ({"scale": float("nan")}, "where a finite number belongs"),
        ({"scale": 10**400}, "where a number belongs"),
        ({"kind": "c"}, "kind = 'c', where one of 'a', 'b' belongs"),
        ({"kind": ["a"]}, "where one of 'a', 'b' belongs"),
        ({"name": 3}, "name = 3, where a text belongs"),
        ({"flag": 1}, "flag = 1, where true or false belongs"),
        ({"pair": [1]}, r"pair = \[1\], where a list of 2 items belongs"),
        ({"pair": [1, 65]}, "where a number from 1 to 64 belongs"),
        ({"pair": "ab"}, "pair = 'ab', where a list belongs"),
        ({"levels": ["x"] * 4}, "where a list of 0 to 3 items belongs"),
        ({"levels": [1]}, r"levels\[0\] = 1, where a text belongs"),
        ({"inner": {"one": {"size": 99}}}, r": inner\.one says size = 99, where a number from 0 to 9"),
        ({"inner": {"one": {}}}, r": inner\.one has no 'size'"),
        ({"inner": []}, "where an object belongs"),
        ({"settings": 1}, "where an object belongs"),
    ],
)
def test_the_key_and_what_belongs_there_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^f\.json.*{message}"):
        typed(Config, {"layers": 1, **change}, "f.json")


def test_missing_and_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"f\.json has no 'layers'"):
        typed(Config, {}, "f.json")
    with pytest.raises(ValueError, match=r"has the unknown name 'lay\\x1b': use one of layers, scale"):
        typed(Config, {"layers": 1, "lay\x1b": 2}, "f.json", strict=True)


def test_values_that_do_not_fit_together_name_the_file() -> None:
    @dataclass(frozen=True)
    class Pair:
        low: int
        high: int

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    with pytest.raises(ValueError, match=r"a\.json: low is above high"):
        typed(Pair, {"low": 2, "high": 1}, "a.json")
