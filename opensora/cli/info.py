"""`opensora info demo`: what a model folder holds, read from the headers of its files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from opensora.weights import TensorFile, WeightsError, load_config
from opensora.weights.folder import DEMO

POSITIONAL = "model_path"


@dataclass(frozen=True)
class InfoOptions:
    """Options of `opensora info`."""

    model_path: list[str] = field(default_factory=lambda: ["demo"])
    """Model folders in the release's layout, or parts of them; "demo" is the model that ships."""


OPTIONS = InfoOptions


def run(options: InfoOptions) -> None:
    for name in options.model_path:
        print("\n".join(describe(DEMO if name == "demo" else Path(name))))


def describe(folder: Path) -> Iterator[str]:
    """Lines about every part of a model folder. Raises WeightsError where there is none, or for a damaged file."""
    parts = [folder] if (folder / "config.json").is_file() else sorted(path.parent for path in folder.glob("*/config.json"))
    if not parts:
        raise WeightsError(f"{folder} is no model folder: it needs config.json, or folders that have one")
    for part in parts:
        yield _describe_part(part)
    data_set = folder / "data_set.json"
    if data_set.is_file():
        content = json.loads(data_set.read_text(encoding="utf-8"))
        yield f"subjects: {', '.join(content['subjects'])}"
        yield f"colours: {', '.join(content['colours'])}"


def _describe_part(folder: Path) -> str:
    config = load_config(folder)
    files = [TensorFile(path) for path in sorted(folder.glob("*.safetensors"))]
    entries = [entry for file in files for entry in file.entries.values()]
    kind = config.get("_class_name") or (config.get("architectures") or ["model"])[0]
    count = sum(prod(entry.shape) for entry in entries)
    size = sum(file.path.stat().st_size for file in files) / 2**20
    stored = ", ".join(sorted({entry.dtype for entry in entries})) or "no .safetensors file"
    return f"{folder}: {kind}, {count:,} parameters in {len(entries)} tensors, {size:.1f} MiB ({stored})"
