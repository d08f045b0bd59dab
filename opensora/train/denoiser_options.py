"""Options of training a transformer on latents, of texts or of classes.

Importing them does not import MindSpore.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from opensora.checks import above, at_least, below, one_of
from opensora.data.options import SampleOptions
from opensora.train.options import LoopOptions, OptimizerOptions, PrecisionOptions, check_warmup


@dataclass(frozen=True, kw_only=True)
class TilingOptions:
    """Data."""

    GROUP: ClassVar[str] = "data"
    enable_tiling: bool = False
    """Encode videos in tiles of 256 pixels and chunks of 65 frames, as the reference does."""
    tile_overlap_factor: float = 0.25
    """Overlap of neighbouring tiles, as a fraction of a tile."""

    def __post_init__(self) -> None:
        at_least(self, 0, "tile_overlap_factor")
        below(self, 1, "tile_overlap_factor")


@dataclass(frozen=True, kw_only=True)
class DiffusionOptions:
    """Training."""

    GROUP: ClassVar[str] = "training"
    snr_gamma: float | None = None
    """Min-SNR loss weights (arXiv:2303.09556); 5 is usual; default: equal weights."""
    timestep_sampling: Literal["uniform", "logit_normal"] = "uniform"
    """Distribution of the timesteps; logit_normal (arXiv:2403.03206) prefers those in the middle."""
    logit_mean: float = 0.0
    """Mean of the logit of timestep / 1000: 0 is timestep 500, 1 is 731, -1 is 269."""
    logit_std: float = 1.0
    """Deviation of that logit: with 1, two of three timesteps are between 269 and 731."""
    num_no_recompute: int = 0
    """Number of last layers that keep their activations for the backward pass: faster, but more memory."""

    def __post_init__(self) -> None:
        above(self, 0, "snr_gamma", "logit_std")
        one_of(self, "timestep_sampling")
        if self.timestep_sampling == "uniform" and (self.logit_mean, self.logit_std) != (0.0, 1.0):
            raise ValueError(
                "logit_mean and logit_std have no effect on uniform timesteps: "
                "add --timestep_sampling logit_normal, or leave them out"
            )
        at_least(self, 0, "num_no_recompute")


@dataclass(frozen=True, kw_only=True)
class ScaledOptimizerOptions(OptimizerOptions):
    """Optimizer."""

    GROUP: ClassVar[str] = "optimizer"
    scale_lr: bool = False
    """Multiply learning_rate by the number of samples per step."""


@dataclass(frozen=True, kw_only=True)
class HeldOutOptions:
    """Validation."""

    GROUP: ClassVar[str] = "validation"
    validation_latent_folder: str | None = None
    """Held-out latents for the validation loss, made by `opensora encode-latents`."""
    num_validation_samples: int = 256
    """Samples of a validation."""

    def __post_init__(self) -> None:
        at_least(self, 1, "num_validation_samples")


@dataclass(frozen=True, kw_only=True)
class DenoiserOptions(
    SampleOptions,
    TilingOptions,
    HeldOutOptions,
    DiffusionOptions,
    ScaledOptimizerOptions,
    PrecisionOptions,
    LoopOptions,
):
    """Options of training a transformer on latents. Raises ValueError for values out of range."""

    DATA: ClassVar[tuple[str, ...]] = ("video_data", "image_data", "vae_latent_folder", "image_latent_folder")
    INITIAL: ClassVar[str] = "pretrained"

    def __post_init__(self) -> None:
        SampleOptions.__post_init__(self)
        TilingOptions.__post_init__(self)
        HeldOutOptions.__post_init__(self)
        DiffusionOptions.__post_init__(self)
        ScaledOptimizerOptions.__post_init__(self)
        PrecisionOptions.__post_init__(self)
        LoopOptions.__post_init__(self)
        check_warmup(self, self)
        if self.enable_tiling and self.vae_latent_folder is not None:
            raise ValueError(
                "enable_tiling has no effect: latents from a cache are not encoded, so leave it out"
            )
