"""`opensora reconstruct`, top to bottom: read clips, encode and decode them, then save and score each."""

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
from opensora.engine import choose_engine
from opensora.files import write_json
from opensora.media.formats import STILL_SUFFIXES
from opensora.media.pixels import to_bytes, to_pixels
from opensora.media.reader import probe
from opensora.media.writer import write_video
from opensora.metrics.report import table
from opensora.metrics.scores import Scores, mean_of_files, min_side
from opensora.models import CausalVAE
from opensora.models.causal_vae.cost import decode_bytes, whole_bytes
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.parallel.mesh import Mesh
from opensora.reconstruct.options import ReconstructOptions
from opensora.reconstruct.plan import COMMAND, Reconstruction, ReconstructPlan

log = logging.getLogger(__name__)


def reconstruct(work: ReconstructPlan, mesh: Mesh | None = None) -> int:
    """Reconstruct and score the files, and print the table. Returns 1 if files of a folder were skipped, else
    0.

    mesh: processes that share the files; every rank learns all scores, rank 0 prints and saves them.
    Raises ValueError for a single unreadable file, for a folder without readable ones, and for weights that
    do not fit.
    """
    mesh = mesh or Mesh()
    scores = {file.name: file.scores for file in work.files if file.scores is not None}
    if scores:
        log.info("skipping %d of %d files, which are finished", len(scores), len(work.files))
    skipped: list[dict[str, str]] = []
    mesh.world.agree()  # every rank has planned before one writes
    todo = [file for file in work.files if file.scores is None][mesh.rank :: mesh.size]
    if todo:
        _reconstruct_files(work, todo, scores, skipped)
    for their_scores, their_skipped in mesh.world.agree([scores, skipped]):
        scores |= their_scores
        skipped += [item for item in their_skipped if item not in skipped]
    if not scores:
        raise ValueError(f"none of {len(work.files)} files could be reconstructed: {skipped[0]['reason']}")
    if mesh.is_first:
        _report(work, scores, skipped)
    return 1 if skipped else 0


def _reconstruct_files(
    work: ReconstructPlan,
    files: list[Reconstruction],
    scores: dict[str, Any],
    skipped: list[dict[str, str]],
) -> None:
    """Reconstruct these files; their scores are added to `scores`, unreadable files to `skipped`."""
    vae = open_autoencoder(work.options, work.autoencoder, work.vae_policy)
    measure = Scores(work.metrics, work.options.lpips_weights)
    logged: set[tuple[int, ...]] = set()
    for batch in _batches(work, files, skipped):
        clips = np.stack([clip for _, clip in batch])  # uint8 (B, T, H, W, 3)
        if clips.shape not in logged:
            logged.add(clips.shape)
            log_memory(vae, clips.shape)
        for (file, clip), result in zip(batch, reconstruct_frames(vae, clips), strict=True):
            scores[file.name] = _save(work, file, clip, result, measure)
            log.info("%s (%d of %d)", file.target, len(scores) + len(skipped), len(work.files))


def open_autoencoder(options: ReconstructOptions, folder: Path, policy: VAEPolicy) -> CausalVAE:
    """The autoencoder on its device, in its precision."""
    engine = options.engine_here
    if engine == "mindspore":
        runtime.set_device(options.device)
    vae = CausalVAE.from_pretrained(folder, engine=choose_engine(engine, options.precision))
    vae.policy = policy
    return vae


def reconstruct_frames(vae: CausalVAE, clips: np.ndarray) -> np.ndarray:
    """Encode to the mean latents and decode: uint8 (B, T, H, W, 3) -> the same shape.

    The last frame is repeated up to the n * stride + 1 frames that the autoencoder takes, and the surplus is
    cut off again. On a CPU clips run one by one, so that the result does not depend on the batch.
    """
    length = clips.shape[1]
    padding = np.repeat(clips[:, -1:], _missing_frames(vae, length), axis=1)
    clips = np.concatenate([clips, padding], axis=1)
    size = 1 if vae.engine.device == "CPU" else len(clips)
    results = []
    for start in range(0, len(clips), size):
        video = vae.engine.input(to_pixels(clips[start : start + size]))  # (B, 3, T, H, W) in [-1, 1]
        latents = vae.encode(video).mode()  # (B, C, t, h, w)
        pixels = vae.engine.output(vae.decode(latents))  # (B, 3, T, H, W)
        results.append(to_bytes(pixels)[:, :length])
    return np.concatenate(results)


def _missing_frames(vae: CausalVAE, length: int) -> int:
    return -(length - 1) % vae.config.strides.time


def log_memory(vae: CausalVAE, shape: tuple[int, ...]) -> None:
    """Log how clips of one shape (B, T, H, W, 3) are processed, and the memory that it takes."""
    batch, frames, height, width, _ = shape
    strides, policy = vae.config.strides, vae.policy
    latent_size = strides.latent_size((frames, height, width))
    if policy.tiling is not None and policy.tiling.splits(strides.pixel_size(latent_size)):
        how = "in tiles"
    elif policy.in_chunks(whole_bytes(vae.config, strides.pixel_size(latent_size), engine=policy.engine)):
        how = "in chunks, exact up to rounding"
    else:
        how = "the whole video at once"
    batch = 1 if vae.engine.device == "CPU" else batch
    memory = memory_text(decode_bytes(vae.config, latent_size, policy, batch))
    log.info("%d frames of %dx%d: %s, about %s of memory; compiling", frames, height, width, how, memory)


def _batches(
    work: ReconstructPlan, files: list[Reconstruction], skipped: list[dict[str, str]]
) -> Iterator[list[tuple[Reconstruction, np.ndarray]]]:
    """Batches of clips of one shape. Unreadable files of a folder are logged and added to `skipped`."""
    batch: list[tuple[Reconstruction, np.ndarray]] = []
    for file, read in read_ahead(lambda file: _read(work, file), files, work.options.num_workers):
        try:
            clip = read()
        except ValueError as error:
            if work.summary is None:
                raise
            log.info("skipping %s: %s", file.name, error)
            skipped.append({"file": file.name, "reason": str(error)})
            continue
        if batch and (len(batch) == work.options.batch_size or batch[0][1].shape != clip.shape):
            yield batch
            batch = []
        batch.append((file, clip))
    if batch:
        yield batch


def _read(work: ReconstructPlan, file: Reconstruction) -> np.ndarray:
    """The clip of a file, uint8 (T, H, W, 3). Raises ValueError that names the file."""
    options, start = work.options, 0
    if options.dynamic_start_index:
        room = probe(file.source).frames - (options.num_frames - 1) * options.sample_rate
        rng = np.random.default_rng([options.seed, zlib.crc32(file.name.encode())])
        start = int(rng.integers(max(room, 1)))
    clip = work.shape.read(file.source, start)
    frames, height, width, _ = clip.shape
    if min(height, width) < min_side(work.metrics):
        raise ValueError(
            f"{file.source} has frames of {height}x{width}, too small to be scored: "
            "enlarge them, for example with --resolution 64"
        )
    if frames > 1 and file.target.suffix.lower() in STILL_SUFFIXES:
        raise ValueError(
            f"{file.target} cannot hold {frames} frames: choose .mp4, .gif or .webp, or --num_frames 1"
        )
    if frames < options.num_frames and file.source.suffix.lower() not in STILL_SUFFIXES:
        log.info("%s has only %d of %d frames", file.name, frames, options.num_frames)
    return clip


def _save(
    work: ReconstructPlan, file: Reconstruction, clip: np.ndarray, result: np.ndarray, measure: Scores
) -> dict[str, Any]:
    """Score and save. The sidecar is written first and the result last: an existing result is complete."""
    frames, height, width, _ = clip.shape
    scores = {"frames": frames, "height": height, "width": width, **measure.pair(clip, result)}
    fps = (work.options.fps or probe(file.source).fps) / work.options.sample_rate
    file.write_sidecar(COMMAND, autoencoder=str(work.autoencoder), figures=scores)
    if work.options.output_origin:
        file.origin.parent.mkdir(exist_ok=True)
        write_video(file.origin, clip, fps)
    write_video(file.target, np.concatenate([clip, result], axis=2) if work.options.grid else result, fps)
    return scores


def _report(work: ReconstructPlan, scores: dict[str, Any], skipped: list[dict[str, str]]) -> None:
    """Print the table, and save the summary of a folder."""
    files = [{"file": file.name, **scores[file.name]} for file in work.files if file.name in scores]
    total = mean_of_files([{name: item[name] for name in work.metrics} for item in files])
    print(table(files, total))
    if work.summary is not None:
        summary = {"command": COMMAND, "options": asdict(work.options), "total": total}
        write_json(work.summary, {**summary, "files": files, "skipped": skipped})
        log.info("%s", work.summary)
