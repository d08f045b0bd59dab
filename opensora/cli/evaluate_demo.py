"""`opensora evaluate-demo`: score the demo model on subjects and colours that were never trained together."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from opensora.checks import at_least
from opensora.demo_data.evaluator import Generate, Reconstruct, evaluate
from opensora.demo_data.render import STRIDE, Renderer
from opensora.demo_data.report import breakdown, marked_sheet, sheet, table
from opensora.demo_data.subjects import score_subjects, subject_table
from opensora.demo_data.timesteps import Restore, by_timestep, timestep_table
from opensora.diffusion.samplers.ddim import PartialDDIM
from opensora.diffusion.schedule import TRAIN_STEPS
from opensora.engine import choose_engine
from opensora.engine.block import as_array
from opensora.files import write_json
from opensora.media.pixels import to_bytes, to_pixels
from opensora.media.writer import write_video
from opensora.models.causal_vae.config import LATENT_SCALE
from opensora.models.latte_class.weights import find_config
from opensora.models.spec import ModelSpec
from opensora.pipeline.options import (
    InferenceDeviceOptions,
    PipelineModelOptions,
    SamplerOptions,
    check_device_options,
)
from opensora.pipeline.settings import Sampling, complete_sampling
from opensora.runtime import set_device
from opensora.weights import find_model, load_config

if TYPE_CHECKING:
    from opensora.models import CausalVAE
    from opensora.pipeline import Pipeline

POSITIONAL = None
DDIM_STEPS = 30  # from pure noise
CLASS_GUIDANCE = 3.0


@dataclass(frozen=True, kw_only=True)
class EvaluateDemoModelOptions(PipelineModelOptions):
    """Model."""

    GROUP: ClassVar[str] = "model"
    vae: str | None = None
    """Folder of the autoencoder that limits the scores; default: model_path/vae."""
    class_model: str | None = None
    """Score this class-conditional model of the subjects instead: a run of `opensora train-class`."""


@dataclass(frozen=True, kw_only=True)
class EvaluateDemoSamplingOptions(SamplerOptions):
    """Sampling (defaults come from the model folder)."""

    GROUP: ClassVar[str] = "sampling"
    by_timestep: bool = False
    """Instead of scoring generated clips, noise real ones to eight timesteps and denoise them again."""
    clips_per_pair: int = 1
    """Clips to generate per held-out pair of subject and colour; 0 scores autoencoder and evaluator only."""
    num_frames: int = 17
    """Number of frames."""
    size: int = 64
    """Height and width in pixels."""
    seed: int = 0
    """Seed of the first clip; clip n has seed + n."""


@dataclass(frozen=True, kw_only=True)
class EvaluateDemoDataOptions:
    """Data."""

    GROUP: ClassVar[str] = "data"
    demo_data: str = "~/.cache/opensora/demo_data"
    """Folder of the demo data set, made by `opensora prepare-data demo FOLDER`."""
    real_clips: int = 154
    """Held-out renderings to score for comparison, as they are and reconstructed."""
    stride: int = STRIDE
    """Source frames from one frame of a real clip to the next, as in training."""


@dataclass(frozen=True, kw_only=True)
class EvaluateDemoOutputOptions:
    """Output."""

    GROUP: ClassVar[str] = "output"
    breakdown: bool = False
    """Also print a line per subject and per colour."""
    output: str | None = None
    """JSON file for all scores, clip by clip."""
    contact_sheet: str | None = None
    """PNG file with frames of every generated clip; a red frame marks a wrong one."""
    require: bool = False
    """Exit with code 1 if a target is missed."""


@dataclass(frozen=True, kw_only=True)
class EvaluateDemoOptions(
    EvaluateDemoModelOptions,
    EvaluateDemoSamplingOptions,
    EvaluateDemoDataOptions,
    EvaluateDemoOutputOptions,
    InferenceDeviceOptions,
):
    """Options of `opensora evaluate-demo`."""


OPTIONS = EvaluateDemoOptions


def run(options: EvaluateDemoOptions) -> None:
    _check(options)
    if options.engine_here == "mindspore":
        set_device(options.device)
    renderer = Renderer(Path(options.demo_data).expanduser())
    if options.by_timestep:
        _run_by_timestep(options, renderer)
        return
    if options.class_model is not None:
        _run_classes(options, renderer)
        return
    evaluation = evaluate(
        renderer,
        _generator(options),
        _reconstructor(options),
        (options.num_frames, options.size),
        options.clips_per_pair,
        options.real_clips,
        options.seed,
        options.stride,
    )
    print(table(evaluation))
    if options.breakdown:
        print(
            "",
            *breakdown(evaluation.generated, "subject"),
            "",
            *breakdown(evaluation.generated, "colour"),
            sep="\n",
        )
    if options.output is not None:
        write_json(options.output, {"options": asdict(options), **evaluation.as_dict()})
    if options.contact_sheet is not None and evaluation.clips:
        write_video(options.contact_sheet, sheet(evaluation)[None])
    if options.require and evaluation.missed:
        sys.exit(1)


def _run_classes(options: EvaluateDemoOptions, renderer: Renderer) -> None:
    """Generate clips of each class of `class_model`, and print how many show it."""
    assert options.class_model is not None
    config = find_config(options.class_model)
    settings = complete_sampling(
        ModelSpec.find(options.model_path, options.version),
        num_frames=options.num_frames,
        height=options.size,
        width=options.size,
        num_sampling_steps=options.num_sampling_steps,
        guidance_scale=options.guidance_scale or CLASS_GUIDANCE,
        sample_method=options.sample_method,
    )
    from opensora.pipeline.classes import ClassPipeline

    pipe = ClassPipeline.from_pretrained(
        options.class_model, _vae_folder(options), engine=options.engine_here, precision=options.precision
    )

    def generate(subject: str, seed: int) -> np.ndarray:
        label = config.class_names.index(subject)
        return pipe.decode(pipe.sample([label], settings, [seed]))[0]

    scores, clips = score_subjects(
        renderer, config.class_names, generate, max(1, options.clips_per_pair), options.seed
    )
    print(subject_table(scores))
    if options.output is not None:
        content = [{**score._asdict(), "right": score.right} for score in scores]
        write_json(options.output, {"options": asdict(options), "clips": content})
    if options.contact_sheet is not None:
        write_video(options.contact_sheet, marked_sheet(clips, [score.right for score in scores])[None])


def _run_by_timestep(options: EvaluateDemoOptions, renderer: Renderer) -> None:
    levels = by_timestep(
        renderer,
        _reconstructor(options),
        _restorer(options),
        (options.num_frames, options.size),
        options.real_clips,
        options.seed,
        options.stride,
    )
    print(timestep_table(levels))
    if options.output is not None:
        write_json(
            options.output, {"options": asdict(options), "levels": [asdict(level) for level in levels]}
        )


def _check(options: EvaluateDemoOptions) -> None:
    """Raises ValueError that names the option."""
    check_device_options(options)
    at_least(options, 0, "clips_per_pair", "real_clips", "seed")
    at_least(options, 1, "stride")
    at_least(options, 2, "num_frames")
    if options.by_timestep:
        at_least(options, 1, "real_clips")
    _sampling(options)
    for name, suffix in (("output", ".json"), ("contact_sheet", ".png")):
        path = getattr(options, name)
        if path is not None and (Path(path).suffix != suffix or not Path(path).absolute().parent.is_dir()):
            raise ValueError(f"{name} {path} cannot be written: choose a {suffix} file in an existing folder")


def _sampling(options: EvaluateDemoOptions) -> Sampling:
    """Raises ValueError for values that the model cannot sample."""
    return complete_sampling(
        ModelSpec.find(options.model_path, options.version, options.text_encoder_name),
        num_frames=options.num_frames,
        height=options.size,
        width=options.size,
        num_sampling_steps=options.num_sampling_steps,
        guidance_scale=options.guidance_scale,
        sample_method=options.sample_method,
    )


def _pipeline(options: EvaluateDemoOptions) -> "Pipeline":
    from opensora.pipeline.core import BESIDE_THE_MODEL, Pipeline

    return Pipeline.from_pretrained(
        options.model_path,
        options.version,
        options.text_encoder_name or BESIDE_THE_MODEL,
        pretrained_ckpt=options.pretrained_ckpt,
        engine=options.engine_here,
        precision=options.precision,
    )


def _generator(options: EvaluateDemoOptions) -> Generate | None:
    """A function from caption and seed to frames; None if no clip is to be generated."""
    if not options.clips_per_pair:
        return None
    pipe = _pipeline(options)

    def generate(prompt: str, seed: int) -> np.ndarray:
        video = pipe(
            prompt,
            seed=seed,
            steps=options.num_sampling_steps,
            guidance_scale=options.guidance_scale,
            sampler=options.sample_method,
            num_frames=options.num_frames,
            height=options.size,
            width=options.size,
        )
        return video.frames

    return generate


def _restorer(options: EvaluateDemoOptions) -> Restore:
    """Noises a clip to a timestep and denoises it by DDIM, in 30 steps from 999 and fewer from less."""
    scale, pipe, vae = _sampling(options).guidance_scale, _pipeline(options), _autoencoder(options)
    engine = vae.engine

    def restore(video: np.ndarray, caption: str) -> Callable[[int, int], np.ndarray]:
        moments = vae.encode(engine.input(to_pixels(video[None])))
        latents = engine.output(moments.mode()) * np.float32(LATENT_SCALE)  # (1, C, T, h, w)
        embeds, mask = pipe.encode(["", caption])
        texts = embeds[1:], mask[1:], embeds[:1], mask[:1]

        def denoise(timestep: int, seed: int) -> np.ndarray:
            noise = np.random.default_rng(seed).standard_normal(latents.shape, np.float32)
            sampler = PartialDDIM(timestep, max(1, round(DDIM_STEPS * timestep / TRAIN_STEPS)))
            noised = sampler.noised(latents, noise)
            x = pipe.denoise(*texts, noised, sampler=sampler, guidance_scale=scale)
            pixels = vae.decode(engine.input(as_array(x) / np.float32(LATENT_SCALE)))
            return to_bytes(engine.output(pixels))[0, : len(video)]

        return denoise

    return restore


def _vae_folder(options: EvaluateDemoOptions) -> Path:
    if options.vae is not None:
        return Path(options.vae)
    return find_model(options.model_path, options.version).vae


def _reconstructor(options: EvaluateDemoOptions) -> Reconstruct:
    vae = _autoencoder(options)
    engine = vae.engine

    def reconstruct(video: np.ndarray) -> np.ndarray:
        latents = vae.encode(engine.input(to_pixels(video[None]))).mode()
        return to_bytes(engine.output(vae.decode(latents)))[0]

    return reconstruct


def _autoencoder(options: EvaluateDemoOptions) -> "CausalVAE":
    folder = _vae_folder(options)
    load_config(folder)
    from opensora.models import CausalVAE

    return CausalVAE.from_pretrained(folder, engine=choose_engine(options.engine_here, options.precision))
