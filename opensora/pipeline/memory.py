"""Refuse a call that cannot fit in memory before anything is allocated."""

import logging
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

MUCH = 2**30
log = logging.getLogger(__name__)


class GraphMemory:
    """Says once by how much a process grew for graphs that MindSpore does not let go."""

    def __init__(self) -> None:
        self._bytes = 0
        self._said = False

    def add(self, size: int) -> None:
        """size: bytes that compiling took."""
        self._bytes += max(size, 0)
        if self._bytes > MUCH and not self._said:
            self._said = True
            log.warning(
                "graphs that MindSpore compiled, some for each size of a video, have taken %s and stay until "
                "the process ends: use fewer sizes, or engine='openvino', which lets them go",
                memory_text(self._bytes),
            )


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


def out_of_memory(pipe: "Pipeline", request: Request) -> MemoryError:
    """The error of a call for which the system had no memory, though it seemed to fit."""
    return MemoryError(
        f"{request.sampling.described(len(request.seeds))}: memory ran out, of which "
        f"{memory_text(needed_bytes(pipe, request))} are needed at least; choose a smaller num_frames, "
        "height or width, or close other programs"
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
