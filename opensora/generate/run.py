"""`opensora generate`, top to bottom: plan the videos, load the models, encode, denoise, decode, save."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from opensora import runtime
from opensora.console import memory_text
from opensora.files import only_writer, scratch_folder
from opensora.generate.estimate import estimate
from opensora.generate.options import GenerateJob
from opensora.generate.plan import PlannedVideo, plan
from opensora.generate.prompts import log_prompt_hints
from opensora.media.reader import read_result
from opensora.media.sheets import video_sheet
from opensora.media.writer import write_video
from opensora.runtime import free_memory

if TYPE_CHECKING:
    from opensora.parallel.mesh import Mesh
    from opensora.pipeline.core import LazyModel, Pipeline

log = logging.getLogger(__name__)
T = TypeVar("T")


def generate(job: GenerateJob, memory: int | None = None) -> None:
    """Make the videos of a job. memory: bytes to use; default: all free memory.

    Raises ValueError, before anything is computed or written, for files that would be overwritten, for
    weights that do not fit the model, and for videos that cannot fit in memory.
    """
    with _open_mesh(job) as mesh, _only_writer(job, mesh):
        videos = plan(job)
        todo = [video for video in videos if not video.finished]
        if len(todo) < len(videos):
            finished, folder = len(videos) - len(todo), job.options.save_img_path
            log.info("skipping %d of %d videos, which are finished in %s", finished, len(videos), folder)
        neighbours = 1
        if mesh is not None:
            neighbours = mesh.processes_here()  # also a barrier: every process has planned before one writes
            team, teams = mesh.data
            todo = todo[team::teams]
        if job.options.decode_latents:
            _check_latents(job, todo)
        if todo:
            free = (free_memory() if memory is None else memory) // neighbours
            make_videos(job, load_pipeline(job, todo, free, mesh), todo)
        if mesh is not None:
            mesh.world.agree()
        if mesh is None or mesh.is_first:
            _add_contact_sheets(job, videos)


@contextmanager
def _open_mesh(job: GenerateJob) -> Iterator["Mesh | None"]:
    """The processes of the job; None for a single process, which needs no MindSpore before it has planned."""
    options = job.options
    if not (runtime.launched() or options.use_parallel or options.cfg_parallel or options.sp_size > 1):
        yield None
        return
    runtime.set_device(options.device)
    from opensora.parallel.mesh import open_mesh

    guidance = 2 if options.cfg_parallel else 1
    with open_mesh(options.sp_size, guidance, options.use_parallel, options.rank_timeout) as mesh:
        yield mesh


def _check_latents(job: GenerateJob, videos: Sequence[PlannedVideo]) -> None:
    """Read all latents once, so that a damaged file is found before the models are loaded."""
    from opensora.generate.stages import saved_latents

    for video in videos:
        saved_latents(job, video)


def _only_writer(job: GenerateJob, mesh: "Mesh | None") -> AbstractContextManager[None]:
    """The folder for the job's videos, which the job's first process locks."""
    if mesh is not None and not mesh.is_first:
        return nullcontext()
    return only_writer(Path(job.options.save_img_path), "save_img_path")


def load_pipeline(
    job: GenerateJob, videos: Sequence[PlannedVideo], free: int, mesh: "Mesh | None"
) -> "Pipeline":
    """Log an estimate, then open the models that this run needs. free: bytes of memory to use."""
    expected = estimate(job, videos, free)
    log_prompt_hints(job)
    options, engine = job.options, job.options.engine_here
    if mesh is not None:
        engine = "mindspore"
    if engine == "mindspore":
        runtime.set_device(options.device)
    from opensora.pipeline.core import Pipeline

    resident, share_decoding = expected.memory_resident <= free or options.decode_latents, False
    if mesh is not None:
        # With fewer videos than processes each decodes a part of every video. Tiles are not shared.
        share_decoding = job.vae_policy.tiling is None and mesh.team.size > len(videos)
        resident = all(mesh.team.agree(resident))  # the processes of a team go through the stages together
    if not resident:
        needed, available = memory_text(expected.memory_resident), memory_text(free)
        log.info("loading one model at a time: together they need %s, and %s are free", needed, available)
    pipe = Pipeline(
        job.spec,
        pretrained_ckpt=options.pretrained_ckpt,
        engine=engine,
        precision=options.precision,
        weights_dtype=options.weights_dtype,
        resident=resident,
        vae_policy=job.vae_policy,
        mesh=mesh,
        share_decoding=share_decoding,
    )
    models: list[LazyModel[Any]] = [] if options.decode_latents else [pipe.transformer, pipe.text]
    pipe.load(models if options.save_latents else [pipe.vae, *models])
    return pipe


def make_videos(job: GenerateJob, pipe: "Pipeline", videos: Sequence[PlannedVideo]) -> None:
    """Take the videos through the stages, a batch at a time; all at once if only one model fits in memory."""
    from opensora.generate.stages import Stages

    options, folder = job.options, Path(job.options.save_img_path)
    folder.mkdir(parents=True, exist_ok=True)
    all_batches = _split(videos, options.batch_size)
    # The processes of a team decode a batch each at the same time.
    rounds = _split(all_batches, pipe.mesh.team.size if pipe.resident else len(all_batches))
    with nullcontext() if pipe.resident else scratch_folder(folder) as between:
        stages = Stages(job, pipe, videos, between)
        for batches in rounds:
            if options.decode_latents:
                stages.read_latents(batches)
            else:
                stages.encode(batches)  # prompts -> embeddings (L, D)
                pipe.release(pipe.text)
                stages.denoise(batches)  # noise -> latents (C, T, h, w)
                pipe.release(pipe.transformer)
            if options.save_latents:
                stages.save_latents(batches)
            else:
                stages.decode(batches)  # latents -> frames (F, H, W, 3) -> file
                pipe.release(pipe.vae)


def _split(items: Sequence[T], size: int) -> Sequence[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _add_contact_sheets(job: GenerateJob, videos: Sequence[PlannedVideo]) -> None:
    """Contact sheets of videos that an earlier run made without them."""
    if not job.options.contact_sheet or job.options.save_latents:
        return
    for video in videos:
        if not video.sheet.is_file():
            write_video(video.sheet, video_sheet(read_result(video.path))[None])
