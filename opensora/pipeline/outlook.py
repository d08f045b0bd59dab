"""What `opensora generate` says before it starts: what the run takes, a quicker choice where it is long, or why it cannot fit."""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from opensora.options import GenerateJob, GenerateOptions
from opensora.pipeline.cost import Cost, cost, matrix_rate, memory_text, operations_text, time_text
from opensora.pipeline.memory import free_swap
from opensora.pipeline.plan import Planned

if TYPE_CHECKING:
    from opensora.models.tiling import Tiling

log = logging.getLogger(__name__)

LONG = 1200.0  # seconds from which on a quicker choice is named
QUICK: dict[str, Any] = {"sample_method": "DPM++2M", "num_sampling_steps": 20}


def foresee(job: GenerateJob, videos: Sequence[Planned], tiling: "Tiling | None", free: int) -> Cost:
    """Say in one line what these videos take, and name a quicker command where that is long.

    free: bytes that may be used. Raises ValueError for what surely needs more, even with what is free of the swap space.
    """
    found = _cost(job, videos, tiling)
    most = free + free_swap()
    if most < found.least:
        raise ValueError(
            f"{_what(job, videos)} need {memory_text(found.least)} at the very least and {memory_text(most)} are free: {_remedy(job)}"
        )
    line = f"{_what(job, videos)}: {operations_text(sum(found.operations.values()))}, about {memory_text(found.apart)} of memory or more"
    if job.options.device != "CPU":
        log.info("%s", line)
        return found
    rate = matrix_rate()
    seconds = found.seconds(rate)
    log.info("%s, about %s on this CPU (an estimate)", line, time_text(seconds))
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


def _cost(job: GenerateJob, videos: Sequence[Planned], tiling: "Tiling | None") -> Cost:
    options = job.options
    stages = ["decode"] if options.decode_latents else ["text", "denoise"] if options.save_latents else ["text", "denoise", "decode"]
    return cost(
        job.model,
        job.sampling,
        videos=len(videos),
        texts=1 + len({video.prompt for video in videos}),
        stages=stages,
        weights_dtype=options.weights_dtype,
        upstream=options.upstream,
        tiling=tiling,
    )


def _what(job: GenerateJob, videos: Sequence[Planned]) -> str:
    sampling, count = job.sampling, len(videos)
    frames = "1 picture" if sampling.num_frames == 1 and count == 1 else f"{count} pictures" if sampling.num_frames == 1 else ""
    kind = frames or f"{count} video{'s' if count > 1 else ''} of {sampling.num_frames} frames"
    steps = "" if job.options.decode_latents else f", {sampling.num_sampling_steps} steps of {sampling.sample_method}"
    return f"{kind}, {sampling.height}x{sampling.width}{steps}"


def _remedy(job: GenerateJob) -> str:
    smaller = "choose a smaller --num_frames, --height or --width"
    halved = "" if job.options.weights_dtype != "fp32" or job.options.decode_latents else ", keep the weights as --weights_dtype bf16"
    return f"{smaller}{halved}, or close other programs"
