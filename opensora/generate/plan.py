"""What a run of `opensora generate` is to make: names, seeds and recipes of its videos, and which of them exist already.

Beside each result lies `<name>.json`, its recipe: all that determines the frames. Written before the result, it makes a run that
was interrupted continue where it stopped; a file whose recipe differs belongs to another request and is never touched.
"""

import logging
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from opensora.files import hash_file, read_json
from opensora.generate.options import GenerateJob
from opensora.media.names import safe_name
from opensora.runtime import versions
from opensora.weights import ModelFolder, weight_files
from opensora.weights.sources import hash_folder

log = logging.getLogger(__name__)

LATENTS = ".latents"
SHEET = ".contact.png"


@dataclass(frozen=True)
class PlannedVideo:
    """One video of a run. `recipe` is what its sidecar must hold to be the same video."""

    prompt: str
    recipe: dict[str, Any]
    path: Path  # the video, the picture or, with --save_latents, the latents
    sidecar: Path
    sheet: Path
    latents: Path  # where latents of this video lie or will lie
    finished: bool

    @property
    def seed(self) -> int:
        return int(self.recipe["seed"])


def plan(job: GenerateJob) -> list[PlannedVideo]:
    """The videos of a run, in order. Video n (prompts outermost) has the seed `--seed` + n, whatever the batch size.

    Raises ValueError for files in the output folder that this run would overwrite, and for latents that are missing.
    """
    options = job.options
    weights = hash_model(job.spec.paths, options.pretrained_ckpt)
    prompts = [prompt for prompt in job.prompts for _ in range(options.num_videos_per_prompt)]
    videos = [_planned(job, prompt, number, weights) for number, prompt in enumerate(prompts)]
    conflict = next((path for video in videos for path in _foreign_files(video)), None)
    if conflict is not None:
        raise ValueError(
            f"{conflict} exists and was made otherwise: move it away, or name another folder with --save_img_path"
        )
    return videos


def _planned(job: GenerateJob, prompt: str, number: int, weights: dict[str, Any]) -> PlannedVideo:
    options, folder = job.options, Path(job.options.save_img_path)
    name = safe_name(prompt, number)
    latents = folder / f"{name}{LATENTS}.npy"
    stem = f"{name}{LATENTS}" if options.save_latents else name
    suffix = "npy" if options.save_latents else "png" if options.force_images else options.format
    recipe = (
        _latents_recipe(latents, prompt)
        if options.decode_latents
        else _sampling_recipe(job, prompt, number, weights)
    )
    if not options.save_latents:
        recipe = {
            **recipe,
            "decoding": job.vae_policy.recipe(),
            "weights": {**recipe["weights"], "vae": weights["vae"]},
        }
        if options.fps is not None:
            recipe["fps"] = options.fps
    path, sidecar = folder / f"{stem}.{suffix}", folder / f"{stem}.json"
    finished = path.is_file() and read_recipe(sidecar) == recipe
    return PlannedVideo(prompt, recipe, path, sidecar, folder / f"{name}{SHEET}", latents, finished)


def _sampling_recipe(job: GenerateJob, prompt: str, number: int, weights: dict[str, Any]) -> dict[str, Any]:
    sampling = asdict(job.sampling)
    return {
        "prompt": prompt,
        "negative_prompt": job.options.negative_prompt,
        **sampling,
        "seed": sampling["seed"] + number,
        "upstream": job.options.upstream,
        "precision": job.options.precision,
        "weights_dtype": job.options.weights_dtype,
        "weights": {part: value for part, value in weights.items() if part != "vae"},
    }


def _latents_recipe(latents: Path, prompt: str) -> dict[str, Any]:
    """How latents of an earlier run were made. ValueError where there are none, or they are those of another prompt."""
    sidecar = latents.with_suffix(".json")
    recipe = read_recipe(sidecar)
    if recipe is None or not latents.is_file():
        raise ValueError(
            f"{sidecar if recipe is None else latents} does not exist: first run the same prompts with --save_latents"
        )
    if recipe.get("prompt") != prompt:
        raise ValueError(
            f"{latents} was made from another prompt, {recipe.get('prompt')!r}: give the prompts in the order of that run"
        )
    return recipe


def _foreign_files(video: PlannedVideo) -> list[Path]:
    """Files in the way of a video that are not an earlier run's part of the same video."""
    if read_recipe(video.sidecar) == video.recipe:
        return []
    return [path for path in (video.path, video.sidecar, video.sheet) if path.exists()]


def sidecar_content(video: PlannedVideo, job: GenerateJob) -> dict[str, Any]:
    """The content of a sidecar: the recipe, and for people where the model lay, the versions and a command that makes it again."""
    paths = job.spec.paths
    parts = {
        "transformer": job.options.pretrained_ckpt or paths.transformer,
        "vae": paths.vae,
        "text_encoder": paths.text_encoder,
    }
    return {
        "recipe": video.recipe,
        "file": video.path.name,
        "model": {part: str(path) for part, path in parts.items() if path is not None},
        "versions": versions(),
        "command": shlex.join(_command(video, job)),
    }


def _command(video: PlannedVideo, job: GenerateJob) -> list[str]:
    recipe, options = video.recipe, job.options
    words = [
        "opensora",
        "generate",
        "--text_prompt",
        recipe["prompt"],
        "--negative_prompt",
        recipe["negative_prompt"],
    ]
    words += ["--model_path", options.model_path, "--version", job.spec.paths.transformer.name]
    for name in ("text_encoder_name", "pretrained_ckpt"):
        if getattr(options, name) is not None:
            words += [f"--{name}", str(getattr(options, name))]
    sampled = (
        "seed",
        "num_frames",
        "height",
        "width",
        "fps",
        "num_sampling_steps",
        "guidance_scale",
        "sample_method",
        "precision",
    )
    for name in (*sampled, "weights_dtype"):
        words += [f"--{name}", str(recipe[name])]
    split = {name: value for name, value in recipe.get("decoding", {}).items() if value}
    for name, value in split.items():
        words += [f"--{name}", str(value)]
    switches = {
        "upstream": recipe["upstream"],
        "force_images": options.force_images,
        "save_latents": options.save_latents,
    }
    return words + [f"--{name}" for name, chosen in switches.items() if chosen]


def hash_model(model: ModelFolder, pretrained_ckpt: str | None) -> dict[str, dict[str, str]]:
    """sha256 of every file that determines a part of the model, by part and file name."""
    hashes = {"transformer": hash_folder(model.transformer), "vae": hash_folder(model.vae)}
    if pretrained_ckpt is not None:
        replaced = {path.name: hash_file(path) for path in weight_files(pretrained_ckpt)}
        hashes["transformer"] = {"config.json": hashes["transformer"]["config.json"], **replaced}
    if model.text_encoder is not None:
        hashes["text_encoder"] = hash_folder(model.text_encoder, "model")
    return hashes


def read_recipe(sidecar: Path) -> dict[str, Any] | None:
    """The recipe in a sidecar, or None where there is none or it is not ours."""
    recipe = read_json(sidecar).get("recipe")
    return recipe if isinstance(recipe, dict) else None
