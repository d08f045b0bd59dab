"""Estimate printed before generation; an error if it cannot fit in memory."""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from opensora.console import memory_text, operations_text, time_text
from opensora.engine import EngineError
from opensora.engine.rates import Rates, measure_rates
from opensora.generate.cost import Cost, cost
from opensora.generate.enhance_options import enhancement_bytes
from opensora.generate.options import GenerateJob, GenerateOptions
from opensora.generate.plan import PlannedVideo
from opensora.models.causal_vae.cost import decode_bytes
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.spec import STAGES
from opensora.runtime import free_swap

log = logging.getLogger(__name__)

LONG = 1200.0  # seconds; a quicker command is suggested for longer runs
QUICK: dict[str, Any] = {"sample_method": "DPM++2M", "num_sampling_steps": 20}


def estimate(job: GenerateJob, videos: Sequence[PlannedVideo], free: int) -> Cost:
    """Log the cost of these videos, and a quicker command if they take long.

    free: bytes that may be used. Raises ValueError for videos that cannot fit on a CPU, even with the free
    swap space.
    """
    expected, available = _cost(job, videos), free + free_swap()
    if job.options.device == "CPU" and available < expected.memory_min:
        raise ValueError(
            f"{_what(job, videos)}: {memory_text(expected.memory_min)} are needed at least, "
            f"{memory_text(available)} are free: {_remedy(job)}"
        )
    flops, memory = sum(expected.stage_flops.values()), memory_text(expected.memory_staged)
    line = f"{_what(job, videos)}: {operations_text(flops)}, about {memory} of memory or more"
    engine = job.options.engine_here
    rates = _rates(engine, job.options.precision) if job.options.device == "CPU" else None
    seconds = None if rates is None else expected.seconds(engine, rates)
    on_cpu = "" if seconds is None else f", about {time_text(seconds)} on this CPU (an estimate)"
    log.info("%s%s", line, on_cpu)
    if job.vae_policy.tiling is None and "decode" in expected.stage_flops:
        _log_decoding(job, free, None if rates is None else expected.stage_seconds("decode", engine, rates))
    if rates is not None and seconds is not None and seconds > LONG:
        quick = _cost(replace(job, sampling=replace(job.sampling, **QUICK)), videos).seconds(engine, rates)
        if quick < 0.7 * seconds:
            log.info("in about %s: %s", time_text(quick), shlex.join(words(replace(job.options, **QUICK))))
    return expected


def words(options: GenerateOptions) -> list[str]:
    """The command line of these options."""
    prompts = (f" {word}" if word.startswith("-") else word for word in options.text_prompt)
    command = ["opensora", "generate", *prompts]
    for item in fields(options):
        value: Any = getattr(options, item.name)
        if item.name == "text_prompt" or value == item.default:
            continue
        command += [f"--{item.name}"] if value is True else [f"--{item.name}={value}"]
    return command


def _cost(job: GenerateJob, videos: Sequence[PlannedVideo]) -> Cost:
    options = job.options
    stages: Sequence[str] = STAGES
    if options.decode_latents:
        stages = ("decode",)
    elif options.save_latents:
        stages = ("text", "denoise")
    return cost(
        job.spec,
        job.sampling,
        job.vae_policy,
        videos=len(videos),
        texts=1 + len({video.prompt for video in videos}),
        stages=stages,
        weights_dtype=options.weights_dtype,
        upstream=options.upstream,
        result_bytes=enhancement_bytes(options, job.sampling.size),
    )


def _rates(engine: str, precision: str) -> Rates:
    """The rates of the engine, or MindSpore's if OpenVINO fails: the run will then log the failure."""
    try:
        return measure_rates(engine, precision)
    except EngineError:
        return measure_rates("mindspore")


def _log_decoding(job: GenerateJob, free: int, seconds: float | None) -> None:
    """Log how videos are decoded, and whether decoding the whole video at once would fit."""
    spec = job.spec
    size = spec.latent_size(job.sampling.size, job.options.upstream)
    at_once = decode_bytes(spec.vae, size, VAEPolicy(chunked=False, engine=job.vae_policy.engine))
    fits = "fits" if at_once <= free else "does not fit"
    whole = f"the whole video at once takes about {memory_text(at_once)}, which {fits} in {memory_text(free)}"
    in_all = "" if seconds is None else f", about {time_text(seconds)} in all"
    if not job.vae_policy.in_chunks(at_once):
        log.info("decoding: exact; %s%s", whole, in_all)
        return
    taken = memory_text(decode_bytes(spec.vae, size, job.vae_policy))
    log.info("decoding: chunked, exact up to rounding, about %s%s; %s", taken, in_all, whole)


def _what(job: GenerateJob, videos: Sequence[PlannedVideo]) -> str:
    return job.sampling.described(len(videos), sampled=not job.options.decode_latents)


def _remedy(job: GenerateJob) -> str:
    remedies = ["choose a smaller --num_frames, --height or --width"]
    if job.options.weights_dtype == "fp32" and not job.options.decode_latents:
        remedies.append("use --weights_dtype bf16")
    return ", ".join(remedies) + ", or close other programs"
