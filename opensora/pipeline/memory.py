"""Refuse a call that cannot fit in memory before anything is allocated."""

from typing import TYPE_CHECKING, Any

import numpy as np

from opensora.console import memory_text
from opensora.diffusion.guidance import is_guided
from opensora.models.spec import STAGES
from opensora.pipeline.arguments import Request
from opensora.pipeline.models import LazyModel
from opensora.runtime import free_memory, free_swap

if TYPE_CHECKING:
    from opensora.pipeline.core import Pipeline


def check_memory(pipe: "Pipeline", request: Request, memory: int | None) -> None:
    """Raise ValueError for videos that cannot fit on a CPU, even with the free swap space.

    memory: bytes that may be used, by default what is free.
    """
    if pipe.engine.device != "CPU":
        return
    available = free_memory() + free_swap() if memory is None else memory
    needed = needed_bytes(pipe, request)
    if needed > available:
        raise ValueError(
            f"{request.sampling.described(len(request.seeds))}: {memory_text(needed)} are needed at least, "
            f"{memory_text(available)} are free: choose a smaller num_frames, height or width, close other "
            "programs, or raise the limit with memory="
        )


def needed_bytes(pipe: "Pipeline", request: Request) -> int:
    """The bytes that a call needs at least, beside the models that are loaded already."""
    models: dict[str, LazyModel[Any]] = {
        "text": pipe.text,
        "denoise": pipe.transformer,
        "decode": pipe.vae,
    }
    sampling = request.sampling
    least = pipe.spec.memory(
        pipe.spec.latent_size(sampling.size, request.upstream),
        pipe.vae_policy,
        stages=[name for name in STAGES if name != "text" or pipe.spec.text_encoder],
        weights_dtype=pipe.weights_dtype,
        guided=is_guided(sampling.guidance_scale),
        loaded=[name for name, model in models.items() if model.is_loaded],
    ).min
    frames = len(request.seeds) * int(np.prod(sampling.size)) * 3  # bytes of the result
    return least + frames
