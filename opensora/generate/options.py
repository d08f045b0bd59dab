"""Options of `opensora generate`, checked and completed before MindSpore is imported."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar, Literal

from opensora.checks import at_least, at_most
from opensora.data.text.prompts import read_prompts
from opensora.files import check_writable
from opensora.generate.enhance_options import EnhanceOptions, check_enhancement, check_frames
from opensora.media.formats import VideoFormat
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.spec import ModelSpec
from opensora.options import JobOptions
from opensora.pipeline.options import (
    InferenceDeviceOptions,
    PipelineModelOptions,
    SamplerOptions,
    VAEOptions,
    VideoSizeOptions,
    check_device_options,
    choose_vae_policy,
)
from opensora.pipeline.settings import Sampling, complete_sampling, has_own_defaults
from opensora.weights import WeightsError

RELEASE_HINT = (
    "sampling with the reference's settings, 150 steps of PNDM; "
    "--sample_method DPM++2M --num_sampling_steps 20 takes about an eighth of the time"
)


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """Prompt."""

    GROUP: ClassVar[str] = "prompt"
    text_prompt: list[str] = field(default_factory=list)
    """Prompts, files of prompts (.txt, .csv, .tsv, .json, .jsonl), or - for the standard input."""
    negative_prompt: str = ""
    """Content that the videos should not show."""


@dataclass(frozen=True, kw_only=True)
class GenerateModelOptions(PipelineModelOptions):
    """Model."""

    GROUP: ClassVar[str] = "model"
    weights_dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision in which the transformer's weights are kept in memory; blocks still compute in fp32. 16 bits
    halve the memory and round the weights."""


@dataclass(frozen=True, kw_only=True)
class GenerateSamplingOptions(SamplerOptions, VideoSizeOptions):
    """Sampling (defaults come from the model folder)."""

    GROUP: ClassVar[str] = "sampling"
    seed: int | None = None
    """Seed of the first video; video n of a run has seed + n."""
    num_videos_per_prompt: int = 1
    """Number of videos per prompt, each with its own seed."""
    batch_size: int = 1
    """Videos processed together; on a CPU it does not change the result."""
    force_images: bool = False
    """Generate images (.png) instead of videos."""
    upstream: bool = False
    """Sample like the reference, quirks included: the samplers' bare constructors, and prompts without a
    mask."""


@dataclass(frozen=True, kw_only=True)
class GenerateOutputOptions:
    """Output."""

    GROUP: ClassVar[str] = "output"
    save_img_path: str = "sample_videos"
    """Output folder."""
    format: VideoFormat = "mp4"
    """File format of videos; png: a folder of images for each video."""
    fps: int | None = None
    """Frames per second of the file; default: the model's."""
    contact_sheet: bool = False
    """Also save a picture with all frames of each video, small ones enlarged."""
    save_latents: bool = False
    """Save latents (.npy) instead of videos; decode them later with --decode_latents."""
    decode_latents: bool = False
    """Decode the latents that an earlier run saved in save_img_path."""


@dataclass(frozen=True, kw_only=True)
class GenerateParallelOptions(JobOptions):
    """Parallelism (start with msrun)."""

    GROUP: ClassVar[str] = "parallel"
    sp_size: int = 1
    """Number of devices that split the frames of each video (sequence parallelism)."""
    cfg_parallel: bool = False
    """Run the two halves of classifier-free guidance on two devices (times sp_size)."""
    use_parallel: bool = False
    """Fail unless several processes were started; with msrun they work together in any case."""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(
    PromptOptions,
    GenerateModelOptions,
    GenerateSamplingOptions,
    GenerateOutputOptions,
    EnhanceOptions,
    VAEOptions,
    InferenceDeviceOptions,
    GenerateParallelOptions,
):
    """Options of `opensora generate`. Sampling options that are None take the model folder's defaults."""


@dataclass(frozen=True)
class GenerateJob:
    """A checked request: prompts and the model's configurations read, sampling settings complete.

    vae_policy: how videos are decoded. hint: a line about a quicker choice, or empty.
    """

    options: GenerateOptions
    prompts: list[str]
    spec: ModelSpec
    sampling: Sampling
    vae_policy: VAEPolicy
    hint: str


def prepare(options: GenerateOptions) -> GenerateJob:
    """Check the options and complete them from the model folder. ValueError names option and remedy."""
    _check(options)
    policy = choose_vae_policy(options, options.device, options.engine_here)
    prompts = read_prompts(options.text_prompt)
    if not prompts:
        raise ValueError(
            'there is no prompt: write one, as in `opensora generate "an elephant on a sky blue background"`'
        )
    spec = ModelSpec.find(options.model_path, options.version, options.text_encoder_name)
    if spec.text_encoder is None and not options.decode_latents:
        raise WeightsError(
            f"{spec.paths.path} has no text encoder: set --text_encoder_name to the folder of T5"
        )
    if options.pretrained_ckpt is not None and not Path(options.pretrained_ckpt).exists():
        raise WeightsError(f"--pretrained_ckpt {options.pretrained_ckpt} does not exist: check the path")
    given = {item.name: getattr(options, item.name) for item in fields(Sampling)}
    sampling = complete_sampling(spec, **given)
    if options.force_images:
        sampling = replace(sampling, num_frames=1)
    check_frames(options, sampling.num_frames)
    check_writable(Path(options.save_img_path), "save_img_path")
    steps_chosen = options.num_sampling_steps or options.decode_latents or has_own_defaults(spec.paths)
    return GenerateJob(options, prompts, spec, sampling, policy, "" if steps_chosen else RELEASE_HINT)


def _check(options: GenerateOptions) -> None:
    at_least(options, 1, "num_videos_per_prompt", "batch_size", "sp_size")
    at_most(options, 2**16, "num_videos_per_prompt", "batch_size")
    check_device_options(options)
    if options.save_latents and options.decode_latents:
        raise ValueError(
            "--save_latents and --decode_latents exclude each other: save in one run, decode in another"
        )
    check_enhancement(options)
    if options.save_latents and (options.upscale or options.interpolate):
        name = "upscale" if options.upscale else "interpolate"
        raise ValueError(f"--{name} works on frames: give it with --decode_latents, not --save_latents")
    if options.precision != "fp32" and options.weights_dtype != "fp32":
        raise ValueError(
            f"--weights_dtype {options.weights_dtype} requires fp32: "
            f"leave it out with --precision {options.precision}"
        )
