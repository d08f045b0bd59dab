"""`opensora reconstruct`: files through the autoencoder and back, each written and measured as soon as it is finished."""

import logging
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from opensora import runtime
from opensora.console import memory_text
from opensora.data.read_ahead import read_ahead
from opensora.files import write_json
from opensora.media.formats import STILL_SUFFIXES
from opensora.media.pixels import to_bytes, to_pixels
from opensora.media.reader import probe
from opensora.media.writer import write_video
from opensora.metrics.report import table
from opensora.metrics.scores import Scores, mean_of_files, min_side
from opensora.models import CausalVAE
from opensora.models.causal_vae.cost import decode_bytes
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.parallel.mesh import Mesh
from opensora.reconstruct.options import ReconstructOptions
from opensora.reconstruct.plan import COMMAND, PlannedFile, ReconstructPlan
from opensora.runtime import versions

ms = runtime.mindspore()
log = logging.getLogger(__name__)


def reconstruct(work: ReconstructPlan, mesh: Mesh | None = None) -> int:
    """Make and measure the reconstructions, print the table. Returns 0, or 1 where files of a folder could not be read; they are named.

    mesh: processes that share the files, by default this one alone; all know every figure, and the first one prints and writes them.
    Raises ValueError for a single file that cannot be read, for a folder of such files, and for weights that do not fit.
    """
    options, mesh = work.options, mesh or Mesh()
    todo = [planned for planned in work.files if planned.figures is None]
    if len(todo) < len(work.files):
        log.info("%d of %d are finished and are skipped", len(work.files) - len(todo), len(work.files))
    figures = {planned.name: planned.figures for planned in work.files if planned.figures is not None}
    skipped: list[dict[str, str]] = []
    mesh.world.agree()  # all have looked before the first one writes
    todo = todo[mesh.rank :: mesh.size]
    if todo:
        vae = open_autoencoder(options, work.autoencoder, work.vae_policy)
        scores = Scores(work.metrics, options.lpips_weights)
        seen: set[tuple[int, ...]] = set()
        for batch in _batches(work, todo, skipped):
            clips = np.stack([clip for _, clip in batch])
            if clips.shape not in seen:
                seen.add(clips.shape)
                say_how(vae, clips.shape)
            for (planned, clip), result in zip(batch, reconstruct_frames(vae, clips), strict=True):
                figures[planned.name] = _finish(work, planned, clip, result, scores)
                log.info("%s (%d of %d)", planned.target, len(figures) + len(skipped), len(work.files))
    for theirs, left_out in mesh.world.agree([figures, skipped]):
        figures |= theirs
        skipped += [item for item in left_out if item not in skipped]
    files = [
        {"file": planned.name, **figures[planned.name]} for planned in work.files if planned.name in figures
    ]
    if not files:
        raise ValueError(
            f"none of {len(work.files)} files could be reconstructed, the first because {skipped[0]['reason']}"
        )
    total = mean_of_files([{name: item[name] for name in work.metrics} for item in files])
    if mesh.is_first:
        print(table(files, total))
    if work.summary is not None and mesh.is_first:
        write_json(
            work.summary,
            {
                "command": COMMAND,
                "options": asdict(options),
                "total": total,
                "files": files,
                "skipped": skipped,
            },
        )
        log.info("%s", work.summary)
    return 1 if skipped else 0


def open_autoencoder(options: ReconstructOptions, folder: Path, policy: VAEPolicy) -> CausalVAE:
    """The autoencoder on its device, in its number format."""
    runtime.set_device(options.device)
    dtype = runtime.compute_dtype(options.precision)
    vae = CausalVAE.from_pretrained(folder)
    vae.weights = {name: value.astype(dtype) for name, value in vae.weights.items()}
    vae.policy = policy
    return vae


def say_how(vae: CausalVAE, shape: tuple[int, ...]) -> None:
    """One line for clips of one shape (B, T, H, W, 3): how they are computed, and the memory that takes."""
    batch, frames, height, width, _ = shape
    strides, policy = vae.config.strides, vae.policy
    latent_size = strides.latent_size((frames, height, width))
    if policy.tiling is not None and policy.tiling.splits(strides.pixel_size(latent_size)):
        how = "in tiles, compiled first"
    elif policy.chunked:
        how = "in chunks, exact but for rounding"
    else:
        how = "the whole video at once, compiled first"
    taken = decode_bytes(vae.config, latent_size, policy, 1 if runtime.device() == "CPU" else batch)
    log.info("%d frames of %dx%d: %s, about %s of memory", frames, height, width, how, memory_text(taken))


def reconstruct_frames(vae: CausalVAE, clips: np.ndarray) -> np.ndarray:
    """Encode to the mean latents and decode: uint8 (B, T, H, W, 3) -> the same shape.

    The autoencoder takes 4n + 1 frames: the last one is repeated up to there, and what it becomes is cut off again. On a CPU each
    video goes by itself, so that its bytes do not depend on the batch.
    """
    frames = clips.shape[1]
    filled = np.concatenate([clips, np.repeat(clips[:, -1:], _surplus(vae, frames), axis=1)], axis=1)
    size = 1 if runtime.device() == "CPU" else len(clips)
    dtype = next(iter(vae.weights.values())).dtype
    results = []
    for start in range(0, len(clips), size):
        video = ms.Tensor(to_pixels(filled[start : start + size])).astype(dtype)
        pixels = vae.decode(vae.encode(video).mode())
        results.append(to_bytes(pixels.astype(ms.float32).asnumpy())[:, :frames])
    return np.concatenate(results)


def _surplus(vae: CausalVAE, frames: int) -> int:
    """Frames that are missing to 4n + 1."""
    return -(frames - 1) % vae.config.strides.time


def _batches(
    work: ReconstructPlan, todo: list[PlannedFile], skipped: list[dict[str, str]]
) -> Iterator[list[tuple[PlannedFile, np.ndarray]]]:
    """Clips of one shape, as many as go through together. In a folder run a file that cannot be read is named and added to `skipped`."""
    batch: list[tuple[PlannedFile, np.ndarray]] = []
    for planned, clip in read_ahead(lambda planned: _read(work, planned), todo, work.options.num_workers):
        try:
            video = clip()
        except ValueError as error:
            if work.summary is None:
                raise
            log.info("%s is skipped: %s", planned.name, error)
            skipped.append({"file": planned.name, "reason": str(error)})
            continue
        if batch and (len(batch) == work.options.batch_size or batch[0][1].shape != video.shape):
            yield batch
            batch = []
        batch.append((planned, video))
    if batch:
        yield batch


def _read(work: ReconstructPlan, planned: PlannedFile) -> np.ndarray:
    """The frames that the options choose. Raises ValueError that names the file."""
    options, start = work.options, 0
    if options.dynamic_start_index:
        room = probe(planned.source).frames - (options.num_frames - 1) * options.sample_rate
        rng = np.random.default_rng([options.seed, zlib.crc32(planned.name.encode())])
        start = int(rng.integers(max(room, 1)))
    clip = work.shape.read(planned.source, start)
    frames, height, width, _ = clip.shape
    least = min_side(work.metrics)
    if min(height, width) < least:
        raise ValueError(
            f"{planned.source} gives frames of {height}x{width}, too small to be compared: enlarge them, as with --resolution 64"
        )
    if frames > 1 and planned.target.suffix.lower() in STILL_SUFFIXES:
        raise ValueError(
            f"{planned.target} cannot hold {frames} frames: choose .mp4, .gif or .webp, or --num_frames 1"
        )
    if frames < options.num_frames and planned.source.suffix.lower() not in STILL_SUFFIXES:
        log.info(
            "%s has no more than %d such frames of the %d asked for: they are used",
            planned.name,
            frames,
            options.num_frames,
        )
    return clip


def _finish(
    work: ReconstructPlan, planned: PlannedFile, clip: np.ndarray, result: np.ndarray, scores: Scores
) -> dict[str, Any]:
    """Measure and write. The sidecar comes first and the result last: where there is a result, all of it is there."""
    frames, height, width, _ = clip.shape
    figures = {"frames": frames, "height": height, "width": width, **scores.pair(clip, result)}
    fps = work.options.fps or work.options.sample_fps or probe(planned.source).fps
    fps /= work.options.sample_rate
    content = {
        "command": COMMAND,
        "recipe": planned.recipe(),
        "source": str(planned.source),
        "autoencoder": str(work.autoencoder),
    }
    planned.target.parent.mkdir(parents=True, exist_ok=True)
    write_json(planned.sidecar, {**content, "figures": figures, "versions": versions()})
    if work.options.output_origin:
        planned.origin.parent.mkdir(exist_ok=True)
        write_video(planned.origin, clip, fps)
    write_video(planned.target, np.concatenate([clip, result], axis=2) if work.options.grid else result, fps)
    return figures
