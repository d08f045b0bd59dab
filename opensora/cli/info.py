"""`opensora info demo`: what a model folder holds, read from the headers of its files, and what its videos take."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from math import prod
from pathlib import Path
from typing import Any, Literal

from opensora.console import memory_text, operations_text, time_text
from opensora.generate.cost import Cost, TrainingCost, cost, matrix_rate, training_cost
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.causal_vae.tiling import Tiling
from opensora.models.latte.config import UNUSED_CAPTION
from opensora.models.spec import ModelSpec
from opensora.models.t5.config import TIED_EMBEDDING
from opensora.pipeline.settings import Sampling, complete_sampling
from opensora.weights import WeightsError, load_config
from opensora.weights.folder import DEMO
from opensora.weights.sources import folder_files

POSITIONAL = "model_path"
# In published files: a buffer that no forward reads, what trained the autoencoder, and the second name of T5's embedding.
NO_PARAMETERS = (UNUSED_CAPTION[0], "loss.", TIED_EMBEDDING)


@dataclass(frozen=True)
class InfoOptions:
    """Options of `opensora info`. Sizes and sampling are the model's own unless they are given."""

    model_path: list[str] = field(default_factory=lambda: ["demo"])
    """Model folders in the release's layout, or parts of them; "demo" is the model that ships."""
    version: str | None = None
    """Folder of the transformer inside model_path; default: all of them."""
    text_encoder_name: str | None = None
    """Folder of the T5 encoder; default: model_path/text_encoder."""
    num_frames: int | None = None
    """Frames of a video."""
    height: int | None = None
    """Height in pixels."""
    width: int | None = None
    """Width in pixels."""
    num_sampling_steps: int | None = None
    """Steps of the sampler."""
    sample_method: str | None = None
    """Sampler, such as PNDM or DPM++2M."""
    guidance_scale: float | None = None
    """Guidance; above 1 every evaluation of the network is two forwards."""
    weights_dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """How the transformer's weights are kept in memory."""
    use_image_num: int = 0
    """Pictures beside each clip in a training step."""
    sp_size: int = 1
    """Processes that share the frames of a clip in a training step."""
    num_no_recompute: int = 0
    """Layers that keep what they compute for the backward pass of a training step."""
    enable_tiling: bool = False
    """Count a training step that encodes in tiles, as the reference does."""
    tile_overlap_factor: float = 0.25
    """Part of a tile that overlaps its neighbour."""
    device: Literal["CPU", "Ascend"] = "CPU"
    """Where to compute; times are estimated for this machine's CPU only."""
    json: bool = False
    """Print one JSON object a folder instead of lines."""

    def __post_init__(self) -> None:
        for name, least in (("use_image_num", 0), ("sp_size", 1), ("num_no_recompute", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is too small: use {least} or more")


OPTIONS = InfoOptions


def run(options: InfoOptions) -> None:
    for name in options.model_path:
        content = describe(DEMO if name == "demo" else Path(name), options)
        print(json.dumps(content) if options.json else "\n".join(_lines(content)))


def describe(folder: Path, options: InfoOptions) -> dict[str, Any]:
    """Every part of a model folder, and the cost of a video for each of its transformers if the folder is a whole model.

    Raises WeightsError where there is no model or a file is damaged, ValueError for what it cannot sample.
    """
    parts = (
        [folder]
        if (folder / "config.json").is_file()
        else sorted(path.parent for path in folder.glob("*/config.json"))
    )
    if not parts:
        raise WeightsError(f"{folder} is no model folder: it needs config.json, or folders that have one")
    versions = (
        [part.name for part in parts if part.name not in ("vae", "text_encoder")]
        if options.version is None
        else [options.version]
    )
    whole = folder not in parts and folder / "vae" in parts
    if options.version is not None and not whole:
        raise WeightsError(
            f"{folder} is no whole model, so --version has no meaning: name the folder that holds vae/"
        )
    beside = [] if options.text_encoder_name is None else [Path(options.text_encoder_name)]
    content: dict[str, Any] = {"folder": str(folder), "parts": [_part(part) for part in (*parts, *beside)]}
    content["videos"] = [_video(folder, version, options) for version in versions] if whole else []
    data_set = folder / "data_set.json"
    if data_set.is_file():
        known = json.loads(data_set.read_text(encoding="utf-8"))
        content |= {"subjects": known["subjects"], "colours": known["colours"]}
    return content


def _part(folder: Path) -> dict[str, Any]:
    config, files = load_config(folder), folder_files(folder)
    entries = {name: entry for file in files for name, entry in file.entries.items()}
    parameters = [entry for name, entry in entries.items() if not name.startswith(NO_PARAMETERS)]
    return {
        "folder": str(folder),
        "kind": config.get("_class_name") or (config.get("architectures") or ["model"])[0],
        "parameters": sum(prod(entry.shape) for entry in parameters),
        "tensors": len(entries),
        "bytes": sum(file.path.stat().st_size for file in files),
        "stored": sorted({entry.dtype for entry in entries.values()}),
    }


def _video(folder: Path, version: str, options: InfoOptions) -> dict[str, Any]:
    """One video of the transformer `version`: how it is sampled and what it takes; `seconds` is None where nothing was measured."""
    spec = ModelSpec.find(folder, version, options.text_encoder_name)
    sampling = complete_sampling(
        spec, **{item.name: getattr(options, item.name, None) for item in fields(Sampling)}
    )
    found = cost(spec, sampling, VAEPolicy.choose(options.device), weights_dtype=options.weights_dtype)
    shared = {
        "num_images": options.use_image_num,
        "processes": options.sp_size,
        "num_no_recompute": options.num_no_recompute,
    }
    tiling = Tiling(overlap=options.tile_overlap_factor) if options.enable_tiling else None
    step = training_cost(spec, sampling, **shared, tiling=tiling)
    rate = matrix_rate() if options.device == "CPU" else None
    return {
        "version": version,
        **asdict(sampling),
        "text_encoder": spec.text_encoder is not None,
        **asdict(found),
        "training_step": asdict(step),
        "matrix_rate": rate,
        "seconds": None if rate is None else found.seconds(rate),
    }


def _lines(content: dict[str, Any]) -> Iterator[str]:
    for part in content["parts"]:
        stored = ", ".join(part["stored"]) or "no weights"
        size = f"{part['parameters']:,} parameters in {part['tensors']} tensors, {part['bytes'] / 2**20:.1f} MiB ({stored})"
        yield f"{part['folder']}: {part['kind']}, {size}"
    for video in content["videos"]:
        yield from _video_lines(video)
    for name in ("subjects", "colours"):
        if name in content:
            yield f"{name}: {', '.join(content[name])}"


def _video_lines(video: dict[str, Any]) -> Iterator[str]:
    found = Cost(**{item.name: video[item.name] for item in fields(Cost)})
    yield f"{video['version']}, a video of {video['num_frames']} frames, {video['height']}x{video['width']}:"
    yield (
        f"  one forward: {operations_text(found.forward_flops)} ({operations_text(found.step_flops)} while sampling, where what depends on the "
        "text alone is computed once)"
    )
    forwards = "two forwards each" if found.guided else "one forward each"
    total = operations_text(sum(found.stage_flops.values()))
    stages = ", ".join(f"{name} {operations_text(count)}" for name, count in found.stage_flops.items())
    steps = f"{video['num_sampling_steps']} steps of {video['sample_method']}, {found.num_steps} evaluations, {forwards}"
    yield f"  {steps}: {total} ({stages})"
    yield f"  memory: about {memory_text(found.memory_resident)} with all parts loaded, {memory_text(found.memory_staged)} one part after the other"
    if video["seconds"] is None:
        yield "  time: not measured on this device"
    else:
        rate = operations_text(video["matrix_rate"])
        yield f"  time: about {time_text(video['seconds'])} on this CPU, whose matrix products reach {rate}/s now; an estimate"
    yield f"  a training step on such a clip: {_step_text(TrainingCost(**video['training_step']))}"
    if not video["text_encoder"]:
        yield "  without the text encoder, which is not in this folder: name T5's with --text_encoder_name"


def _step_text(step: TrainingCost) -> str:
    text = f"encoding {operations_text(step.encode)}, transformer {operations_text(step.transformer)}"
    if step.encode == step.encode_whole:
        return text
    return (
        f"{text} on each process that shares it, {step.saved:.3g} times less than if each encoded all of it"
    )
