"""Which files hold a model's weights: a file of any kind, a model folder, a checkpoint of a run, or the run."""

import json
from pathlib import Path
from typing import Any

from opensora.files import hash_file
from opensora.weights.files import TensorFile, WeightsError, WeightsFile
from opensora.weights.mindspore_file import MindSporeFile
from opensora.weights.torch_file import LEGACY, ZIP, TorchFile

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
STEMS = ("diffusion_pytorch_model", "model")
PYTORCH_STEMS = {"model": "pytorch_model"}  # what a text encoder's .bin is called


def open_file(path: str | Path) -> WeightsFile:
    """The reader for a file of weights: its ending and its first bytes tell which. Raises WeightsError."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path} is not a file of weights: name one that ends in {', '.join(SUFFIXES)}")
    if path.suffix == ".safetensors" or not path.is_file():
        return TensorFile(path)
    with open(path, "rb") as file:
        start = file.read(len(LEGACY))
    # PyTorch and MindSpore share the ending .ckpt.
    return (
        TorchFile(path) if path.suffix != ".ckpt" or start.startswith((ZIP, LEGACY)) else MindSporeFile(path)
    )


def weight_files(source: str | Path, stem: str = "diffusion_pytorch_model") -> list[Path]:
    """The files that hold the weights of `source`; some may not exist. Raises WeightsError for a source that is no model.

    source: a file; a model folder with `<stem>.safetensors` or `.bin`, or shards and their index, or one .ckpt; a checkpoint folder
    of a run (its moving average, or its weights where it has none); or a run folder (its newest complete checkpoint).
    """
    source = Path(source)
    if source.suffix in SUFFIXES and not source.is_dir():
        return [source]
    require_folder(source)
    if (source / "checkpoints").is_dir():
        checkpoint = latest_checkpoint(source)
        if checkpoint is None:
            raise WeightsError(
                f"run folder {source} has no complete checkpoint: train until it has one, or check the path"
            )
        source = checkpoint
    if (source / "manifest.json").is_file():
        average = source / "ema.safetensors"
        return [average if average.is_file() else source / "model.safetensors"]
    for name in (f"{stem}.safetensors", f"{PYTORCH_STEMS.get(stem, stem)}.bin"):
        if (source / name).is_file():
            return [source / name]
        if (source / f"{name}.index.json").is_file():
            return _shards(source / f"{name}.index.json", Path(name).suffix)
    converted = list(source.glob("*.ckpt"))
    if len(converted) == 1:
        return converted  # where the published MindSpore version looks
    return [source / f"{stem}.safetensors"]


def folder_files(folder: Path) -> list[WeightsFile]:
    """Readers of the weights in a folder of a model of any kind, none where it has none. Raises WeightsError for a missing shard."""
    for stem in STEMS:
        paths = weight_files(folder, stem)
        if any(path.is_file() for path in paths):
            return [open_file(path) for path in paths]
    return []


def latest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run folder, or None where it has none."""
    for folder in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        if (folder / "manifest.json").is_file():
            return folder
    return None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises WeightsError for any other content."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not valid JSON ({error}): download or save it again") from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} holds a {type(content).__name__} instead of an object: download or save it again"
        )
    return content


def require_folder(folder: Path) -> None:
    """Raises WeightsError where there is no such folder."""
    if not folder.is_dir():
        raise WeightsError(
            f"model folder {folder} does not exist: check the path, or download the model first"
        )


def _shards(index: Path, suffix: str) -> list[Path]:
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise WeightsError(f"{index} has no weight_map: download it again")
    for name in names.values():
        if not (isinstance(name, str) and Path(name).name == name and name.endswith(suffix)):
            raise WeightsError(
                f"{index} names {name!r:.80}, which is not a file of its own folder: download it again from a place you trust"
            )
    return [index.parent / name for name in sorted(set(names.values()))]


def hash_folder(folder: Path, stem: str = "diffusion_pytorch_model") -> dict[str, str]:
    """sha256 of every file in a model's folder that determines it, by name."""
    files = folder / "config.json", folder / "spiece.model", *weight_files(folder, stem)
    return {path.name: hash_file(path) for path in files if path.is_file()}
