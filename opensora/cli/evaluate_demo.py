"""`opensora evaluate-demo`: how well the demo model does what it is asked, on pairs of subject and colour that it never saw."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from opensora.demo_data.evaluator import Generate, Reconstruct, evaluate
from opensora.demo_data.render import STRIDE, Renderer
from opensora.demo_data.report import breakdown, sheet, table
from opensora.files import write_json
from opensora.media.pixels import to_bytes, to_pixels
from opensora.media.writer import write_video
from opensora.models.spec import ModelSpec
from opensora.pipeline.settings import complete_sampling
from opensora.weights import find_model, load_config

POSITIONAL = None


@dataclass(frozen=True, kw_only=True)
class EvaluateDemoOptions:
    """Options of `opensora evaluate-demo`."""

    demo_data: str = "~/.cache/opensora/demo_data"
    """Folder of the demo data set, which `opensora prepare-data demo FOLDER` makes."""
    model_path: str = "demo"
    """Model folder in the release's layout; "demo" is the model that ships."""
    version: str | None = None
    """Folder of the transformer inside model_path, needed where there are several."""
    pretrained_ckpt: str | None = None
    """Weights (.safetensors, or a folder of them) for the transformer instead of the model folder's."""
    vae: str | None = None
    """Folder of the autoencoder that the ceilings are measured with; default: model_path/vae."""
    clips_per_pair: int = 1
    """Generated clips of each held-out pair; 0 judges the autoencoder and the evaluator only."""
    real_clips: int = 154
    """Held-out renderings that the ceilings are measured on, as they are and reconstructed."""
    num_frames: int = 17
    """Frames of a clip."""
    size: int = 64
    """Height and width of a clip in pixels."""
    stride: int = STRIDE
    """Source frames from one frame of the real clips to the next, as in training."""
    num_sampling_steps: int | None = None
    """Steps of the sampler; default: the model's."""
    guidance_scale: float | None = None
    """How strongly the prompt is followed; default: the model's."""
    sample_method: str | None = None
    """Sampler; default: the model's."""
    seed: int = 0
    """Seed of the first clip; each further one has the next."""
    breakdown: bool = False
    """Also print a line for each subject and each colour."""
    output: str | None = None
    """File (.json) for every figure and the judgement of every clip."""
    contact_sheet: str | None = None
    """File (.png) for frames of every generated clip; those judged wrong have a red frame."""
    require: bool = False
    """End with exit code 1 where a target is missed."""


OPTIONS = EvaluateDemoOptions


def run(options: EvaluateDemoOptions) -> None:
    _check(options)
    renderer = Renderer(Path(options.demo_data).expanduser())
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


def _check(options: EvaluateDemoOptions) -> None:
    """Before anything long starts. Raises ValueError that names the option."""
    for name, least in (
        ("clips_per_pair", 0),
        ("real_clips", 0),
        ("num_frames", 2),
        ("size", 8),
        ("stride", 1),
        ("seed", 0),
    ):
        if getattr(options, name) < least:
            raise ValueError(f"{name} {getattr(options, name)} is too small: use {least} or more")
    for name, suffix in (("output", ".json"), ("contact_sheet", ".png")):
        path = getattr(options, name)
        if path is not None and (Path(path).suffix != suffix or not Path(path).absolute().parent.is_dir()):
            raise ValueError(f"{name} {path} cannot be written: name a {suffix} file in a folder that exists")


def _generator(options: EvaluateDemoOptions) -> Generate | None:
    """Captions and seeds to frames; None where no clip is asked for."""
    if not options.clips_per_pair:
        return None
    complete_sampling(
        ModelSpec.find(options.model_path, options.version),
        num_frames=options.num_frames,
        height=options.size,
        width=options.size,
        num_sampling_steps=options.num_sampling_steps,
        guidance_scale=options.guidance_scale,
        sample_method=options.sample_method,
    )
    from opensora.pipeline import Pipeline

    pipe = Pipeline.from_pretrained(
        options.model_path, options.version, pretrained_ckpt=options.pretrained_ckpt
    )

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


def _reconstructor(options: EvaluateDemoOptions) -> Reconstruct:
    folder = (
        Path(options.vae) if options.vae is not None else find_model(options.model_path, options.version).vae
    )
    load_config(folder)
    from opensora.models import CausalVAE
    from opensora.runtime import mindspore

    vae = CausalVAE.from_pretrained(folder)

    def reconstruct(video: np.ndarray) -> np.ndarray:
        latents = vae.encode(mindspore().Tensor(to_pixels(video[None]))).mode()
        return to_bytes(vae.decode(latents).asnumpy())[0]

    return reconstruct
