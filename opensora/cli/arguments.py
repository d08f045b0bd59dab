"""Command-line words and a YAML file become one dataclass of options; jsonargparse checks the types and writes the help."""

import logging
import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from opensora.cli.published import Answers, Ignored
from opensora.weights.folder import did_you_mean

log = logging.getLogger(__name__)

T = TypeVar("T")

TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
PRESETS = Path(__file__).parent.parent / "presets"


def parse(
    options: type[T],
    words: Sequence[str],
    command: str,
    summary: str,
    positional: str | None = None,
    answers: Answers | None = None,
) -> T | None:
    """The options that `words` ask for, or None after printing the help.

    A word is `--name value`, `--name=value`, `--name` alone for a truth value, `--name a b c` for a list, or belongs to the
    list `positional`. `--config file.yaml` gives values under the same names, which words override; where there is no such file,
    it names a packaged preset, such as train/vae-9; of several files the later wins. Options of a nested dataclass are
    `--outer.name`. Raises ValueError for an unknown name, a value of another type, or a file that cannot be read.

    The class may have ALIASES, from the published version's name of an option to the name here. answers: from a published name that
    is no option here to what became of it (opensora/cli/published.py).
    """
    kinds = dict(_kinds(options))
    parser = _parser(options, command, summary, positional, kinds)
    if any(word in ("-h", "--help") for word in words):
        parser.print_help()
        return None
    replaced = {name: answer for name, answer in (answers or {}).items() if name not in kinds}
    names = Names(kinds | {"config": str}, getattr(options, "ALIASES", {}), replaced)
    given, configs = _read_words(words, names, command, positional)
    values: dict[str, Any] = {}
    for config in configs:
        values |= _read_config(config, names)
    values = _without_ignored(values | given, names)
    nested = Namespace()
    for name, value in values.items():
        nested[name] = value
    try:
        checked = parser.parse_object(nested.as_dict())
    except ArgumentError as error:
        raise ValueError(_explain(error, values, kinds)) from error
    result: T = _build(options, checked)
    return result


@dataclass(frozen=True)
class Names:
    """The options by name with their types, and what the published version calls or called some of them."""

    kinds: dict[str, Any]
    aliases: dict[str, str]
    replaced: Answers

    def find(self, name: str, what: str) -> str:
        """The option that `name` means, one that is ignored included. Raises ValueError, which begins with `what`, where there is none."""
        name = self.aliases.get(name, name)
        if name in self.kinds or isinstance(self.replaced.get(name), Ignored):
            return name
        if name in self.replaced:
            raise ValueError(f"{what}{name} is the published version's: {self.replaced[name]}")
        raise ValueError(f"{what}{name} is unknown{did_you_mean(name, self.kinds)}; --help lists them all")

    def kind(self, name: str) -> Any:
        answer = self.replaced.get(name)
        return answer.kind if isinstance(answer, Ignored) else self.kinds[name]


def _kinds(options: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of every option of a tree of dataclasses."""
    hints = get_type_hints(options)
    for item in fields(options):
        kind = hints[item.name]
        if is_dataclass(kind):
            assert isinstance(kind, type)
            yield from _kinds(kind, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, kind


def _parser(
    options: type, command: str, summary: str, positional: str | None, kinds: dict[str, Any]
) -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    usage = (
        f"{command} [{positional} ...] [--option value ...]"
        if positional
        else f"{command} [--option value ...]"
    )
    parser = ArgumentParser(
        prog=command, usage=usage, description=f"{summary[0].upper()}{summary[1:]}.", exit_on_error=False
    )
    # Read by `_read_config`; declared here for the help only.
    help_text = "Options from a file or a packaged preset such as train/vae-9, under the same names; the command line wins."
    parser.add_argument("--config", metavar="FILE.yaml", help=help_text)
    parser.add_class_arguments(options)
    for action in parser._actions:
        if _is_list(kinds.get(action.dest)):
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
            values[name] = [value] if _is_list(kind) else value
        elif kind is bool:
            values[name] = rest.pop(0) if rest and rest[0].lower() in TRUTH else "true"
        elif _is_list(kind):
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


def _read_config(name: str, names: Names) -> dict[str, Any]:
    """The options in a YAML file or in a packaged preset, nested or dotted, under dotted names."""
    presets = {file.relative_to(PRESETS).with_suffix("").as_posix(): file for file in PRESETS.rglob("*.yaml")}
    path = Path(name) if Path(name).is_file() else presets.get(name)
    if path is None:
        hint = did_you_mean(name, presets)
        raise ValueError(
            f"configuration file {name} does not exist{hint}: check the path after --config, or name a packaged preset"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"configuration file {path} is not valid YAML ({error}): correct it") from error
    if not isinstance(content, dict | None):
        raise ValueError(
            f"configuration file {path} holds a {type(content).__name__}: write one `option: value` a line"
        )
    where = f"configuration file {path}: option "
    values = {names.find(name, where): value for name, value in _flatten(content or {}, names.kinds)}
    return {
        name: [value] if _is_list(names.kind(name)) and isinstance(value, str) else value
        for name, value in values.items()
    }


def _flatten(content: dict[Any, Any], kinds: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in kinds:
            yield from _flatten(value, kinds, f"{name}.")
        else:
            yield name, value


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
    return "a list" if _is_list(kind) else KINDS.get(kind, str(kind))


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (list, tuple)


def _build(options: type, checked: Namespace) -> Any:
    hints = get_type_hints(options)
    values = {item.name: checked[item.name] for item in fields(options)}
    return options(
        **{
            name: _build(hints[name], value) if is_dataclass(hints[name]) else value
            for name, value in values.items()
        }
    )
