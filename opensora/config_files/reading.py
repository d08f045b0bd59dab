"""Reading configuration files: JSON and YAML of plain values.

A file is small, has no aliases and no deep nesting, and holds finite numbers only, so that reading it takes
little time and memory whatever it contains.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from opensora.console import printable, shortened

MAX_JSON_BYTES = 2**24
MAX_YAML_BYTES = 2**18
"""PyYAML reads about 100 kB a second."""
MAX_DEPTH = 40
MAX_INTEGER = 2**63 - 1
MAX_ITEMS_SHOWN = 8  # of a list in a message


def read_settings(path: str | Path, *, yaml: bool | None = None) -> dict[str, Any]:
    """The object in a JSON or YAML file; an empty YAML file holds {}.

    yaml: True for YAML, False for JSON; by default the suffix decides. Raises ValueError for a file
    that is missing, too large or damaged, or holds something else.
    """
    path = Path(path)
    yaml = path.suffix in (".yaml", ".yml") if yaml is None else yaml
    text = _read_text(path, MAX_YAML_BYTES if yaml else MAX_JSON_BYTES)
    content = parse_yaml(text, path) if yaml else parse_json(text, path)
    if yaml and content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__} instead of an object of names and values: "
            "download or save it again"
        )
    return content


def read_json(path: str | Path) -> Any:
    """The plain value in a JSON file. Raises ValueError as `read_settings` does."""
    return parse_json(_read_text(Path(path), MAX_JSON_BYTES), path)


def parse_json(text: str, where: object) -> Any:
    """The plain value in a JSON text. `where` names its place in errors.

    Raises ValueError for text that is not JSON, and for values beyond the limits of this module.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{where} is not valid JSON ({reason}): download or save it again") from error
    _check_plain(value, where)
    return value


def parse_yaml(text: str, where: object) -> Any:
    """The plain value in a YAML text; dates are texts. `where` names its place in errors.

    Raises ValueError for text that is not YAML, for aliases and tags, and for values beyond the limits of
    this module.
    """
    try:
        value = yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{where} is not valid YAML ({printable(_yaml_reason(error))}): correct it"
        ) from error
    _check_plain(value, where)
    return value


def shown(value: object) -> str:
    """A value of a file as it stands in messages: printable, and short however large it is."""
    if isinstance(value, dict | list | tuple):
        nested = isinstance(value, dict) or any(isinstance(item, dict | list | tuple) for item in value)
        if not nested and len(value) <= MAX_ITEMS_SHOWN:
            return f"[{', '.join(map(shown, value))}]"
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)} items"
    if isinstance(value, str):
        return printable(repr(shortened(value)))
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of more than 77 digits"
    return repr(value)


def _read_text(path: Path, limit: int) -> str:
    if not path.is_file():
        raise ValueError(f"{path} does not exist or is not a file: check the path")
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path} is larger than {limit:,} bytes, which no such file is: check the path")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: download or save it again") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _check_plain(value: Any, where: object) -> None:
    """Require values within the limits, without recursion: the value may be nested as deeply as it likes."""
    level = [value]
    for _ in range(MAX_DEPTH):
        for item in level:
            if isinstance(item, float) and not math.isfinite(item):
                raise ValueError(f"{where} holds the number {item}: write a finite one")
            if isinstance(item, int) and abs(item) > MAX_INTEGER:
                raise ValueError(f"{where} holds {shown(item)}: write a number of at most 18 digits")
        level = list(_items(level))
        if not level:
            return
    raise ValueError(f"{where} is nested more than {MAX_DEPTH} levels deep: download or save it again")


def _items(level: list[Any]) -> Iterator[Any]:
    for item in level:
        if isinstance(item, dict):
            yield from item.values()
        elif isinstance(item, list):
            yield from item


def _yaml_reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, which let a small file describe a huge value, and without tags and dates."""

    depth = 0
    yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML reads it from the class
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _fault("aliases (*name) are not supported, write the value out", event)
        if getattr(event, "tag", None) is not None:
            raise _fault("tags (!name) are not supported, write the plain value", event)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _fault("it is nested too deeply", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        """Names are texts, and each stands once."""
        content: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _fault("a name is not a text", key)
            if key.value in content:
                raise _fault(f"{key.value} is set twice", key)
            content[key.value] = self.construct_object(value, deep=True)
        return content


def _fault(problem: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)
