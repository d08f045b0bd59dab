"""Configuration files: JSON and YAML, read within limits and checked by type and range."""

from opensora.config_files.reading import parse_json, parse_yaml, read_json, read_settings, shown
from opensora.config_files.typed import Length, Range, checked, ranges, typed

__all__ = [
    "Length",
    "Range",
    "checked",
    "parse_json",
    "parse_yaml",
    "ranges",
    "read_json",
    "read_settings",
    "shown",
    "typed",
]
