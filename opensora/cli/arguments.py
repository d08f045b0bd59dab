"""Command-line words and YAML files become a dataclass of options; jsonargparse checks types and writes the help."""

import logging
import re
import types
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from opensora.cli.config import Names, is_list, read_config
from opensora.cli.published import Answers, Ignored
from opensora.options import option_groups, required_options

log = logging.getLogger(__name__)

T = TypeVar("T")

TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def parse(
    options: type[T],
    words: Sequence[str],
    command: str,
    summary: str,
    positional: str | None = None,
    answers: Answers | None = None,
) -> T | None:
    """Parse `words` into a dataclass of options; None after printing the help.

    A word is `--name value`, `--name=value`, `--name` alone for a boolean, `--name a b c` for a list, or an item of the
    list option `positional`. `--config` names a YAML file or a packaged preset such as train/vae-9; options on the
    command line override it, and the later of several files wins. opensora/options.py explains groups of options.

    The class may have ALIASES, from a name in the published version to the name here. answers: what became of the
    published version's other options (opensora/cli/published.py).
    Raises ValueError for an unknown option, a value of the wrong type, or a file that cannot be read.
    """
    kinds = get_type_hints(options)
    kinds = {item.name: kinds[item.name] for item in fields(options)}  # type: ignore[arg-type]
    parser = _parser(options, command, summary, positional, kinds)
    if any(word in ("-h", "--help") for word in words):
        parser.print_help()
        return None
    replaced = {name: answer for name, answer in (answers or {}).items() if name not in kinds}
    groups = {group.name: group.names for group in option_groups(options)}
    names = Names(kinds | {"config": str}, groups, getattr(options, "ALIASES", {}), replaced)
    given, configs = _read_words(words, names, command, positional)
    values: dict[str, Any] = {}
    for config in configs:
        values |= read_config(config, names, command)
    values = _without_ignored(values | given, names)
    missing = required_options(options) - set(values)
    if missing:
        name = min(missing, key=list(kinds).index)
        raise ValueError(f"option {name} is required: write --{name} VALUE, see {command} --help")
    try:
        checked = parser.parse_object(deepcopy(values))
    except ArgumentError as error:
        raise ValueError(_explain(error, values, kinds)) from error
    return options(**{name: checked[name] for name in kinds})


def _parser(
    options: type, command: str, summary: str, positional: str | None, kinds: dict[str, Any]
) -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    words = f"[{positional} ...] " if positional else ""
    parser = ArgumentParser(
        prog=command,
        usage=f"{command} {words}[--option value ...]",
        description=f"{summary[0].upper()}{summary[1:]}.",
        exit_on_error=False,
    )
    # Read by `read_config`; declared here for the help only.
    help_text = (
        "YAML file or packaged preset (see `opensora presets`); options on the command line override it."
    )
    parser.add_argument("--config", metavar="FILE.yaml", help=help_text)
    for group in option_groups(options):
        section = parser.add_argument_group(group.title)
        section.add_class_arguments(options, as_group=False, skip=set(kinds) - set(group.names))
        section._group_actions.sort(key=lambda action: group.names.index(action.dest))
    for action in parser._actions:
        if is_list(kinds.get(action.dest)):
            action.option_strings, action.metavar = [f"--{action.dest}"], "A B ..."
    return parser


def _read_words(
    words: Sequence[str], names: Names, command: str, positional: str | None
) -> tuple[dict[str, Any], list[str]]:
    """(values by name, configuration files in order)."""
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
                    f"{word!r} stands without an option: {command} takes only --options, see {command} --help"
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
    """The values of options. A line for each that is accepted and changes nothing; ValueError where it would have to change something."""
    kept = {}
    for name, value in values.items():
        answer = names.replaced.get(name)
        if not isinstance(answer, Ignored):
            kept[name] = value
        elif answer.only and str(value).lower() not in answer.only:
            raise ValueError(f"option {name} {value} is the published version's: {answer.why}")
        else:
            log.info("--%s changes nothing here: %s", name, answer.why)
    return kept


def _explain(error: ArgumentError, values: dict[str, Any], kinds: dict[str, Any]) -> str:
    """One sentence instead of the library's paragraph."""
    found = re.search(r'Parser key "([^"]+)"', str(error))
    if found is None or found.group(1) not in values:
        return str(error)
    name = found.group(1)
    return f"option {name} is {values[name]!r}, but it must be {_describe(kinds[name])}"


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_describe(item) for item in get_args(kind) if item is not type(None))
    return "a list" if is_list(kind) else KINDS.get(kind, str(kind))
