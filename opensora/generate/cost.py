"""What a run takes, told before it starts: operations, memory and time. Loads without MindSpore."""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from opensora.diffusion import make_sampler
from opensora.diffusion.guidance import is_guided
from opensora.models import flops
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.latte.config import LatteConfig
from opensora.models.t5.config import T5Config
from opensora.pipeline import memory
from opensora.pipeline.sampling import latent_frames
from opensora.pipeline.settings import Sampling
from opensora.weights import ModelFolder, load_config

if TYPE_CHECKING:
    from opensora.models.causal_vae.tiling import Tiling

STAGES = ("text", "denoise", "decode")
# Share of the machine's matrix product that each stage reaches on a CPU, and bytes a second from a disk (docs/results/full-size.md).
EFFICIENCY = {"text": 0.7, "denoise": 0.85, "decode": 0.6}
DISK = 1e9
START = 15.0  # seconds until the framework is there and the blocks are compiled
CALIBRATION_SECONDS = 0.1
CALIBRATION_SIZE = 768
WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# Float32 values that surely exist at once for each token and channel: the input of a block and its widened feed-forward.
LEAST_ACTIVATIONS = 5


@dataclass(frozen=True)
class Cost:
    """Operations are those of `opensora.models.flops`; memory is in bytes of the whole process, activations estimated."""

    forward: int
    """One forward of one video, counted as for the PyTorch original, which computes the text's keys and values for every frame."""
    evaluation: int
    """One forward while sampling, where they are computed once."""
    evaluations: int
    """How often the sampler asks the network; with guidance each of them is two forwards."""
    guided: bool
    operations: dict[str, int]
    """Of the whole run, by stage."""
    reads: int
    """Bytes that are read from the disk."""
    together: int
    """Memory with all parts loaded."""
    apart: int
    """Memory with one part after the other, the text encoder layer by layer."""
    least: int
    """What no run can do without: the largest part's weights and some of its activations. Less than `apart`."""

    def seconds(self, rate: float) -> float:
        """Time on a CPU with this many operations a second in matrix products. An estimate."""
        return (
            START
            + self.reads / DISK
            + sum(count / (rate * EFFICIENCY[stage]) for stage, count in self.operations.items())
        )


def cost(
    model: ModelFolder,
    sampling: Sampling,
    *,
    videos: int = 1,
    texts: int = 2,
    stages: Collection[str] = STAGES,
    weights_dtype: str = "fp32",
    upstream: bool = False,
    tiling: "Tiling | None" = None,
    vae_memory: str = "exact",
) -> Cost:
    """The cost of sampling `videos` videos of `texts` different texts, the negative one included."""
    latte, vae = (
        LatteConfig.from_dict(load_config(model.transformer)),
        CausalVAEConfig.from_dict(load_config(model.vae)),
    )
    size = (
        latent_frames(sampling.num_frames, vae.time_stride, upstream),
        sampling.height // vae.space_stride,
        sampling.width // vae.space_stride,
    )
    temporal = sampling.num_frames > 1
    evaluation = flops.latte_forward(latte, size, temporal=temporal, texts=0)
    evaluations = len(make_sampler(sampling.sample_method, sampling.num_sampling_steps, upstream).timesteps)
    halves = 2 if is_guided(sampling.guidance_scale) else 1
    keys_values = flops.latte_forward(latte, size, temporal=temporal) - evaluation
    t5 = None if model.text_encoder is None else T5Config.from_dict(load_config(model.text_encoder))
    operations = {
        "text": 0 if t5 is None else texts * flops.t5_encode(t5, latte.model_max_length),
        "denoise": videos * halves * (evaluations * evaluation + keys_values),
        "decode": videos * _decode(vae, size, tiling),
    }
    parts = {"text": model.text_encoder, "denoise": model.transformer, "decode": model.vae}
    weights = {stage: 0 if part is None else memory.weights_size(part) for stage, part in parts.items()}
    held = weights | {"denoise": weights["denoise"] * WEIGHT_BYTES[weights_dtype] // memory.FLOAT}
    activations = {
        "text": 0,
        "denoise": memory.denoising(model, size),
        "decode": memory.decoding(model, size, tiling, vae_memory),
    }
    # While a layer of the text encoder is read, the framework holds the one before.
    apart = held | {"text": 0 if t5 is None else 2 * weights["text"] // t5.num_layers}
    hidden = LEAST_ACTIVATIONS * halves * prod(size) // latte.patch_size**2 * latte.width * memory.FLOAT
    return Cost(
        forward=flops.latte_forward(latte, size, temporal=temporal, texts=size[0]),
        evaluation=evaluation,
        evaluations=evaluations,
        guided=halves == 2,
        operations={stage: operations[stage] for stage in stages},
        reads=sum(weights[stage] for stage in stages),
        together=memory.FRAMEWORK
        + sum(held[stage] for stage in stages)
        + max(activations[stage] for stage in stages),
        apart=memory.FRAMEWORK + max(apart[stage] + activations[stage] for stage in stages),
        least=max(
            apart[stage] // 2 if stage == "text" else held[stage] + (hidden if stage == "denoise" else 0)
            for stage in stages
        ),
    )


@dataclass(frozen=True)
class StepCost:
    """Operations of a training step on one clip, on each of the processes that share its frames (`--sp_size`)."""

    encode: int
    """Its latents, which the processes make in turn: a part of a clip for each step; nothing where they are cached."""
    encode_whole: int
    """All of them, which each process would make if it encoded the whole clip."""
    transformer: int
    """Forward and backward, on the process that has most frames."""

    @property
    def saved(self) -> float:
        """How many times as much a step would be in which each process encodes the whole clip."""
        return (self.encode_whole + self.transformer) / (self.encode + self.transformer)


def step_cost(
    model: ModelFolder,
    sampling: Sampling,
    *,
    num_images: int = 0,
    processes: int = 1,
    num_no_recompute: int = 0,
    tiling: "Tiling | None" = None,
) -> StepCost:
    """The cost of training on clips of the size that is sampled, each with some pictures, without cached latents."""
    latte, vae = (
        LatteConfig.from_dict(load_config(model.transformer)),
        CausalVAEConfig.from_dict(load_config(model.vae)),
    )
    frames = latent_frames(sampling.num_frames, vae.time_stride, False)
    pixels = ((frames - 1) * vae.time_stride + 1, sampling.height, sampling.width)
    latents = (frames, sampling.height // vae.space_stride, sampling.width // vae.space_stride)
    encode = _encode(vae, pixels, tiling) + num_images * _encode(vae, (1, *pixels[1:]), tiling)
    shape = {"num_images": num_images, "ranks": processes, "num_no_recompute": num_no_recompute}
    return StepCost(
        encode // processes, encode, flops.latte_step(latte, latents, temporal=frames > 1, **shape)
    )


def _encode(config: CausalVAEConfig, size: flops.Size, tiling: "Tiling | None") -> int:
    """Operations of encoding one video, in tiles if there are any."""
    if tiling is None:
        return flops.vae_encode(config, size)
    return sum(
        flops.vae_encode(config, tile) for tile in _tiles(size, tiling.frames, tiling.size, tiling.overlap)
    )


def _decode(config: CausalVAEConfig, size: flops.Size, tiling: "Tiling | None") -> int:
    """Operations of decoding one video, in tiles if there are any."""
    if tiling is None:
        return flops.vae_decode(config, size)
    return sum(
        flops.vae_decode(config, tile)
        for tile in _tiles(size, tiling.latent_frames, tiling.latent_size, tiling.overlap)
    )


def _tiles(size: flops.Size, frames: int, side: int, overlap: float) -> Iterator[flops.Size]:
    """The sizes of all tiles of a video or its latents."""
    from opensora.models.causal_vae.tiling import time_chunks

    lengths = [end - start for start, end in time_chunks(size[0], frames)]
    step = int(side * (1 - overlap))
    heights, widths = ([min(side, length - start) for start in range(0, length, step)] for length in size[1:])
    return product(lengths, heights, widths)


def matrix_rate() -> float:
    """Operations a second of this machine's float32 matrix product now, on the cores that this process may use."""
    square = np.ones((CALIBRATION_SIZE, CALIBRATION_SIZE), np.float32)
    best, end = float("inf"), time.perf_counter() + CALIBRATION_SECONDS
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        square @ square
        best = min(best, time.perf_counter() - start)
    return 2 * CALIBRATION_SIZE**3 / best
