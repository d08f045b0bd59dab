"""`opensora info demo`: describe a model folder and estimate what a video costs, from file headers alone."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

from opensora.checks import at_least
from opensora.config_files import read_settings, typed
from opensora.console import memory_text, operations_text, say, time_text
from opensora.engine import resolve_engine
from opensora.engine.rates import measure_rates
from opensora.generate.cost import Cost, TrainingCost, cost, training_cost
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.causal_vae.tiling import Tiling
from opensora.models.latte.config import UNUSED_CAPTION
from opensora.models.latte_class import cost as latte_class_cost
from opensora.models.latte_class.config import LatteClassConfig, is_latte_class
from opensora.models.spec import ModelSpec
from opensora.models.t5.config import TIED_EMBEDDING
from opensora.pipeline.options import SamplerOptions, VideoSizeOptions
from opensora.pipeline.settings import Sampling, complete_sampling
from opensora.weights import CONFIG, WeightsError, load_config
from opensora.weights.folder import DEMO
from opensora.weights.sources import folder_files

POSITIONAL = "model_path"
# In released files: a buffer that no forward reads, the autoencoder's loss, and the second name of T5's
# embedding.
NO_PARAMETERS = (UNUSED_CAPTION[0], "loss.", TIED_EMBEDDING)


@dataclass(frozen=True)
class NetworkName:
    """The fields of a config.json that name the network."""

    _class_name: str | None = None
    architectures: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DemoNames:
    """The part of a demo model's data_set.json that is shown, by name."""

    subjects: dict[str, Any]
    colours: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class InfoModelOptions:
    """Model."""

    GROUP: ClassVar[str] = "model"
    model_path: list[str] = field(default_factory=lambda: ["demo"])
    """Model folders in the release's layout, or their subfolders; "demo" is the packaged model."""
    version: str | None = None
    """Subfolder of the transformer; default: all of them."""
    text_encoder_name: str | None = None
    """Folder of the T5 encoder; default: model_path/text_encoder."""


@dataclass(frozen=True, kw_only=True)
class InfoSamplingOptions(SamplerOptions, VideoSizeOptions):
    """Sampling (defaults come from the model folder)."""

    GROUP: ClassVar[str] = "sampling"
    weights_dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision in which the transformer's weights are kept in memory."""


@dataclass(frozen=True, kw_only=True)
class TrainingStepOptions:
    """Training step. Raises ValueError for values out of range."""

    GROUP: ClassVar[str] = "training"
    use_image_num: int = 0
    """Images per clip."""
    sp_size: int = 1
    """Processes that split the frames of a clip."""
    num_no_recompute: int = 0
    """Layers that keep their activations for the backward pass."""
    enable_tiling: bool = False
    """Encode in tiles, as the reference does."""
    tile_overlap_factor: float = 0.25
    """Overlap of neighbouring tiles, as a fraction of their size."""

    def __post_init__(self) -> None:
        at_least(self, 0, "use_image_num", "num_no_recompute")
        at_least(self, 1, "sp_size")


@dataclass(frozen=True, kw_only=True)
class InfoOutputOptions:
    """Output."""

    GROUP: ClassVar[str] = "output"
    device: Literal["CPU", "Ascend"] = "CPU"
    """Device to estimate for; time is estimated on this machine's CPU only."""
    engine: Literal["auto", "mindspore", "openvino"] = "auto"
    """Engine to estimate for; auto: OpenVINO if it is installed."""
    json: bool = False
    """Print one JSON object per folder."""


@dataclass(frozen=True, kw_only=True)
class InfoOptions(InfoModelOptions, InfoSamplingOptions, TrainingStepOptions, InfoOutputOptions):
    """Options of `opensora info`."""


OPTIONS = InfoOptions


def run(options: InfoOptions) -> None:
    for name in options.model_path:
        content = describe(DEMO if name == "demo" else Path(name), options)
        for line in [json.dumps(content)] if options.json else _lines(content):
            say(line)


def describe(folder: Path, options: InfoOptions) -> dict[str, Any]:
    """The models in a folder, and the cost of a video for each transformer if the folder is a whole model.

    Raises WeightsError for a folder without models or with a damaged file, ValueError for invalid sampling
    options.
    """
    models = sorted(path.parent for path in folder.glob("*/config.json"))
    if (folder / "config.json").is_file():
        models = [folder]
    if not models:
        raise WeightsError(f"{folder} is not a model folder: it has no config.json, nor a subfolder with one")
    whole = folder / "vae" in models
    if options.version is not None and not whole:
        raise WeightsError(f"{folder} is not a whole model: for --version, name the folder that holds vae/")
    versions = [model.name for model in models if model.name not in ("vae", "text_encoder")]
    if options.version is not None:
        versions = [options.version]
    elsewhere = [] if options.text_encoder_name is None else [Path(options.text_encoder_name)]
    content: dict[str, Any] = {
        "folder": str(folder),
        "parts": [_part(model) for model in (*models, *elsewhere)],
        "videos": [],
        "classes": [],
    }
    for version in versions if whole else []:
        if (folder / version / CONFIG).is_file() and is_latte_class(load_config(folder / version)):
            content["classes"].append(_class_video(folder, version, options))
        else:
            content["videos"].append(_video(folder, version, options))
    data_set = folder / "data_set.json"
    if data_set.is_file():
        known = typed(DemoNames, read_settings(data_set), data_set)
        content |= {"subjects": list(known.subjects), "colours": list(known.colours)}
    return content


def _part(folder: Path) -> dict[str, Any]:
    config, files = load_config(folder), folder_files(folder)
    network = typed(NetworkName, config, folder / CONFIG)
    entries = {name: entry for file in files for name, entry in file.entries.items()}
    parameters = [entry for name, entry in entries.items() if not name.startswith(NO_PARAMETERS)]
    return {
        "folder": str(folder),
        "kind": network._class_name or (*(network.architectures or ()), "model")[0],
        "parameters": sum(prod(entry.shape) for entry in parameters),
        "tensors": len(entries),
        "bytes": sum(file.path.stat().st_size for file in files),
        "stored": sorted({entry.dtype for entry in entries.values()}),
    }


def _video(folder: Path, version: str, options: InfoOptions) -> dict[str, Any]:
    """Settings and cost of a video of the transformer `version`; `seconds` is None except on a CPU."""
    spec = ModelSpec.find(folder, version, options.text_encoder_name)
    given = {item.name: getattr(options, item.name, None) for item in fields(Sampling)}
    sampling = complete_sampling(spec, **given)
    engine = resolve_engine(options.engine) if options.device == "CPU" else "mindspore"
    policy = VAEPolicy.choose(options.device, engine=engine)
    expected = cost(spec, sampling, policy, weights_dtype=options.weights_dtype)
    step = training_cost(
        spec,
        sampling,
        num_images=options.use_image_num,
        processes=options.sp_size,
        num_no_recompute=options.num_no_recompute,
        tiling=Tiling(overlap=options.tile_overlap_factor) if options.enable_tiling else None,
    )
    rates = measure_rates(engine) if options.device == "CPU" else None
    return {
        "version": version,
        **asdict(sampling),
        "latents": spec.latent_shape(sampling.size),
        "text_encoder": spec.text_encoder is not None,
        **asdict(expected),
        "training_step": asdict(step),
        "engine": None if rates is None else engine,
        "matrix_rate": None if rates is None else rates.products,
        "convolution_rate": None if rates is None else rates.convolutions,
        "seconds": None if rates is None else expected.seconds(engine, rates),
    }


def _class_video(folder: Path, version: str, options: InfoOptions) -> dict[str, Any]:
    """Operations and memory of a video of a class-conditional Latte."""
    config = LatteClassConfig.from_dict(load_config(folder / version), folder / version / CONFIG)
    strides = CausalVAEConfig.from_dict(load_config(folder / "vae"), folder / "vae" / CONFIG).strides
    native = strides.pixel_size((config.video_length, *config.sample_size))
    sizes = zip(("num_frames", "height", "width"), native, strict=True)
    pixels = {name: getattr(options, name) or default for name, default in sizes}
    multiple = strides.space * config.patch_size
    for name in ("height", "width"):
        if pixels[name] % multiple:
            raise ValueError(f"{name} {pixels[name]} is not a multiple of {multiple}: choose one")
    latents = strides.latent_size(tuple(pixels.values()))
    return {
        "version": version,
        **pixels,
        "latents": [config.in_channels, *latents],
        "num_classes": config.num_classes,
        "class_names": list(config.class_names),
        "forward_flops": latte_class_cost.forward_flops(config, latents),
        "activation_bytes": latte_class_cost.activation_bytes(config, latents),
        "training_step": latte_class_cost.step_flops(
            config, latents, num_images=options.use_image_num, num_no_recompute=options.num_no_recompute
        ),
        "training_bytes": latte_class_cost.training_bytes(config, latents, options.use_image_num),
    }


def _class_lines(video: dict[str, Any]) -> Iterator[str]:
    latents = "x".join(map(str, video["latents"][1:]))
    yield (
        f"{video['version']}, a video of {video['num_frames']} frames, {video['height']}x{video['width']}, "
        f"latents {latents}:"
    )
    names = f": {', '.join(video['class_names'])}" if video["class_names"] else ""
    yield f"  {video['num_classes']} classes{names}" if video["num_classes"] else "  unconditional"
    forward, step = operations_text(video["forward_flops"]), operations_text(video["training_step"])
    memory, training = memory_text(video["activation_bytes"]), memory_text(video["training_bytes"])
    yield f"  one forward: {forward}; activations with guidance: about {memory}"
    yield f"  training step on such a clip: {step}, at least {training} more memory"


def _lines(content: dict[str, Any]) -> Iterator[str]:
    for part in content["parts"]:
        stored = ", ".join(part["stored"]) or "no weights"
        size = f"{part['bytes'] / 2**20:.1f} MiB ({stored})"
        parameters = f"{part['parameters']:,} parameters in {part['tensors']} tensors"
        yield f"{part['folder']}: {part['kind']}, {parameters}, {size}"
    for video in content["videos"]:
        yield from _video_lines(video)
    for video in content["classes"]:
        yield from _class_lines(video)
    for name in ("subjects", "colours"):
        if name in content:
            yield f"{name}: {', '.join(content[name])}"


def _video_lines(video: dict[str, Any]) -> Iterator[str]:
    expected = Cost(**{item.name: video[item.name] for item in fields(Cost)})
    latents = "x".join(map(str, video["latents"][1:]))
    yield (
        f"{video['version']}, a video of {video['num_frames']} frames, {video['height']}x{video['width']}, "
        f"latents {latents}:"
    )
    forward, step = operations_text(expected.forward_flops), operations_text(expected.step_flops)
    yield f"  one forward: {forward} ({step} per sampling step, with the text's keys and values cached)"
    total = operations_text(sum(expected.stage_flops.values()))
    stages = ", ".join(f"{name} {operations_text(count)}" for name, count in expected.stage_flops.items())
    steps = f"{video['num_sampling_steps']} steps of {video['sample_method']}"
    forwards = (
        f"{expected.num_steps} evaluations, {'two forwards' if expected.guided else 'one forward'} each"
    )
    yield f"  {steps}, {forwards}: {total} ({stages})"
    resident, staged = memory_text(expected.memory_resident), memory_text(expected.memory_staged)
    yield f"  memory: about {resident} with all models loaded, {staged} with one at a time"
    if video["seconds"] is None:
        yield "  time: not measured on this device"
    else:
        time, rate = time_text(video["seconds"]), operations_text(video["matrix_rate"])
        yield (
            f"  time: about {time} on this CPU with {video['engine']} "
            f"(an estimate; its matrix products reach {rate}/s now)"
        )
    yield f"  training step on such a clip: {_step_text(TrainingCost(**video['training_step']))}"
    if not video["text_encoder"]:
        yield "  without the text encoder, which is not in this folder: set --text_encoder_name"


def _step_text(step: TrainingCost) -> str:
    text = f"encoding {operations_text(step.encode)}, transformer {operations_text(step.transformer)}"
    if step.encode == step.encode_whole:
        return text
    return f"{text} per process, {step.saved:.3g} times less than if each process encoded the whole clip"
