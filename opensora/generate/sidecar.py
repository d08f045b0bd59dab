"""Sidecars of the videos of a run.

The recipe is written before the video, so that an interrupted run continues where it stopped, and a file with
another recipe is never overwritten.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opensora.config_files import shown, typed
from opensora.files import read_sidecar
from opensora.generate.enhance_options import enhancement_words
from opensora.generate.options import GenerateJob
from opensora.pipeline import recipe as recipes
from opensora.pipeline.recipe import Recipe, latents_recipe, repeat_command, sampled
from opensora.pipeline.settings import Sampling


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
    options = job.options
    settings = sampled(
        replace(job.sampling, seed=job.sampling.seed + number),
        prompt,
        options.negative_prompt,
        upstream=options.upstream,
        engine=options.engine_here,
        precision=options.precision,
        weights_dtype=options.weights_dtype,
    )
    return latents_recipe(settings, weights)


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


def video_recipe(
    job: GenerateJob, latents: Recipe, weights: dict[str, Any], enhancement: dict[str, Any]
) -> Recipe:
    """The recipe of a video from that of its latents. enhancement: from `enhancement_recipe`."""
    recipe = recipes.video_recipe(latents, job.spec.vae, job.vae_policy, weights) | enhancement
    return recipe if job.options.fps is None else {**recipe, "fps": job.options.fps}


def read_recipe(sidecar: Path) -> Recipe | None:
    """The recipe in a sidecar, or None if there is none or the file is not a sidecar."""
    recipe = read_sidecar(sidecar).get("recipe")
    return recipe if isinstance(recipe, dict) else None


def sidecar_content(job: GenerateJob, recipe: Recipe, file: str, engine: str) -> dict[str, Any]:
    """The whole sidecar of the result `file`.

    engine: what has computed it, in case the planned one failed.
    """
    options, paths = job.options, job.spec.paths
    switches = [name for name in ("force_images", "save_latents") if getattr(options, name)]
    command = repeat_command(
        recipe,
        paths,
        options.pretrained_ckpt,
        [*switches, *enhancement_words(options)],
        model_path=options.model_path,
        text_encoder_name=options.text_encoder_name,
    )
    return recipes.sidecar_content(recipe, file, engine, paths, options.pretrained_ckpt, command)
