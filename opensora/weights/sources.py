"""Find the weights of a model in a file, a model folder, a checkpoint, or a training run."""

from pathlib import Path
from typing import Any

from opensora.config_files import read_settings
from opensora.files import hash_file
from opensora.weights.checkpoints import MANIFEST, latest_checkpoint
from opensora.weights.files import TensorFile, WeightsError, WeightsFile
from opensora.weights.mindspore_file import MindSporeFile
from opensora.weights.torch_file import LEGACY, ZIP, TorchFile

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
STEMS = ("diffusion_pytorch_model", "model")
TRAINED_TOGETHER = {
    "ema.safetensors": "text_encoder_ema.safetensors",
    "model.safetensors": "text_encoder.safetensors",
}
"""The file of a checkpoint with the text encoder that was trained together with the weights in another."""
PYTORCH_STEMS = {"model": "pytorch_model"}  # the .bin of a text encoder


def open_file(path: str | Path) -> WeightsFile:
    """A reader for a file of weights, chosen by its suffix and first bytes. Raises WeightsError."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise _no_weights(path)
    if path.suffix == ".safetensors" or not path.is_file():
        return TensorFile(path)
    with open(path, "rb") as file:
        start = file.read(len(LEGACY))
    # The suffix .ckpt is used by PyTorch and by MindSpore.
    if path.suffix == ".ckpt" and not start.startswith((ZIP, LEGACY)):
        return MindSporeFile(path)
    return TorchFile(path)


def weight_files(source: str | Path, stem: str = "diffusion_pytorch_model") -> list[Path]:
    """The files with the weights of `source`, which need not exist. Raises WeightsError if it is no model.

    source: one of
        a file
        a model folder with `<stem>.safetensors`, `<stem>.bin`, shards and their index, or one .ckpt file
        a checkpoint of a run: its moving average, or else its weights
        a run: its newest complete checkpoint
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
    if (source / MANIFEST).is_file():
        average = source / "ema.safetensors"
        return [average if average.is_file() else source / "model.safetensors"]
    for name in (f"{stem}.safetensors", f"{PYTORCH_STEMS.get(stem, stem)}.bin"):
        if (source / name).is_file():
            return [source / name]
        if (source / f"{name}.index.json").is_file():
            return _shards(source / f"{name}.index.json", Path(name).suffix)
    converted = list(source.glob("*.ckpt"))
    if len(converted) == 1:
        return converted  # the layout of the published version
    return [source / f"{stem}.safetensors"]


def config_folder(source: Path) -> Path | None:
    """The folder with the config.json of a run or of a part; of a checkpoint it is its run's."""
    folder = source if source.is_dir() else source.parent
    places = [folder, folder.parents[1]] if (folder / MANIFEST).is_file() else [folder]
    return next((place for place in places if (place / "config.json").is_file()), None)


def trained_text_encoder(source: str | Path) -> Path | None:
    """The weights of the text encoder that a run trained with the transformer in `source`, if it did.

    source: as for `weight_files`.
    """
    weights = weight_files(source)[0]
    path = weights.with_name(TRAINED_TOGETHER.get(weights.name, MANIFEST))
    found = path.name != MANIFEST and path.is_file() and (path.parent / MANIFEST).is_file()
    return path if found else None


def folder_files(folder: Path) -> list[WeightsFile]:
    """Readers for the weights in the folder of any model; empty if there are none.

    Raises WeightsError for a missing shard.
    """
    for stem in STEMS:
        paths = weight_files(folder, stem)
        if any(path.is_file() for path in paths):
            return [open_file(path) for path in paths]
    return []


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises WeightsError for any other content."""
    try:
        return read_settings(path)
    except ValueError as error:
        raise WeightsError(str(error)) from error


def require_folder(folder: Path) -> None:
    """Raise WeightsError if the folder does not exist."""
    if folder.is_file():
        raise _no_weights(folder)
    if not folder.is_dir():
        raise WeightsError(
            f"model folder {folder} does not exist: check the path, or download the model first"
        )


def _no_weights(path: Path) -> WeightsError:
    return WeightsError(f"{path} is not a file of weights: name one that ends in {', '.join(SUFFIXES)}")


def _shards(index: Path, suffix: str) -> list[Path]:
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise WeightsError(f"{index} has no weight_map: download it again")
    for name in names.values():
        if not (isinstance(name, str) and Path(name).name == name and name.endswith(suffix)):
            raise WeightsError(
                f"{index} names {name!r:.80}, which is not a file of its own folder: "
                "download it again from a place you trust"
            )
    return [index.parent / name for name in sorted(set(names.values()))]


def hash_folder(folder: Path, stem: str = "diffusion_pytorch_model") -> dict[str, str]:
    """sha256, by name, of the files in a model folder that define the model."""
    files = folder / "config.json", folder / "spiece.model", *weight_files(folder, stem)
    return {path.name: hash_file(path) for path in files if path.is_file()}
