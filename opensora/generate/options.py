"""What `opensora generate` is asked to do, checked as far as possible before MindSpore is imported."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from opensora.data.text.prompts import read_prompts
from opensora.files import check_writable
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.spec import ModelSpec
from opensora.pipeline.settings import Sampling, complete_sampling, preset
from opensora.weights import WeightsError


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Options of `opensora generate`. Where the default is "the model's", the model folder decides."""

    text_prompt: list[str] = field(default_factory=list)
    """What the videos show: sentences, or .txt and .csv files of them."""
    negative_prompt: str = ""
    """What they should not show."""
    model_path: str = "demo"
    """Model folder in the release's layout; "demo" is the model that ships."""
    version: str | None = None
    """Folder of the transformer inside model_path, such as 65x512x512; needed where there are several."""
    text_encoder_name: str | None = None
    """Folder of the T5 encoder; default: model_path/text_encoder."""
    pretrained_ckpt: str | None = None
    """Weights for the transformer instead of the model folder's: a run, a checkpoint, or a .safetensors, .pt, .bin or .ckpt file."""
    save_img_path: str = "sample_videos"
    """Folder that the results are written to."""
    format: Literal["mp4", "gif", "webp"] = "mp4"
    """File type of the videos."""
    contact_sheet: bool = False
    """Also write a picture with frames of each video side by side."""
    force_images: bool = False
    """Generate single pictures (.png) instead of videos."""
    num_frames: int | None = None
    """Frames of a video; default: the model's."""
    height: int | None = None
    """Height in pixels; default: the model's."""
    width: int | None = None
    """Width in pixels; default: the model's."""
    fps: int | None = None
    """Frames per second of the file; default: the model's."""
    num_sampling_steps: int | None = None
    """Steps of the sampler; default: the model's."""
    guidance_scale: float | None = None
    """How strongly the prompt is followed; 1 is without guidance; default: the model's."""
    sample_method: str | None = None
    """Sampler, such as PNDM, DDIM, EulerDiscrete, DPM++2M, UniPC; default: the model's."""
    seed: int | None = None
    """Seed of the first video; each further one has the next; default: the model's."""
    num_videos_per_prompt: int = 1
    """Videos of each prompt, with different seeds."""
    batch_size: int = 1
    """Videos that go through a stage together; on a CPU the frames are the same for every value."""
    save_latents: bool = False
    """Write latents (.npy) instead of videos; --decode_latents makes videos of them later."""
    decode_latents: bool = False
    """Decode the latents that an earlier run with --save_latents wrote to save_img_path."""
    enable_tiling: bool = False
    """Decode in tiles of 256 pixels and chunks of 65 frames as the reference does: less memory, visible seams possible."""
    enable_time_chunk: bool = False
    """Decode in chunks of 65 frames, with whole frames unless enable_tiling is set as well."""
    vae_memory: Literal["auto", "exact", "chunked", "tiled"] = "auto"
    """How to decode: exact is the whole video at once, chunked the same numbers in little memory, tiled means enable_tiling."""
    upstream: bool = False
    """Sample as the published script does, with its quirks: the samplers' bare constructors, and padding of prompts cut or seen."""
    tile_overlap_factor: float = 0.25
    """Part of a tile that overlaps its neighbour."""
    device: Literal["CPU", "Ascend"] = "CPU"
    """Where to compute."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Number format of the models; a CPU computes in fp32 only."""
    use_parallel: bool = False
    """Refuse to run as a single process; with `msrun` several processes work together in any case."""
    sp_size: int = 1
    """Devices that share the frames of a video."""
    cfg_parallel: bool = False
    """Two devices (times sp_size) share a video: one computes with the prompt, the other with the negative prompt."""
    weights_dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """How the transformer's weights are kept in memory; in 16 bits they take half of it, are rounded, and each block's become fp32
    when it runs."""


@dataclass(frozen=True)
class GenerateJob:
    """A checked request: `prompts` and the model's configurations are read, `sampling` is complete.

    vae_policy: how videos are decoded. hint: a line for the user about a quicker choice, or empty.
    """

    options: GenerateOptions
    prompts: list[str]
    spec: ModelSpec
    sampling: Sampling
    vae_policy: VAEPolicy
    hint: str


def prepare(options: GenerateOptions) -> GenerateJob:
    """Check `options` and complete them from the model folder. Raises ValueError that names the option and the remedy."""
    _check_numbers(options)
    policy = VAEPolicy.choose(
        options.device,
        options.vae_memory,
        enable_tiling=options.enable_tiling,
        enable_time_chunk=options.enable_time_chunk,
        overlap=options.tile_overlap_factor,
    )
    prompts = read_prompts(options.text_prompt)
    if not prompts:
        raise ValueError(
            'there is no prompt: write one, as in `opensora generate "an elephant on a sky blue background"`'
        )
    spec = ModelSpec.find(options.model_path, options.version, options.text_encoder_name)
    if spec.text_encoder is None and not options.decode_latents:
        raise WeightsError(
            f"{spec.paths.path} has no text encoder: name the folder of T5 with --text_encoder_name"
        )
    if options.pretrained_ckpt is not None and not Path(options.pretrained_ckpt).exists():
        raise WeightsError(f"--pretrained_ckpt {options.pretrained_ckpt} does not exist: check the path")
    given = {item.name: getattr(options, item.name) for item in fields(Sampling)}
    sampling = complete_sampling(spec, **given)
    if options.force_images:
        sampling = replace(sampling, num_frames=1)
    check_writable(Path(options.save_img_path), "save_img_path")
    hint = "" if options.num_sampling_steps or options.decode_latents else preset(spec.paths).get("hint", "")
    return GenerateJob(options, prompts, spec, sampling, policy, hint)


def _check_numbers(options: GenerateOptions) -> None:
    for name in ("num_videos_per_prompt", "batch_size", "sp_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} {getattr(options, name)} is too small: use 1 or more")
    if options.save_latents and options.decode_latents:
        raise ValueError(
            "--save_latents and --decode_latents exclude each other: the first run saves, a second one decodes"
        )
    if options.precision != "fp32" and options.weights_dtype != "fp32":
        raise ValueError(
            f"--weights_dtype {options.weights_dtype} is for fp32: with --precision {options.precision} leave it out"
        )
    if options.device == "CPU" and options.precision != "fp32":
        raise ValueError(
            f"precision {options.precision} has no kernels on a CPU: use --precision fp32, or --device Ascend"
        )
