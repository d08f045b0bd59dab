"""Convert released weights, or those of a run, to the release's layout or to MindSpore's .ckpt."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opensora.files import write_atomic
from opensora.models.formats import FORMATS, WITHOUT_CONFIG, find_format
from opensora.models.output_folder import OutputFolder, output_folder
from opensora.weights import (
    Arrays,
    ModelFolder,
    WeightsError,
    config_folder,
    find_model,
    load_config,
    save_config,
    save_tensors,
    trained_text_encoder,
)
from opensora.weights.mindspore_file import write_checkpoint
from opensora.weights.names import mindspore_name
from opensora.weights.sources import SUFFIXES, read_object
from opensora.weights.vae_2d import open_vae_2d

log = logging.getLogger(__name__)

Change = Callable[[dict[str, Any], Arrays], Arrays]
# Small files of a text encoder and of a whole model, copied as they are.
TOKENIZER = ("spiece.model", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json")
PARTS = ("transformer", "vae", "text_encoder")
DESCRIPTION = ("generate.yaml", "data_set.json")


@dataclass(frozen=True)
class Conversion:
    """Options of `opensora convert`, which explains them.

    base: a model folder, or "demo", whose other parts are copied. overwrite: replace existing files.
    change: applied to an autoencoder's configuration and weights before they are written.
    """

    to: str | None = None
    dtype: str = "float32"
    model_config: str | None = None
    version: str | None = None
    change: Change | None = None
    base: str | None = None
    overwrite: bool = False


def convert(source: Path, target: Path, how: Conversion) -> None:
    """Write the weights of `source` to `target`: all files, or none. Raises WeightsError.

    source: a file, a model folder or one of its parts, a checkpoint or a run. target: a file, the folder of
    one part, or a model folder that already has the part's config.json; with `how.base`, a new model folder.
    """
    root = target.parent if target.suffix in SUFFIXES else target
    with output_folder(root, how.overwrite) as output:
        _convert(source, target, how, output)


def _convert(source: Path, target: Path, how: Conversion, output: OutputFolder, alone: bool = True) -> None:
    parts = sorted(path.parent for path in source.glob("*/config.json")) if source.is_dir() else []
    if parts and not (source / "config.json").is_file():
        if target.suffix in SUFFIXES or how.base is not None:
            raise WeightsError(
                f"{source} holds several parts, {', '.join(part.name for part in parts)}: "
                "name a folder for --target, without --base"
            )
        for part in parts:
            _convert(part, target / part.name, how, output, alone=False)
        _copy(DESCRIPTION, source, target, output)
        return
    kind = find_format(source)
    trained_with = trained_text_encoder(source) if kind == "transformer" and source.is_dir() else None
    if how.base is not None:
        _copy_base(kind, source, target, how, output, trained_with)
        return
    whole = target.suffix not in SUFFIXES and (target / "vae" / "config.json").is_file()
    if whole and kind == "vae_2d" and (source / "config.json").is_file():
        _write_image_autoencoder(source, find_model(target, how.version).vae, how, output)
        return
    place = _place(kind, find_model(target, how.version)) if whole else target
    if alone and trained_with is None:  # of several files, some may be those of a conversion that was killed
        output.refuse(_file(kind, source, place, ".ckpt" if _to_mindspore(place, how) else ".safetensors"))
    _write(kind, source, place, how, output)
    if trained_with is not None:
        text_encoder = target / "text_encoder"
        if whole and text_encoder.is_dir():
            _write("text_encoder", trained_with, text_encoder, how, output)
        else:
            log.info("the text encoder in %s was left out: convert that file by itself", trained_with)


def _write_image_autoencoder(source: Path, place: Path, how: Conversion, output: OutputFolder) -> None:
    """Make a folder of an autoencoder of images that of a model, whose videos it decodes frame by frame."""
    if how.to == "mindspore":
        raise WeightsError("--to mindspore writes single files: name one for --target")
    output.refuse(place / "config.json")
    weights = open_vae_2d(source)
    path = place / f"{FORMATS['vae'].stem}.safetensors"
    shutil.copyfile(source / "config.json", output.place(place / "config.json"))
    save_tensors(output.place(path), weights, how.dtype)
    log.info("%s: %s, %d tensors, from %s", path, FORMATS["vae_2d"].title, len(weights), source)


def _copy_base(
    kind: str, source: Path, target: Path, how: Conversion, output: OutputFolder, trained_with: Path | None
) -> None:
    """Make a whole model folder from that of `how.base`, with `source` as the weights of its kind."""
    assert how.base is not None
    if target.suffix in SUFFIXES or kind not in PARTS:
        raise WeightsError(
            "--base makes a model folder: name a folder for --target, and for --src weights of a "
            f"{' or '.join(PARTS)}"
        )
    base = find_model(how.base, how.version)
    sources = {kind: source} if trained_with is None else {kind: source, "text_encoder": trained_with}
    places = {part: _place(part, base) for part in PARTS}
    for part, place in places.items():
        if not place.is_dir():
            continue
        final = target / place.name if place.parent == base.path else target / part
        for path in sorted(place.iterdir()):
            new = part in sources and (path.suffix in SUFFIXES or path.name.endswith(".index.json"))
            own = part == kind and path.name == "config.json" and config_folder(source) is not None
            if path.is_file() and not new and not own:
                shutil.copyfile(path, output.place(final / path.name))
        if part in sources:
            known = (
                replace(how, model_config=str(place))
                if part != kind or config_folder(source) is None
                else how
            )
            _write(part, sources[part], final, known, output)
    _copy(DESCRIPTION, base.path, target, output)


def _place(kind: str, folder: ModelFolder) -> Path:
    if kind in WITHOUT_CONFIG:
        raise WeightsError(
            f"{folder.path} is a model folder and has no {FORMATS[kind].title}: name a file for --target"
        )
    part = "transformer" if kind == "latte_class" else kind
    return Path(getattr(folder, part) or folder.path / "text_encoder")


def _to_mindspore(target: Path, how: Conversion) -> bool:
    return how.to == "mindspore" or (how.to is None and target.suffix == ".ckpt")


def _write(kind: str, source: Path, target: Path, how: Conversion, output: OutputFolder) -> None:
    to_mindspore = _to_mindspore(target, how)
    if target.suffix in SUFFIXES and target.suffix != (".ckpt" if to_mindspore else ".safetensors"):
        raise WeightsError(
            f"--target {target} has another ending than its format: "
            "use .ckpt for MindSpore, .safetensors for PyTorch"
        )
    if to_mindspore and how.dtype != "float32":
        raise WeightsError(f"--dtype {how.dtype} cannot be written as .ckpt: leave it out")
    config, known = _config(kind, source, target, how)
    path = _file(kind, source, target, ".ckpt" if to_mindspore else ".safetensors")
    try:
        tensors = FORMATS[kind].open(source, config)
    except WeightsError as error:
        raise (
            error
            if known
            else WeightsError(f"{error}, or name the folder of its config.json with --model_config")
        ) from None
    weights: Arrays = how.change(config, tensors) if kind == "vae" and how.change is not None else tensors
    place = output.place(path)
    if to_mindspore:
        rename = str if kind in WITHOUT_CONFIG else mindspore_name
        write_atomic(place, lambda file: write_checkpoint(file, weights, rename))
    else:
        save_tensors(place, weights, how.dtype)
        if path != target and kind not in WITHOUT_CONFIG:
            if not output.has(target / "config.json"):
                save_config(place.parent, config)
            if kind == "text_encoder":
                _copy(TOKENIZER, source if source.is_dir() else source.parent, target, output)
    log.info("%s: %s, %d tensors, from %s", path, FORMATS[kind].title, len(weights), source)


def _file(kind: str, source: Path, target: Path, suffix: str) -> Path:
    """The file to write: the target, or one in the target folder."""
    if target.suffix in SUFFIXES:
        return target
    released = suffix == ".safetensors" and kind not in WITHOUT_CONFIG
    return target / f"{FORMATS[kind].stem if released else source.stem}{suffix}"


def _config(kind: str, source: Path, target: Path, how: Conversion) -> tuple[dict[str, Any], bool]:
    """The configuration of the weights, and whether it was found; otherwise it is that of the release."""
    if kind in WITHOUT_CONFIG:
        return {}, True
    if how.model_config is not None:
        path = Path(how.model_config)
        if how.base is None and (target / "config.json").is_file():
            raise WeightsError(
                f"{target} has a config.json already: leave --model_config out, or choose another --target"
            )
        return (load_config(path) if not path.is_file() else read_object(path)), True
    for folder in (target, config_folder(source)):
        if folder is not None and (folder / "config.json").is_file():
            return load_config(folder), True
    log.info("%s has no config.json: assuming that of the released %s", source, FORMATS[kind].title)
    return FORMATS[kind].release_config(source), False


def _copy(names: tuple[str, ...], source: Path, target: Path, output: OutputFolder) -> None:
    for name in names:
        if (source / name).is_file() and not output.has(target / name):
            shutil.copyfile(source / name, output.place(target / name))
