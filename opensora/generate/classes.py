"""Options of `opensora generate-class`, checked and completed before MindSpore is imported."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from opensora.checks import at_least, at_most, within
from opensora.config_files import ranges
from opensora.diffusion import make_sampler
from opensora.files import check_writable
from opensora.generate.enhance_options import EnhanceOptions, check_enhancement, check_frames
from opensora.media.formats import VideoFormat
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.geometry import Strides
from opensora.models.latte_class.config import LatteClassConfig
from opensora.models.latte_class.weights import find_config
from opensora.pipeline.labels import find_label
from opensora.pipeline.options import (
    InferenceDeviceOptions,
    SamplerOptions,
    VAEOptions,
    VideoSizeOptions,
    check_device_options,
    choose_vae_policy,
)
from opensora.pipeline.settings import Sampling
from opensora.weights import CONFIG, WeightsError, load_config
from opensora.weights.folder import find_autoencoder, in_cache

ORIGINAL = ("ddpm", "ddim")
"""Sample methods of the original, which take the learned variance; see `pipeline.classes.sample_original`."""
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class LabelChoiceOptions:
    """Classes."""

    GROUP: ClassVar[str] = "classes"
    label: list[str] = field(default_factory=list)
    """Classes by name or number, or "all"; default: a class drawn at random for each video."""
    num_videos_per_label: int = 1
    """Number of videos per class, each with its own seed; of an unconditional model the number of videos."""


@dataclass(frozen=True, kw_only=True)
class ClassModelPathOptions:
    """Model."""

    GROUP: ClassVar[str] = "model"
    model_path: str
    """Model folder or run with config.json, or a published file (ucf101.pt)."""
    ae_path: str | None = None
    """Folder of the autoencoder, or a model folder that has one, or "demo"; default: model_path/vae."""


@dataclass(frozen=True, kw_only=True)
class ClassSamplingOptions(VideoSizeOptions, SamplerOptions):
    """Sampling."""

    GROUP: ClassVar[str] = "sampling"
    num_sampling_steps: int = 50
    """Number of sampling steps."""
    guidance_scale: float = 4.0
    """Classifier-free guidance scale; 1 disables it, above 1 every step takes two forwards."""
    sample_method: str = "DPM++2M"
    """Sampler, such as DPM++2M, PNDM, DDIM; or ddpm or ddim, the original's, with the learned variance."""
    image_size: int | None = None
    """Height and width in pixels at once."""
    seed: int = 0
    """Seed of the first video; video n of a run has seed + n."""


@dataclass(frozen=True, kw_only=True)
class ClassOutputOptions:
    """Output."""

    GROUP: ClassVar[str] = "output"
    save_img_path: str = "sample_videos"
    """Output folder."""
    format: VideoFormat = "mp4"
    """File format of videos; png: a folder of images for each video."""
    fps: int = 10
    """Frames per second of the file."""


@dataclass(frozen=True, kw_only=True)
class GenerateClassOptions(
    LabelChoiceOptions,
    ClassModelPathOptions,
    ClassSamplingOptions,
    ClassOutputOptions,
    EnhanceOptions,
    VAEOptions,
    InferenceDeviceOptions,
):
    """Options of `opensora generate-class`. Sizes that are None are those of the training."""

    ALIASES: ClassVar[dict[str, str]] = {
        "ckpt": "model_path",
        "ae": "ae_path",
        "cfg_scale": "guidance_scale",
        "num_sample": "num_videos_per_label",
        "save_video_path": "save_img_path",
        "class_name": "label",
        "labels": "label",
    }


@dataclass(frozen=True)
class ClassJob:
    """A checked request.

    labels: of the videos in order; 0 for an unconditional model. transformer: its folder, run or file.
    """

    options: GenerateClassOptions
    transformer: Path
    vae: Path
    config: LatteClassConfig
    labels: list[int]
    sampling: Sampling
    vae_policy: VAEPolicy


def prepare(options: GenerateClassOptions) -> ClassJob:
    """Check the options and complete them from the model. ValueError names option and remedy."""
    at_least(options, 1, "num_videos_per_label")
    at_most(options, 2**16, "num_videos_per_label")
    check_device_options(options)
    check_enhancement(options)
    policy = choose_vae_policy(options, options.device)
    transformer = _transformer(in_cache(options.model_path))
    config = find_config(transformer)
    vae = find_autoencoder(options.ae_path or options.model_path)
    vae_config = CausalVAEConfig.from_dict(load_config(vae), vae / CONFIG)
    if vae_config.embed_dim != config.in_channels:
        raise ValueError(
            f"the autoencoder {vae} has {vae_config.embed_dim} latent channels, but the model takes "
            f"{config.in_channels}: name the one that it was trained with, with --ae_path"
        )
    sampling = _sampling(options, config, vae_config.strides)
    check_frames(options, sampling.num_frames)
    check_writable(Path(options.save_img_path), "save_img_path")
    return ClassJob(options, transformer, vae, config, _labels(options, config), sampling, policy)


def _transformer(path: Path) -> Path:
    """The folder, run or file of the transformer. Raises WeightsError for a folder with none or several."""
    if path.is_file() or (path / CONFIG).is_file():
        return path
    if not path.is_dir():
        raise WeightsError(f"model_path {path} does not exist: check the path")
    inside = [item.parent for item in sorted(path.glob(f"*/{CONFIG}")) if item.parent.name != "vae"]
    if len(inside) != 1:
        found = ", ".join(folder.name for folder in inside) or "none"
        raise WeightsError(
            f"model_path {path} must have a config.json or one folder with it beside vae, and has {found}: "
            "name the folder of the transformer"
        )
    return inside[0]


def _labels(options: GenerateClassOptions, config: LatteClassConfig) -> list[int]:
    count = options.num_videos_per_label
    if not config.num_classes:
        for word in options.label:
            find_label(config, word)  # raises: an unconditional model has none
        return [0] * count
    if not options.label:
        rng = np.random.default_rng(options.seed)
        return [int(label) for label in rng.integers(config.num_classes, size=count)]
    if ALL in options.label and ALL not in config.class_names:
        if len(options.label) > 1:
            raise ValueError(f"label {ALL} names every class: leave out the others")
        chosen = list(range(config.num_classes))
    else:
        chosen = [find_label(config, word) for word in options.label]
    return [label for label in chosen for _ in range(count)]


def _sampling(options: GenerateClassOptions, config: LatteClassConfig, strides: Strides) -> Sampling:
    """The complete settings. Raises ValueError for values that the model cannot sample."""
    native = strides.pixel_size((config.video_length, *config.sample_size))
    given = (
        options.num_frames,
        options.height or options.image_size,
        options.width or options.image_size,
    )
    frames, height, width = (
        default if value is None else value for value, default in zip(given, native, strict=True)
    )
    sampling = Sampling(
        num_frames=frames,
        height=height,
        width=width,
        fps=options.fps,
        num_sampling_steps=options.num_sampling_steps,
        guidance_scale=options.guidance_scale,
        sample_method=options.sample_method,
        seed=options.seed,
    )
    for name, limits in ranges(Sampling).items():
        within(sampling, limits.low, limits.high, name)
    multiple = strides.space * config.patch_size
    for name in ("height", "width"):
        value = getattr(sampling, name)
        if value % multiple:
            near = max(round(value / multiple), 1) * multiple
            raise ValueError(
                f"{name} {value} is not a multiple of {multiple} ({strides.space} of the autoencoder times "
                f"patches of {config.patch_size}): use {near}"
            )
    if sampling.sample_method not in ORIGINAL:
        make_sampler(sampling.sample_method, sampling.num_sampling_steps)
    return sampling
