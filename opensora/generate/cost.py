"""The cost of generating videos: operations, memory and time. Does not import MindSpore."""

from collections.abc import Collection
from dataclasses import dataclass

from opensora.diffusion import make_sampler
from opensora.diffusion.guidance import is_guided
from opensora.engine.rates import Rates
from opensora.models.causal_vae import cost as vae_cost
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.causal_vae.tiling import Tiling
from opensora.models.latte import cost as latte_cost
from opensora.models.spec import FRAMEWORK, STAGES, ModelSpec
from opensora.models.t5 import cost as t5_cost
from opensora.pipeline.settings import Sampling

# Fraction of the speed of a matrix product, or of a convolution, that each stage reaches on a CPU
# (docs/results/full-size.md), and seconds to import an engine and compile.
EFFICIENCY = {
    "mindspore": {"text": 0.7, "denoise": 0.85, "decode": 0.6},
    "openvino": {"text": 0.8, "denoise": 0.8, "decode": 0.85},
}
START = {"mindspore": 15.0, "openvino": 2.0}
DISK = 1e9  # bytes per second


@dataclass(frozen=True)
class Cost:
    """Floating-point operations, and memory in bytes of the whole process, with activations estimated."""

    forward_flops: int
    """One forward for one video as in the reference, with the text's keys and values for every frame."""
    step_flops: int
    """One forward of a sampling step here, where they are computed once for all steps."""
    num_steps: int
    """Sampling steps that call the network; with guidance each takes two forwards."""
    guided: bool
    stage_flops: dict[str, int]
    """Operations of the whole run, by stage."""
    disk_bytes: int
    """Bytes read from the disk."""
    memory_resident: int
    """Bytes with all models loaded."""
    memory_staged: int
    """Bytes with one model after the other, the text encoder layer by layer."""
    memory_min: int
    """Bytes that every run needs. Less than `memory_staged`."""

    def seconds(self, engine: str, rates: Rates) -> float:
        """Estimated time on a CPU. rates: of the engine, see `measure_rates`."""
        computing = sum(self.stage_seconds(stage, engine, rates) for stage in self.stage_flops)
        return START[engine] + self.disk_bytes / DISK + computing

    def stage_seconds(self, stage: str, engine: str, rates: Rates) -> float:
        """Estimated computing time of a stage."""
        rate = rates.convolutions if stage == "decode" else rates.products
        return self.stage_flops[stage] / (rate * EFFICIENCY[engine][stage])


def cost(
    spec: ModelSpec,
    sampling: Sampling,
    policy: VAEPolicy,
    *,
    videos: int = 1,
    texts: int = 2,
    stages: Collection[str] = STAGES,
    weights_dtype: str = "fp32",
    upstream: bool = False,
    result_bytes: int = 0,
) -> Cost:
    """The cost of sampling `videos` videos of `texts` different texts, the negative one included.

    policy: how they are decoded. stages: those that run. result_bytes: bytes of a video's frames after
    decoding.
    """
    latte, t5 = spec.transformer, spec.text_encoder
    latent_size = spec.latent_size(sampling.size, upstream)
    temporal, guided = sampling.num_frames > 1, is_guided(sampling.guidance_scale)
    num_steps = len(make_sampler(sampling.sample_method, sampling.num_sampling_steps, upstream).timesteps)
    step = latte_cost.forward_flops(latte, latent_size, temporal=temporal, texts=0)
    keys_values = latte_cost.forward_flops(latte, latent_size, temporal=temporal) - step
    stage_flops = {
        "text": 0 if t5 is None else texts * t5_cost.encode_flops(t5, spec.text_length),
        "denoise": videos * (2 if guided else 1) * (num_steps * step + keys_values),
        "decode": videos * vae_cost.decode_flops(spec.vae, latent_size, policy.tiling),
    }
    memory = spec.memory(latent_size, policy, stages=stages, weights_dtype=weights_dtype, guided=guided)
    return Cost(
        forward_flops=latte_cost.forward_flops(latte, latent_size, temporal=temporal, texts=latent_size[0]),
        step_flops=step,
        num_steps=num_steps,
        guided=guided,
        stage_flops={stage: stage_flops[stage] for stage in stages},
        disk_bytes=sum(spec.weight_bytes[stage] for stage in stages),
        memory_resident=memory.resident,
        memory_staged=max(memory.staged, FRAMEWORK + result_bytes),
        memory_min=max(memory.min, result_bytes),
    )


@dataclass(frozen=True)
class TrainingCost:
    """Operations of a training step on one clip, per process that shares its frames (`--sp_size`)."""

    encode: int
    """Latents of a part of a clip: the processes encode the clips of coming steps in turn."""
    encode_whole: int
    """Latents of a whole clip, which each process would encode if they did not take turns."""
    transformer: int
    """Forward and backward, on the process that has most frames."""

    @property
    def saved(self) -> float:
        """How many times more a step would cost if each process encoded the whole clip."""
        return (self.encode_whole + self.transformer) / (self.encode + self.transformer)


def training_cost(
    spec: ModelSpec,
    sampling: Sampling,
    *,
    num_images: int = 0,
    processes: int = 1,
    num_no_recompute: int = 0,
    tiling: Tiling | None = None,
) -> TrainingCost:
    """The cost of training on clips and `num_images` images each, without cached latents."""
    latent_size = spec.latent_size(sampling.size)
    clip = spec.strides.pixel_size(latent_size)
    encode = vae_cost.encode_flops(spec.vae, clip, tiling)
    encode += num_images * vae_cost.encode_flops(spec.vae, (1, *clip[1:]), tiling)
    transformer = latte_cost.step_flops(
        spec.transformer,
        latent_size,
        temporal=latent_size[0] > 1,
        num_images=num_images,
        ranks=processes,
        num_no_recompute=num_no_recompute,
    )
    return TrainingCost(encode // processes, encode, transformer)
