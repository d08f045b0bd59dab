"""The sidecar of a video, `<name>.json`: its recipe, and for people where the model lay and how to repeat it.

The recipe is everything that determines the frames. It is written before the video, so that an interrupted
run continues where it stopped, and a file with another recipe is never overwritten.
"""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from opensora.config_files import shown, typed
from opensora.data.text.prompts import as_prompt
from opensora.files import hash_file, read_sidecar
from opensora.generate.options import GenerateJob
from opensora.pipeline.settings import Sampling
from opensora.runtime import versions
from opensora.weights import ModelFolder, trained_text_encoder, weight_files
from opensora.weights.sources import hash_folder

Recipe = dict[str, Any]


@dataclass(frozen=True)
class LatentsRecipe(Sampling):
    """The types of the recipe of latents, to check one that was read from a file."""

    prompt: str
    negative_prompt: str
    upstream: bool
    precision: str
    weights_dtype: str
    weights: dict[str, dict[str, str]]


def sampling_recipe(job: GenerateJob, prompt: str, number: int, weights: dict[str, Any]) -> Recipe:
    """The recipe of latents: video `number` of a run. weights: from `hash_model`."""
    sampling = asdict(job.sampling)
    return {
        "prompt": prompt,
        "negative_prompt": job.options.negative_prompt,
        **sampling,
        "seed": sampling["seed"] + number,
        "upstream": job.options.upstream,
        "engine": job.options.engine_here,
        "precision": job.options.precision,
        "weights_dtype": job.options.weights_dtype,
        "weights": {part: value for part, value in weights.items() if part != "vae"},
    }


def saved_recipe(latents: Path, prompt: str) -> Recipe:
    """The recipe of saved latents. Raises ValueError if they are missing or of another prompt."""
    sidecar = latents.with_suffix(".json")
    recipe = read_recipe(sidecar)
    if recipe is None or not latents.is_file():
        missing = sidecar if recipe is None else latents
        raise ValueError(f"{missing} does not exist: first run the same prompts with --save_latents")
    typed(LatentsRecipe, recipe, sidecar)
    if recipe["prompt"] != prompt:
        raise ValueError(
            f"{latents} was made from another prompt, {shown(recipe['prompt'])}: "
            "give the prompts in the order of that run"
        )
    return recipe


def video_recipe(job: GenerateJob, latents: Recipe, weights: dict[str, Any]) -> Recipe:
    """The recipe of a video from that of its latents."""
    recipe = {
        **latents,
        "decoding": job.vae_policy.recipe(),
        "weights": {**latents["weights"], "vae": weights["vae"]},
    }
    return recipe if job.options.fps is None else {**recipe, "fps": job.options.fps}


def hash_model(model: ModelFolder, pretrained_ckpt: str | None) -> dict[str, dict[str, str]]:
    """sha256 of every file that determines a part of the model, by part and file name."""
    hashes = {"transformer": hash_folder(model.transformer), "vae": hash_folder(model.vae)}
    if pretrained_ckpt is not None:
        replaced = {path.name: hash_file(path) for path in weight_files(pretrained_ckpt)}
        hashes["transformer"] = {"config.json": hashes["transformer"]["config.json"], **replaced}
    if model.text_encoder is not None:
        hashes["text_encoder"] = hash_folder(model.text_encoder, "model")
        trained = None if pretrained_ckpt is None else trained_text_encoder(pretrained_ckpt)
        if trained is not None:
            kept = (model.text_encoder / "config.json", model.text_encoder / "spiece.model", trained)
            hashes["text_encoder"] = {path.name: hash_file(path) for path in kept if path.is_file()}
    return hashes


def read_recipe(sidecar: Path) -> Recipe | None:
    """The recipe in a sidecar, or None if there is none or the file is not a sidecar."""
    recipe = read_sidecar(sidecar).get("recipe")
    return recipe if isinstance(recipe, dict) else None


def sidecar_content(job: GenerateJob, recipe: Recipe, file: str, engine: str) -> dict[str, Any]:
    """The whole sidecar of the result `file`. engine: the one that computed it, after a possible failover."""
    paths = job.spec.paths
    parts = {
        "transformer": job.options.pretrained_ckpt or paths.transformer,
        "vae": paths.vae,
        "text_encoder": paths.text_encoder,
    }
    return {
        "recipe": recipe,
        "file": file,
        "engine": engine,
        "model": {part: str(path) for part, path in parts.items() if path is not None},
        "versions": versions(),
        "command": shlex.join(_command(job, recipe)),
    }


def _command(job: GenerateJob, recipe: Recipe) -> list[str]:
    """The command line that makes one video of this recipe."""
    options = job.options
    values = {
        "negative_prompt": recipe["negative_prompt"],
        "model_path": options.model_path,
        "version": job.spec.paths.transformer.name,
        "text_encoder_name": options.text_encoder_name,
        "pretrained_ckpt": options.pretrained_ckpt,
    }
    sampled = ("seed", "num_frames", "height", "width", "fps", "num_sampling_steps", "guidance_scale")
    for name in (*sampled, "sample_method", "engine", "precision", "weights_dtype"):
        values[name] = recipe[name]
    values |= {name: value for name, value in recipe.get("decoding", {}).items() if value}
    switches = {
        "upstream": recipe["upstream"],
        "force_images": options.force_images,
        "save_latents": options.save_latents,
    }
    words = [f"--{name}={value}" for name, value in values.items() if value is not None]
    words += [f"--{name}" for name, chosen in switches.items() if chosen]
    return ["opensora", "generate", as_prompt(recipe["prompt"]), *words]
