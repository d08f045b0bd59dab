"""The parser of a command, made from its dataclass of options: it checks types and prints the help."""

from argparse import SUPPRESS, Action
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from opensora.cli.config import is_list
from opensora.options import option_groups

CONFIG_HELP = (
    "YAML file or packaged preset (see `opensora presets`); options on the command line override it."
)


class HelpFormatter(DefaultHelpFormatter):
    """Help texts with the default where there is one, without types."""

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        if action.required:
            return f"{text} [required]"
        if action.default is None or action.default is False or action.default in ("", [], SUPPRESS):
            return text
        return f"{text} [default: %(default)s]"


def make_parser(
    options: type, command: str, summary: str, positional: str | None, kinds: dict[str, Any]
) -> ArgumentParser:
    """A parser for a dataclass of options, with a section in the help for each of its groups.

    positional: the list option that takes words without a name. kinds: types of the options by name.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    words = f"[{positional} ...] " if positional else ""
    parser = ArgumentParser(
        prog=command,
        usage=f"{command} {words}[--option value ...]",
        description=f"{summary[0].upper()}{summary[1:]}.",
        exit_on_error=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help=CONFIG_HELP)  # read by `read_options`
    for group in option_groups(options):
        section = parser.add_argument_group(group.title)
        section.add_class_arguments(options, as_group=False, skip=set(kinds) - set(group.names))
        section._group_actions.sort(key=lambda action: group.names.index(action.dest))
    for action in parser._actions:
        kind = kinds.get(action.dest)
        if is_list(kind):
            action.option_strings, action.metavar = [f"--{action.dest}"], "A B ..."
        elif kind in (int, int | None, float, float | None):
            action.metavar = "N"
    return parser
