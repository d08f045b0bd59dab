"""What `opensora generate` says before it starts: what the run takes, a quicker choice where it is long, or why it cannot fit."""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from opensora.console import memory_text, operations_text, time_text
from opensora.generate.cost import EFFICIENCY, Cost, cost, matrix_rate
from opensora.generate.options import GenerateJob, GenerateOptions
from opensora.generate.plan import PlannedVideo
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.memory import choose
from opensora.pipeline.memory import decoding, free_swap
from opensora.pipeline.sampling import latent_frames
from opensora.weights import load_config

if TYPE_CHECKING:
    from opensora.models.causal_vae.tiling import Tiling

log = logging.getLogger(__name__)

LONG = 1200.0  # seconds from which on a quicker choice is named
QUICK: dict[str, Any] = {"sample_method": "DPM++2M", "num_sampling_steps": 20}


def estimate(job: GenerateJob, videos: Sequence[PlannedVideo], tiling: "Tiling | None", free: int) -> Cost:
    """Say in one line what these videos take, and name a quicker command where that is long.

    free: bytes that may be used. Raises ValueError for what surely needs more on a CPU, even with what is free of the swap space.
    """
    found = _cost(job, videos, tiling)
    most = free + free_swap()
    if job.options.device == "CPU" and most < found.least:
        raise ValueError(
            f"{_what(job, videos)}: {memory_text(found.least)} are needed at the very least, {memory_text(most)} are free: {_remedy(job)}"
        )
    line = f"{_what(job, videos)}: {operations_text(sum(found.operations.values()))}, about {memory_text(found.apart)} of memory or more"
    rate = matrix_rate() if job.options.device == "CPU" else None
    log.info(
        "%s%s",
        line,
        "" if rate is None else f", about {time_text(found.seconds(rate))} on this CPU (an estimate)",
    )
    if tiling is None and "decode" in found.operations:
        _say_how_to_decode(job, free, found.operations["decode"], rate)
    if rate is None:
        return found
    seconds = found.seconds(rate)
    quick = replace(job, sampling=replace(job.sampling, **QUICK))
    sooner = _cost(quick, videos, tiling).seconds(rate)
    if seconds > LONG and sooner < 0.7 * seconds:
        log.info("in about %s: %s", time_text(sooner), shlex.join(words(replace(job.options, **QUICK))))
    return found


def words(options: GenerateOptions) -> list[str]:
    """The command line of these options."""
    command = ["opensora", "generate", *options.text_prompt]
    for item in fields(options):
        value: Any = getattr(options, item.name)
        if item.name == "text_prompt" or value == item.default:
            continue
        command += [f"--{item.name}"] if value is True else [f"--{item.name}", str(value)]
    return command


def _cost(job: GenerateJob, videos: Sequence[PlannedVideo], tiling: "Tiling | None") -> Cost:
    options = job.options
    stages = (
        ["decode"]
        if options.decode_latents
        else ["text", "denoise"]
        if options.save_latents
        else ["text", "denoise", "decode"]
    )
    return cost(
        job.model,
        job.sampling,
        videos=len(videos),
        texts=1 + len({video.prompt for video in videos}),
        stages=stages,
        weights_dtype=options.weights_dtype,
        upstream=options.upstream,
        tiling=tiling,
        vae_memory="exact" if tiling else choose(options.vae_memory, options.device),
    )


def _say_how_to_decode(job: GenerateJob, free: int, operations: int, rate: float | None) -> None:
    """One line: the way that the decoder takes, and whether the whole video at once would fit."""
    options, sampling = job.options, job.sampling
    config = CausalVAEConfig.from_dict(load_config(job.model.vae))
    frames = latent_frames(sampling.num_frames, config.time_stride, options.upstream)
    size = (frames, sampling.height // config.space_stride, sampling.width // config.space_stride)
    at_once = decoding(job.model, size)
    fits = "fits" if at_once <= free else "does not fit"
    whole = f"the whole video at once takes about {memory_text(at_once)}, which {fits} in {memory_text(free)} of free memory"
    seconds = (
        "" if rate is None else f", about {time_text(operations / (rate * EFFICIENCY['decode']))} in all"
    )
    if choose(options.vae_memory, options.device) == "exact":
        log.info("decoding: exact; %s%s", whole, seconds)
        return
    taken = decoding(job.model, size, way="chunked")
    log.info("decoding: chunked, exact but for rounding, about %s%s; %s", memory_text(taken), seconds, whole)


def _what(job: GenerateJob, videos: Sequence[PlannedVideo]) -> str:
    sampling = job.sampling
    kind = "picture" if sampling.num_frames == 1 else f"video of {sampling.num_frames} frames"
    count = (
        f"1 {kind}"
        if len(videos) == 1
        else f"{len(videos)} {kind.replace('picture', 'pictures').replace('video', 'videos')}"
    )
    steps = (
        "" if job.options.decode_latents else f", {sampling.num_sampling_steps} x {sampling.sample_method}"
    )
    return f"{count}, {sampling.height}x{sampling.width}{steps}"


def _remedy(job: GenerateJob) -> str:
    smaller = "choose a smaller --num_frames, --height or --width"
    halved = (
        ""
        if job.options.weights_dtype != "fp32" or job.options.decode_latents
        else ", keep the weights as --weights_dtype bf16"
    )
    return f"{smaller}{halved}, or close other programs"
