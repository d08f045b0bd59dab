"""`opensora generate`: plan, load what is needed, and write each video as soon as it is finished."""

import logging
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opensora import runtime
from opensora.console import Progress, memory_text
from opensora.data.text import clean_caption
from opensora.demo_data.render import demo_set
from opensora.diffusion import make_sampler
from opensora.files import write_atomic, write_json
from opensora.generate.cost import Cost
from opensora.generate.estimate import estimate
from opensora.generate.options import GenerateJob
from opensora.generate.plan import PlannedVideo, plan, sidecar_content
from opensora.media.reader import read_video
from opensora.media.sheets import contact_sheet
from opensora.media.writer import write_video
from opensora.runtime import free_memory
from opensora.weights.folder import DEMO

if TYPE_CHECKING:
    from opensora.parallel.mesh import Mesh
    from opensora.pipeline.core import LazyModel, Pipeline

log = logging.getLogger(__name__)

TEXTS_AT_ONCE = 64


def generate(job: GenerateJob, memory: int | None = None) -> None:
    """Make the videos of a job. memory: bytes that may be used, by default what is free.

    Raises ValueError, before anything is computed or written, for files that would be overwritten, for weights that do not fit the
    model, and for what the memory surely cannot hold.
    """
    options = job.options
    if not (runtime.launched() or options.use_parallel or options.cfg_parallel or options.sp_size > 1):
        _generate(job, memory, None)
        return
    runtime.set_device(options.device)
    from opensora.parallel.mesh import open_mesh

    with open_mesh(options.sp_size, 2 if options.cfg_parallel else 1, options.use_parallel) as mesh:
        _generate(job, memory, mesh)


def _generate(job: GenerateJob, memory: int | None, mesh: "Mesh | None") -> None:
    """Make this process's part of the videos: those of its team, and of these what its team leaves to it to finish."""
    videos = plan(job)
    todo = [video for video in videos if not video.finished]
    if len(todo) < len(videos):
        log.info(
            "%d of %d are finished in %s and are skipped",
            len(videos) - len(todo),
            len(videos),
            job.options.save_img_path,
        )
    neighbours = 1
    if mesh is not None:
        neighbours = mesh.processes_here()  # and all have looked before the first one writes
        team, teams = mesh.data
        todo = todo[team::teams]
    if todo:
        free = (free_memory() if memory is None else memory) // neighbours
        found = estimate(job, todo, free)
        _say_what_is_unusual(job)
        # Brings MindSpore in.
        runtime.set_device(job.options.device)
        from opensora.pipeline.core import Pipeline

        pipe = _open(Pipeline, job, found, free, todo, mesh)
        _make(job, pipe, todo)
    if mesh is not None:
        mesh.world.agree()
        if not mesh.is_first:
            return
    if job.options.contact_sheet and not job.options.save_latents:
        for video in videos:
            if not video.sheet.is_file():
                _write_sheet(video, read_video(video.path))


def _say_what_is_unusual(job: GenerateJob) -> None:
    if job.hint:
        log.info("%s", job.hint)
    if job.options.decode_latents:
        return
    for prompt in dict.fromkeys(job.prompts):
        cleaned = clean_caption(prompt, sampling=True)
        if not cleaned:
            log.info(
                "nothing of the prompt %r is left after cleaning (the model was trained on English captions)",
                prompt[:80],
            )
        elif job.spec.paths.path == DEMO and not names_a_subject(cleaned):
            known = demo_set()
            log.info(
                "%r names no subject of the demo model, which are: %s; the demo model knows backgrounds of %s",
                prompt[:80],
                ", ".join(known.subjects),
                ", ".join(known.colours),
            )


def names_a_subject(prompt: str) -> bool:
    """Whether a cleaned prompt names one of the demo model's subjects."""
    return any(re.search(rf"\b{re.escape(subject)}\b", prompt) for subject in demo_set().subjects)


def _open(
    pipeline: type["Pipeline"],
    job: GenerateJob,
    found: Cost,
    free: int,
    videos: list[PlannedVideo],
    mesh: "Mesh | None",
) -> "Pipeline":
    """The pipeline with the parts that this run needs loaded, or at least found faultless."""
    options = job.options
    resident, share_decoding = found.memory_resident <= free or options.decode_latents, False
    if mesh is not None:
        # Fewer videos than processes: no turns to take, so they share the chunks of each; tiles are not shared.
        share_decoding = job.vae_policy.tiling is None and mesh.team.size > len(videos)
        resident = all(mesh.team.agree(resident))  # the stages of a team keep step
    if not resident:
        log.info(
            "all parts of the model together need about %s and %s are free: they are loaded one after the other",
            memory_text(found.memory_resident),
            memory_text(free),
        )
    pipe = pipeline(
        job.spec,
        pretrained_ckpt=options.pretrained_ckpt,
        precision=options.precision,
        weights_dtype=options.weights_dtype,
        resident=resident,
        vae_policy=job.vae_policy,
        mesh=mesh,
        share_decoding=share_decoding,
    )
    models: list[LazyModel[Any]] = [] if options.decode_latents else [pipe.transformer, pipe.text]
    if not options.save_latents:
        models.insert(0, pipe.vae)
    pipe.load(models)
    return pipe


def _make(job: GenerateJob, pipe: "Pipeline", videos: list[PlannedVideo]) -> None:
    folder = Path(job.options.save_img_path)
    folder.mkdir(parents=True, exist_ok=True)
    size = job.options.batch_size
    batches = _batches(videos, size)
    place: Any = (
        nullcontext() if pipe.resident else tempfile.TemporaryDirectory(prefix=".opensora-", dir=folder)
    )
    with place as temporary:
        run = Run(job, pipe, StageStore(temporary), videos)
        stages = run.stages()
        if pipe.resident:
            # A team decodes as many batches at once as it has processes.
            together = pipe.mesh.team.size
            for first in range(0, len(batches), together):
                for stage, _ in stages:
                    for batch in batches[first : first + together]:
                        stage(batch)
            return
        for stage, part in stages:
            # The text encoder is read from the disk layer by layer: once for many texts.
            for batch in _batches(videos, max(size, TEXTS_AT_ONCE)) if part is pipe.text else batches:
                stage(batch)
            pipe.release(part)


def _batches(videos: list[PlannedVideo], size: int) -> list[list[PlannedVideo]]:
    return [videos[start : start + size] for start in range(0, len(videos), size)]


class StageStore:
    """Arrays by name between the stages: in memory, or in files of a folder."""

    def __init__(self, folder: str | None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._arrays: dict[str, tuple[np.ndarray, ...]] = {}
        self._files: dict[str, Path] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._arrays or name in self._files

    def put(self, name: str, *arrays: np.ndarray) -> None:
        if self._folder is None:
            self._arrays[name] = arrays
        else:
            self._files[name] = self._folder / f"{len(self._files)}.npz"
            np.savez(self._files[name], *arrays)

    def get(self, name: str) -> tuple[np.ndarray, ...]:
        if name in self._arrays:
            return self._arrays[name]
        with np.load(self._files[name]) as arrays:
            return tuple(arrays.values())

    def drop(self, name: str) -> None:
        """Forget a name in memory; files stay until the folder goes."""
        self._arrays.pop(name, None)


class Run:
    """The stages of one run, each a function of a batch of videos; what they hand on lies on the shelf."""

    def __init__(
        self, job: GenerateJob, pipe: "Pipeline", shelf: StageStore, videos: Sequence[PlannedVideo]
    ) -> None:
        self.job = job
        self.pipe = pipe
        self.shelf = shelf
        self.total = len(videos)
        self.sampled = self.finished = 0
        self.uses = Counter(video.prompt for video in videos)

    def stages(self) -> list[tuple[Callable[[Sequence[PlannedVideo]], None], "LazyModel[Any]"]]:
        """The stages that this run needs, each with the part of the model that it works with."""
        pipe = self.pipe
        if self.job.options.decode_latents:
            return [(self.read_latents, pipe.vae), (self.finish, pipe.vae)]
        last = (
            (self.keep_latents, pipe.transformer)
            if self.job.options.save_latents
            else (self.finish, pipe.vae)
        )
        return [(self.encode, pipe.text), (self.sample, pipe.transformer), last]

    def encode(self, batch: Sequence[PlannedVideo]) -> None:
        wanted = dict.fromkeys((self.job.options.negative_prompt, *(video.prompt for video in batch)))
        texts = [text for text in wanted if f"text {text}" not in self.shelf]
        if texts:
            embeds, masks = self.pipe.encode(texts)
            for i, text in enumerate(texts):
                self.shelf.put(f"text {text}", embeds[i : i + 1], masks[i : i + 1])

    def sample(self, batch: Sequence[PlannedVideo]) -> None:
        sampling, upstream = self.job.sampling, self.job.options.upstream
        texts = [self.shelf.get(f"text {video.prompt}") for video in batch]
        embeds, mask = (np.concatenate(arrays) for arrays in zip(*texts, strict=True))
        negative = self.shelf.get(f"text {self.job.options.negative_prompt}")
        first, self.sampled = self.sampled + 1, self.sampled + len(batch)
        span = f"{first}" if len(batch) == 1 else f"{first}-{self.sampled}"
        progress = Progress(f"video {span} of {self.total}", evaluations(self.job))
        seeds = [video.seed for video in batch]
        latents = self.pipe.sample(
            sampling, (embeds, mask), (negative[0], negative[1]), seeds, upstream, progress.step
        )
        for video, value in zip(batch, latents, strict=True):
            self.shelf.put(f"latents {video.path}", value)
            self.uses[video.prompt] -= 1
            if not self.uses[video.prompt] and video.prompt != self.job.options.negative_prompt:
                self.shelf.drop(f"text {video.prompt}")

    def read_latents(self, batch: Sequence[PlannedVideo]) -> None:
        for video in batch:
            self.shelf.put(f"latents {video.path}", np.load(video.latents))

    def keep_latents(self, batch: Sequence[PlannedVideo]) -> None:
        for video in self._own(batch):
            (latents,) = self.shelf.get(f"latents {video.path}")
            write_json(video.sidecar, sidecar_content(video, self.job))
            write_atomic(video.path, partial(np.save, arr=latents))
            log.info("%s", video.path)
        self._drop_latents(batch)

    def finish(self, batch: Sequence[PlannedVideo]) -> None:
        """Decode and write. The sidecar comes first and the video last: where there is a video, all of it is there."""
        own = self._own(batch)
        for video in batch if self.pipe.share_decoding else own:
            (latents,) = self.shelf.get(f"latents {video.path}")
            frames = self.pipe.decode(latents[None]).asnumpy()[0, : video.recipe["num_frames"]]
            if video not in own:
                continue
            write_json(video.sidecar, sidecar_content(video, self.job))
            if self.job.options.contact_sheet:
                _write_sheet(video, frames)
            write_video(video.path, frames, video.recipe["fps"])
            log.info("%s", video.path)
        self._drop_latents(batch)

    def _drop_latents(self, batch: Sequence[PlannedVideo]) -> None:
        for video in batch:
            self.shelf.drop(f"latents {video.path}")

    def _own(self, batch: Sequence[PlannedVideo]) -> list[PlannedVideo]:
        """Those videos of a batch that this process finishes: the team, which holds all latents, takes turns."""
        team = self.pipe.mesh.team
        first, self.finished = self.finished, self.finished + len(batch)
        return [video for i, video in enumerate(batch, first) if i % team.size == team.index]


def evaluations(job: GenerateJob) -> int:
    """How often the sampler calls the network."""
    return len(
        make_sampler(
            job.sampling.sample_method, job.sampling.num_sampling_steps, job.options.upstream
        ).timesteps
    )


def _write_sheet(video: PlannedVideo, frames: np.ndarray) -> None:
    write_video(video.sheet, contact_sheet(frames)[None])
