"""Command-line words and YAML files become a dataclass of options."""

import logging
import re
import types
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError

from opensora.cli.config import Names, is_list, read_options
from opensora.cli.help import make_parser
from opensora.cli.published import Answers, Ignored
from opensora.options import option_groups, required_options

log = logging.getLogger(__name__)

T = TypeVar("T")

TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
TYPE_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}


def parse(
    options: type[T],
    words: Sequence[str],
    command: str,
    summary: str,
    positional: str | None = None,
    answers: Answers | None = None,
) -> T | None:
    """Parse `words` into a dataclass of options; None after printing the help.

    A word is `--name value`, `--name=value`, `--name` alone for a boolean, `--name a b c` for a list, or an
    item of the list option `positional`. `--config` names a YAML file or a packaged preset such as
    train/vae-9; options on the command line override it, and the later of several files wins.
    opensora/options.py explains groups of options.

    The class may have ALIASES, from a name in the published version to the name here. answers: the fate of
    the published version's other options (opensora/cli/published.py). Raises ValueError for an unknown
    option, a value of the wrong type, or a file that cannot be read.
    """
    kinds = get_type_hints(options)
    kinds = {item.name: kinds[item.name] for item in fields(options)}  # type: ignore[arg-type]
    if any(word in ("-h", "--help") for word in words):
        make_parser(options, command, summary, positional, kinds).print_help()
        return None
    groups = {group.name: group.names for group in option_groups(options)}
    names = Names(kinds | {"config": str}, groups, getattr(options, "ALIASES", {}), answers or {})
    given, configs = _read_words(words, names, command, positional)
    values: dict[str, Any] = {}
    for config in configs:
        values |= read_options(config, names, command)
    values = _without_ignored(values | given, names)
    missing = required_options(options) - set(values)
    if missing:
        name = min(missing, key=list(kinds).index)
        raise ValueError(f"option {name} is required: write --{name} VALUE, see {command} --help")
    parser = make_parser(options, command, summary, positional, kinds)  # takes a second
    try:
        checked = parser.parse_object(deepcopy(values))
    except ArgumentError as error:
        raise ValueError(_explain(error, values, kinds)) from error
    return options(**{name: checked[name] for name in kinds})


def _read_words(
    words: Sequence[str], names: Names, command: str, positional: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Values by name, and the configuration files in order."""
    values: dict[str, Any] = {}
    configs: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if re.match("-[a-zA-Z]", word):
            raise ValueError(f"option {word} is unknown: options start with two dashes, see {command} --help")
        if not word.startswith("--"):
            if positional is None:
                raise ValueError(
                    f"unexpected word {word!r}: {command} takes only --options, see {command} --help"
                )
            values.setdefault(positional, []).append(word)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        name = names.find(name, "option --")
        kind = names.kind(name)
        if equals:
            values[name] = [value] if is_list(kind) else value
        elif kind is bool:
            values[name] = rest.pop(0) if rest and rest[0].lower() in TRUTH else "true"
        elif is_list(kind):
            count = next((i for i, item in enumerate(rest) if item.startswith("--")), len(rest))
            values.setdefault(name, []).extend(rest[:count])
            del rest[:count]
        elif rest and not rest[0].startswith("--"):
            values[name] = rest.pop(0)
        else:
            raise ValueError(f"option --{name} has no value: write one after it, as in --{name}=VALUE")
        if kind is bool:
            values[name] = TRUTH.get(values[name].lower(), values[name])
        if name == "config":
            configs.append(values.pop(name))
    return values, configs


def _without_ignored(values: dict[str, Any], names: Names) -> dict[str, Any]:
    """Drop ignored flags of the published version, and log each. ValueError for values with an effect."""
    kept = {}
    for name, value in values.items():
        answer = names.replaced.get(name)
        if not isinstance(answer, Ignored):
            kept[name] = value
        elif answer.only and str(value).lower() not in answer.only:
            raise ValueError(f"option {name} {value} is the published version's: {answer.why}")
        else:
            log.info("--%s has no effect: %s", name, answer.why)
    return kept


def _explain(error: ArgumentError, values: dict[str, Any], kinds: dict[str, Any]) -> str:
    """One sentence instead of the library's paragraph."""
    match = re.search(r'Parser key "([^"]+)"', str(error))
    if match is None or match.group(1) not in values:
        return " ".join(str(error).split())
    name = match.group(1)
    return f"option {name} is {values[name]!r}, but it must be {_describe(kinds[name])}"


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_describe(item) for item in get_args(kind) if item is not type(None))
    return "a list" if is_list(kind) else TYPE_NAMES.get(kind, str(kind))
