"""The recipe of a video, which determines its frames, and the sidecar that holds it, `<name>.json`.

Beside the recipe a sidecar tells people where the model lay and how to repeat the video.
"""

import shlex
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from opensora.data.text.prompts import as_prompt
from opensora.files import hash_file
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.cost import whole_bytes
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.pipeline.settings import Sampling
from opensora.runtime import versions
from opensora.weights import ModelFolder, trained_text_encoder, weight_files
from opensora.weights.folder import DEMO
from opensora.weights.sources import hash_folder

Recipe = dict[str, Any]


def sampled(
    sampling: Sampling,
    prompt: str,
    negative_prompt: str,
    *,
    upstream: bool,
    engine: str,
    precision: str,
    weights_dtype: str,
) -> Recipe:
    """The part of a recipe that tells how the latents were sampled. sampling: with the seed of this video."""
    return {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        **asdict(sampling),
        "upstream": upstream,
        "engine": engine,
        "precision": precision,
        "weights_dtype": weights_dtype,
    }


def latents_recipe(settings: Recipe, weights: Recipe) -> Recipe:
    """The recipe of latents. settings: from `sampled`. weights: from `hash_model`."""
    return {**settings, "weights": {part: value for part, value in weights.items() if part != "vae"}}


def video_recipe(latents: Recipe, vae: CausalVAEConfig, policy: VAEPolicy, weights: Recipe) -> Recipe:
    """The recipe of a video from that of its latents. policy: how they are decoded."""
    size = latents["num_frames"], latents["height"], latents["width"]
    activations = whole_bytes(vae, size, engine=policy.engine)
    return {
        **latents,
        "decoding": policy.recipe(activations),
        "weights": {**latents["weights"], "vae": weights["vae"]},
    }


def hash_model(model: ModelFolder, pretrained_ckpt: str | Path | None) -> dict[str, dict[str, str]]:
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


def sidecar_content(
    recipe: Recipe,
    file: str,
    engine: str,
    model: ModelFolder,
    pretrained_ckpt: str | Path | None,
    command: list[str] | None,
) -> dict[str, Any]:
    """The whole sidecar of the result `file`.

    engine: what has computed it, in case the planned one failed. command: from `repeat_command`, or None for
    what the command line cannot repeat.
    """
    parts = {
        "transformer": pretrained_ckpt or model.transformer,
        "vae": model.vae,
        "text_encoder": model.text_encoder,
    }
    content = {
        "recipe": recipe,
        "file": file,
        "engine": engine,
        "model": {part: str(path) for part, path in parts.items() if path is not None},
        "versions": versions(),
    }
    return content if command is None else {**content, "command": shlex.join(command)}


def repeat_command(
    recipe: Recipe,
    model: ModelFolder,
    pretrained_ckpt: str | Path | None,
    switches: Collection[str] = (),
    *,
    model_path: str | None = None,
    text_encoder_name: str | None = None,
) -> list[str]:
    """The command line that makes one video of this recipe.

    switches: options that are set, beside those of the recipe, each as `name` or `name=value`. model_path,
    text_encoder_name: as they were given on the command line.
    """
    if model_path is None:
        model_path = "demo" if model.path == DEMO else str(model.path)
        own = model.text_encoder in (None, model.path / "text_encoder")
        text_encoder_name = None if own else str(model.text_encoder)
    values = {
        "negative_prompt": recipe["negative_prompt"],
        "model_path": model_path,
        "version": model.transformer.name,
        "text_encoder_name": text_encoder_name,
        "pretrained_ckpt": pretrained_ckpt,
    }
    sizes = ("seed", "num_frames", "height", "width", "fps", "num_sampling_steps", "guidance_scale")
    for name in (*sizes, "sample_method", "engine", "precision", "weights_dtype"):
        values[name] = recipe[name]
    values |= {name: value for name, value in recipe.get("decoding", {}).items() if value}
    words = [f"--{name}={value}" for name, value in values.items() if value is not None]
    words += [f"--{name}" for name in (*(["upstream"] if recipe["upstream"] else []), *switches)]
    return ["opensora", "generate", as_prompt(recipe["prompt"]), *words]
