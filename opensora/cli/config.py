"""Configuration files: YAML of options, flat or nested by group, from a path or packaged as a preset."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, get_origin

from opensora.cli.published import Answers, Elsewhere, Ignored
from opensora.config_files import read_settings
from opensora.weights.folder import did_you_mean

PRESETS = Path(__file__).parent.parent / "presets"


@dataclass(frozen=True)
class Names:
    """The names a command knows: options with their types, groups, and names of the published version."""

    kinds: dict[str, Any]
    groups: dict[str, list[str]]
    aliases: dict[str, str]
    replaced: Answers

    def find(self, name: str, what: str) -> str:
        """The option called `name`, or an ignored flag. Raises ValueError, whose text begins with `what`."""
        name = self.aliases.get(name, name)
        if name in self.kinds or isinstance(self.replaced.get(name), Ignored):
            return name
        if isinstance(self.replaced.get(name), Elsewhere):
            raise ValueError(f"{what}{name} is unknown: {self.replaced[name]}")
        if name in self.replaced:
            raise ValueError(f"{what}{name} is the published version's: {self.replaced[name]}")
        raise ValueError(
            f"{what}{name} is unknown{did_you_mean(name, [*self.kinds, *self.groups])}; --help lists them all"
        )

    def kind(self, name: str) -> Any:
        answer = self.replaced.get(name)
        return answer.kind if isinstance(answer, Ignored) else self.kinds[name]


def is_list(kind: Any) -> bool:
    return get_origin(kind) in (list, tuple)


def packaged_presets() -> dict[str, Path]:
    """Name, such as train/vae-9, and file of every packaged preset."""
    files = sorted(PRESETS.rglob("*.yaml"))
    return {file.relative_to(PRESETS).with_suffix("").as_posix(): file for file in files}


def preset_header(file: Path) -> list[str]:
    """The comment that opens a preset: its command, then expected time, memory and result."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("#"), lines)]


def read_options(name: str, names: Names, command: str) -> dict[str, Any]:
    """The options in a YAML file or packaged preset. Raises ValueError for a preset of another command."""
    presets = packaged_presets()
    path = Path(name)
    if not path.is_file():
        if name not in presets:
            raise ValueError(
                f"configuration file {name} does not exist{did_you_mean(name, presets)}: "
                "check the path after --config, or choose one of `opensora presets`"
            )
        path = presets[name]
        intended = " ".join(preset_header(path)[0].split()[:2])
        if intended != command:
            raise ValueError(
                f"preset {name} is for `{intended}`, not for `{command}`: use it with that command"
            )
    try:
        content = read_settings(path, yaml=True)
    except ValueError as error:
        raise ValueError(f"configuration file {error}") from error
    values = dict(_flatten(content, names, f"configuration file {path}: option "))
    return {
        name: [value] if is_list(names.kind(name)) and isinstance(value, str) else value
        for name, value in values.items()
    }


def _flatten(content: dict[str, Any], names: Names, where: str) -> Iterator[tuple[str, Any]]:
    """Options and values of a file, whether they stand at its top or in the sections of their groups."""
    for key, value in content.items():
        if key not in names.groups or not isinstance(value, dict):
            yield names.find(key, where), value
            continue
        for inner, item in value.items():
            name = names.find(inner, where)
            home = next((group for group, members in names.groups.items() if name in members), key)
            if home != key:
                raise ValueError(f"{where}{name} belongs in the section {home}, not in {key}")
            yield name, item
