"""Convert released weights, or those of a run, to the release's layout or to MindSpore's .ckpt."""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opensora.files import write_atomic
from opensora.models.formats import FORMATS, WITHOUT_CONFIG, find_format
from opensora.weights import (
    ModelFolder,
    WeightsError,
    find_model,
    load_config,
    save_config,
    save_tensors,
    trained_text_encoder,
)
from opensora.weights.mindspore_file import write_checkpoint
from opensora.weights.names import mindspore_name
from opensora.weights.sources import SUFFIXES, read_object

log = logging.getLogger(__name__)

Weights = Mapping[str, np.ndarray]
Change = Callable[[dict[str, Any], Weights], Weights]
# Small files of a text encoder and of a whole model, copied as they are.
TOKENIZER = ("spiece.model", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json")
DESCRIPTION = ("generate.yaml", "data_set.json")


@dataclass(frozen=True)
class Conversion:
    """Options of `opensora convert`, which explains them.

    change: applied to an autoencoder's configuration and weights before they are written.
    """

    to: str | None = None
    dtype: str = "float32"
    model_config: str | None = None
    version: str | None = None
    change: Change | None = None


def convert(source: Path, target: Path, how: Conversion) -> None:
    """Write the weights of `source` to `target`. Existing files are not overwritten. Raises WeightsError.

    source: a file, a model folder or one of its parts, a checkpoint or a run. target: a file, the folder of
    one part, or a model folder that already has the part's config.json.
    """
    parts = sorted(path.parent for path in source.glob("*/config.json")) if source.is_dir() else []
    if parts and not (source / "config.json").is_file():
        if target.suffix in SUFFIXES:
            raise WeightsError(
                f"{source} holds several parts, {', '.join(part.name for part in parts)}: "
                "name a folder for --target"
            )
        for part in parts:
            convert(part, target / part.name, how)
        _copy(DESCRIPTION, source, target)
        return
    kind = find_format(source)
    whole = target.suffix not in SUFFIXES and (target / "vae" / "config.json").is_file()
    _write(kind, source, _place(kind, find_model(target, how.version)) if whole else target, how)
    trained_with = trained_text_encoder(source) if kind == "transformer" and source.is_dir() else None
    if trained_with is not None:
        text_encoder = target / "text_encoder"
        if whole and text_encoder.is_dir():
            _write("text_encoder", trained_with, text_encoder, how)
        else:
            log.info("the text encoder in %s was left out: convert that file by itself", trained_with)


def _place(kind: str, folder: ModelFolder) -> Path:
    if kind in WITHOUT_CONFIG:
        raise WeightsError(
            f"{folder.path} is a model folder and has no {FORMATS[kind].title}: name a file for --target"
        )
    return Path(getattr(folder, kind) or folder.path / "text_encoder")


def _write(kind: str, source: Path, target: Path, how: Conversion) -> None:
    to_mindspore = how.to == "mindspore" or (how.to is None and target.suffix == ".ckpt")
    if target.suffix in SUFFIXES and target.suffix != (".ckpt" if to_mindspore else ".safetensors"):
        raise WeightsError(
            f"--target {target} has another ending than its format: "
            "use .ckpt for MindSpore, .safetensors for PyTorch"
        )
    if to_mindspore and how.dtype != "float32":
        raise WeightsError(f"--dtype {how.dtype} cannot be written as .ckpt: leave it out")
    config, known = _config(kind, source, target, how.model_config)
    path = _file(kind, source, target, ".ckpt" if to_mindspore else ".safetensors")
    if path.exists():
        raise WeightsError(f"{path} exists: choose another --target, or remove it first")
    try:
        tensors = FORMATS[kind].open(source, config)
    except WeightsError as error:
        raise (
            error
            if known
            else WeightsError(f"{error}, or name the folder of its config.json with --model_config")
        ) from None
    weights: Weights = how.change(config, tensors) if kind == "vae" and how.change is not None else tensors
    path.parent.mkdir(parents=True, exist_ok=True)
    if to_mindspore:
        rename = str if kind in WITHOUT_CONFIG else mindspore_name
        write_atomic(path, lambda file: write_checkpoint(file, weights, rename))
    else:
        save_tensors(path, weights, how.dtype)
        if path != target and kind not in WITHOUT_CONFIG:
            if not (target / "config.json").exists():
                save_config(target, config)
            if kind == "text_encoder":
                _copy(TOKENIZER, source if source.is_dir() else source.parent, target)
    log.info("%s: %s, %d tensors, from %s", path, FORMATS[kind].title, len(weights), source)


def _file(kind: str, source: Path, target: Path, suffix: str) -> Path:
    """The file to write: the target, or one in the target folder."""
    if target.suffix in SUFFIXES:
        return target
    released = suffix == ".safetensors" and kind not in WITHOUT_CONFIG
    return target / f"{FORMATS[kind].stem if released else source.stem}{suffix}"


def _config(kind: str, source: Path, target: Path, model_config: str | None) -> tuple[dict[str, Any], bool]:
    """The configuration of the weights, and whether it was found; otherwise it is that of the release."""
    if kind in WITHOUT_CONFIG:
        return {}, True
    if model_config is not None:
        path = Path(model_config)
        if (target / "config.json").is_file():
            raise WeightsError(
                f"{target} has a config.json already: leave --model_config out, or choose another --target"
            )
        return (load_config(path) if not path.is_file() else read_object(path)), True
    for folder in (target, source if source.is_dir() else source.parent):
        if (folder / "config.json").is_file():
            return load_config(folder), True
    log.info("%s has no config.json: assuming that of the released %s", source, FORMATS[kind].title)
    return FORMATS[kind].release_config(), False


def _copy(names: tuple[str, ...], source: Path, target: Path) -> None:
    for name in names:
        if (source / name).is_file() and not (target / name).exists():
            shutil.copyfile(source / name, target / name)
