"""`opensora presets`: list the packaged presets."""

from dataclasses import dataclass

from opensora.cli.config import packaged_presets, preset_header

POSITIONAL = None


@dataclass(frozen=True, kw_only=True)
class PresetsOptions:
    """Options of `opensora presets`: none."""


OPTIONS = PresetsOptions


def run(options: PresetsOptions) -> None:
    """Print each preset's name and header: its command, expected time, memory and result."""
    for name, file in packaged_presets().items():
        print("\n    ".join([name, *preset_header(file)]), end="\n\n")
