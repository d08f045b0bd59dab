"""`opensora generate-class`, top to bottom: plan the videos, load the models, denoise, decode, save."""

import logging
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opensora import runtime
from opensora.console import Progress
from opensora.files import hash_file, only_writer, write_json
from opensora.generate.classes import ClassJob
from opensora.generate.enhance_options import enhancement_recipe, enhancement_words
from opensora.generate.sidecar import Recipe, read_recipe
from opensora.media.formats import result_path
from opensora.media.names import safe_name
from opensora.media.writer import write_result
from opensora.pipeline.labels import label_name
from opensora.weights import weight_files
from opensora.weights.sources import hash_folder

if TYPE_CHECKING:
    from opensora.generate.enhance import Enhancement
    from opensora.pipeline.classes import ClassPipeline

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedClassVideo:
    """One video of a run. `recipe` is what its sidecar must hold to be the same video."""

    label: int
    recipe: Recipe
    path: Path
    finished: bool

    @property
    def sidecar(self) -> Path:
        return self.path.with_suffix(".json")


def generate_class(job: ClassJob) -> None:
    """Make the videos of a job.

    Raises ValueError, before anything is computed, for files that would be overwritten and for weights that
    do not fit the model.
    """
    folder = Path(job.options.save_img_path)
    with only_writer(folder, "save_img_path"):
        videos = plan(job)
        todo = [video for video in videos if not video.finished]
        if len(todo) < len(videos):
            log.info(
                "skipping %d of %d videos, which are finished in %s",
                len(videos) - len(todo),
                len(videos),
                folder,
            )
        if todo:
            pipe, enhance = _load(job)
            folder.mkdir(parents=True, exist_ok=True)
            for number, video in enumerate(todo, 1):
                _make(job, pipe, enhance, video, f"video {number} of {len(todo)}")


def plan(job: ClassJob) -> list[PlannedClassVideo]:
    """The videos of a run, in the order of the labels. Video n has the seed `--seed` + n.

    Raises ValueError for files that the run would overwrite.
    """
    weights, enhancement = _hashes(job), enhancement_recipe(job.options)
    videos = []
    for number, label in enumerate(job.labels):
        name = label_name(job.config, label)
        recipe = {
            **({"label": label, "class": name} if job.config.num_classes else {}),
            **asdict(replace(job.sampling, seed=job.sampling.seed + number)),
            "engine": job.options.engine_here,
            "precision": job.options.precision,
            "decoding": job.vae_policy.recipe(),
            "weights": weights,
            **enhancement,
        }
        folder, still = Path(job.options.save_img_path), job.sampling.num_frames == 1
        path = result_path(folder, safe_name(name, number), job.options.format, still)
        finished = path.exists() and read_recipe(path.with_suffix(".json")) == recipe
        videos.append(PlannedClassVideo(label, recipe, path, finished))
    for video in videos:
        if read_recipe(video.sidecar) != video.recipe:
            for path in (video.path, video.sidecar):
                if path.exists():
                    raise ValueError(
                        f"{path} exists and was made otherwise: move it away, or choose another "
                        "--save_img_path"
                    )
    return videos


def _hashes(job: ClassJob) -> dict[str, dict[str, str]]:
    """sha256 of every file that determines a part of the model, by part and file name."""
    if job.transformer.is_file():
        transformer = {path.name: hash_file(path) for path in weight_files(job.transformer)}
    else:
        transformer = hash_folder(job.transformer)
    return {"transformer": transformer, "vae": hash_folder(job.vae)}


def _load(job: ClassJob) -> tuple["ClassPipeline", "Enhancement"]:
    options, engine = job.options, job.options.engine_here
    if engine == "mindspore":
        runtime.set_device(options.device)
    from opensora.generate.enhance import Enhancement
    from opensora.pipeline.classes import ClassPipeline

    log.info("%s with %s", job.sampling.described(len(job.labels)), engine)
    pipe = ClassPipeline.from_pretrained(
        job.transformer, job.vae, engine=engine, precision=options.precision, vae_policy=job.vae_policy
    )
    return pipe, Enhancement(options, pipe.model.engine)


def _make(
    job: ClassJob, pipe: "ClassPipeline", enhance: "Enhancement", video: PlannedClassVideo, title: str
) -> None:
    """Sample, decode, enhance and save a video. The sidecar comes first: an existing video is complete."""
    progress = Progress(title, pipe.num_evaluations(job.sampling))
    latents = pipe.sample([video.label], job.sampling, [video.recipe["seed"]], progress.step)
    frames = pipe.decode(latents)[0][: job.sampling.num_frames]  # uint8 (F, H, W, 3)
    frames, fps = enhance(frames, job.sampling.fps)
    content: dict[str, Any] = {
        "recipe": video.recipe,
        "file": video.path.name,
        "engine": pipe.model.engine.name,
        "model": {"transformer": str(job.transformer), "vae": str(job.vae)},
        "versions": runtime.versions(),
        "command": _command(job, video.recipe),
    }
    write_json(video.sidecar, content)
    write_result(video.path, frames, fps)
    log.info("%s", video.path)


def _command(job: ClassJob, recipe: Recipe) -> str:
    """The command line that makes this video again."""
    sizes = ("num_frames", "height", "width", "fps", "num_sampling_steps", "guidance_scale", "seed")
    names = (*sizes, "sample_method", "engine", "precision")
    values = {
        "model_path": job.options.model_path,
        "ae_path": job.options.ae_path,
        **{name: recipe[name] for name in names},
        **{name: value for name, value in recipe["decoding"].items() if value},
    }
    words = [f"--{name}={value}" for name, value in values.items() if value is not None]
    words += [f"--{word}" for word in enhancement_words(job.options)]
    label = [str(recipe["label"])] if "label" in recipe else []
    return shlex.join(["opensora", "generate-class", *label, *words])
