"""The videos of a run: names, seeds and recipes, and which of them exist already."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opensora.generate.enhance_options import enhancement_recipe
from opensora.generate.options import GenerateJob
from opensora.generate.sidecar import (
    Recipe,
    read_recipe,
    sampling_recipe,
    saved_recipe,
    video_recipe,
)
from opensora.media.formats import SHEET, result_path
from opensora.media.names import safe_name
from opensora.pipeline.recipe import hash_model


@dataclass(frozen=True)
class PlannedVideo:
    """One video of a run. `recipe` is what its sidecar must hold to be the same video."""

    prompt: str
    recipe: Recipe
    path: Path  # of the video, the image or, with --save_latents, the latents
    sidecar: Path
    sheet: Path
    latents: Path  # of saved latents
    finished: bool

    @property
    def seed(self) -> int:
        return int(self.recipe["seed"])


def plan(job: GenerateJob) -> list[PlannedVideo]:
    """The videos of a run, prompt after prompt. Video n has the seed `--seed` + n for every batch size.

    Raises ValueError for files that the run would overwrite, and for missing latents.
    """
    weights = hash_model(job.spec.paths, job.options.pretrained_ckpt)
    prompts = [prompt for prompt in job.prompts for _ in range(job.options.num_videos_per_prompt)]
    enhancement = enhancement_recipe(job.options)
    videos = [_plan_video(job, prompt, number, weights, enhancement) for number, prompt in enumerate(prompts)]
    conflict = next((path for video in videos for path in _conflicts(video)), None)
    if conflict is not None:
        raise ValueError(
            f"{conflict} exists and was made otherwise: move it away, or choose another --save_img_path"
        )
    return videos


def _plan_video(
    job: GenerateJob, prompt: str, number: int, weights: dict[str, Any], enhancement: dict[str, Any]
) -> PlannedVideo:
    options, folder, name = job.options, Path(job.options.save_img_path), safe_name(prompt, number)
    latents, sheet = folder / f"{name}.latents.npy", folder / f"{name}{SHEET}"
    sampled = sampling_recipe(job, prompt, number, weights)
    recipe = saved_recipe(latents, prompt) if options.decode_latents else sampled
    path = latents
    if not options.save_latents:
        recipe = video_recipe(job, recipe, weights, enhancement)
        path = result_path(folder, name, options.format, options.force_images)
    sidecar = path.with_suffix(".json")
    finished = path.exists() and read_recipe(sidecar) == recipe
    return PlannedVideo(prompt, recipe, path, sidecar, sheet, latents, finished)


def _conflicts(video: PlannedVideo) -> list[Path]:
    """Existing files in a video's place that an earlier run of the same video did not write."""
    if read_recipe(video.sidecar) == video.recipe:
        return []
    return [path for path in (video.path, video.sidecar, video.sheet) if path.exists()]
