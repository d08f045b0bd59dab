"""Groups of options that several commands share: model, sampling, the autoencoder's memory, device."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from opensora.engine import open_engine, resolve_engine
from opensora.models.causal_vae.policy import VAEPolicy


@dataclass(frozen=True, kw_only=True)
class PipelineModelOptions:
    """Model."""

    GROUP: ClassVar[str] = "model"
    model_path: str = "demo"
    """Model folder in the release's layout; "demo" is the packaged model."""
    version: str | None = None
    """Subfolder of the transformer, such as 65x512x512; required if there are several."""
    text_encoder_name: str | None = None
    """Folder of the T5 encoder; default: model_path/text_encoder."""
    pretrained_ckpt: str | None = None
    """Transformer weights to use instead of the model folder's: a training run, a checkpoint, or a
    .safetensors, .pt, .bin or .ckpt file."""


@dataclass(frozen=True, kw_only=True)
class VideoSizeOptions:
    """Sampling (defaults come from the model folder)."""

    GROUP: ClassVar[str] = "sampling"
    num_frames: int | None = None
    """Number of frames."""
    height: int | None = None
    """Height in pixels."""
    width: int | None = None
    """Width in pixels."""


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """Sampling (defaults come from the model folder)."""

    GROUP: ClassVar[str] = "sampling"
    num_sampling_steps: int | None = None
    """Number of sampling steps."""
    guidance_scale: float | None = None
    """Classifier-free guidance scale; 1 disables it, above 1 every step takes two forwards."""
    sample_method: str | None = None
    """Sampler, such as PNDM, DDIM, EulerDiscrete, DPM++2M, UniPC."""


@dataclass(frozen=True, kw_only=True)
class VAEOptions:
    """Autoencoder."""

    GROUP: ClassVar[str] = "vae"
    vae_memory: Literal["auto", "exact", "chunked", "tiled"] = "auto"
    """exact: the whole video at once; chunked: the same result up to rounding, in less memory; tiled: same as
    --enable_tiling; auto: chunked on a CPU, but exact for small videos with OpenVINO; exact elsewhere."""
    enable_tiling: bool = False
    """Use the reference's tiles of 256 pixels and chunks of 65 frames: less memory, maybe visible seams."""
    enable_time_chunk: bool = False
    """Use the reference's chunks of 65 frames; frames stay whole unless --enable_tiling is set too."""
    tile_overlap_factor: float = 0.25
    """Overlap of neighbouring tiles, as a fraction of their size."""


@dataclass(frozen=True, kw_only=True)
class InferenceDeviceOptions:
    """Device."""

    GROUP: ClassVar[str] = "device"
    device: Literal["CPU", "Ascend"] = "CPU"
    """Device to run on."""
    engine: Literal["auto", "mindspore", "openvino"] = "auto"
    """Engine that computes; auto: OpenVINO on a CPU if it is installed, else MindSpore."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Compute precision; a CPU supports fp32, and bf16 with OpenVINO if the processor has it."""

    @property
    def engine_here(self) -> str:
        """One of ENGINES, as far as is known before it is loaded."""
        return "mindspore" if self.device != "CPU" else resolve_engine(self.engine)


def choose_vae_policy(options: VAEOptions, device: str, engine: str = "mindspore") -> VAEPolicy:
    """Raises ValueError for values that are out of range or exclude each other."""
    return VAEPolicy.choose(
        device,
        options.vae_memory,
        engine=engine,
        enable_tiling=options.enable_tiling,
        enable_time_chunk=options.enable_time_chunk,
        overlap=options.tile_overlap_factor,
    )


def check_device_options(options: InferenceDeviceOptions) -> None:
    """Raises ValueError for an engine or a precision that the device does not support."""
    if options.device != "CPU":
        if options.engine == "openvino":
            raise ValueError("engine openvino computes on a CPU: leave out --engine with --device Ascend")
        return
    if options.precision == "fp32":
        return
    if options.precision == "bf16" and options.engine_here == "openvino":
        open_engine("openvino", "bf16")  # ValueError if the processor does not have it
        return
    raise ValueError(
        f"precision {options.precision} is not supported on a CPU by {options.engine_here}: "
        "use --precision fp32, or --device Ascend"
    )
