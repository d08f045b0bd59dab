"""Options of `opensora evaluate`."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from opensora.checks import at_least, at_most


@dataclass(frozen=True, kw_only=True)
class VideoPairOptions:
    """Videos."""

    GROUP: ClassVar[str] = "videos"

    real_video_dir: str | None = None
    """Folder of the real videos or pictures; clip_score and clip_temp do not need it."""
    generated_video_dir: str
    """Folder of the generated ones. A pair has one name; suffixes may differ."""
    subset_size: int | None = None
    """Compare only the first n pairs by name."""
    num_frames: int = 100
    """Maximum frames of a video; of two lengths the shorter one counts."""
    sample_rate: int = 1
    """Compare every n-th frame."""
    resolution: int | None = None
    """Resize the shorter side of both videos to this many pixels; default: their own size."""
    crop_size: int | None = None
    """Then crop a centred square of this side from both; default: no crop."""
    num_workers: int = 1
    """Pairs to read ahead while another one is measured."""


@dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """Metrics."""

    GROUP: ClassVar[str] = "metrics"

    metric: list[str] = field(default_factory=lambda: ["psnr", "ssim"])
    """Any of psnr, ssim, mean_frame (PSNR of the real video's mean frame, shown throughout), lpips, fvd,
    clip_score (how well frames fit the prompt), clip_temp (how alike neighbouring frames are)."""
    lpips_weights: list[str] = field(default_factory=list)
    """Weights of LPIPS and its VGG16 (.safetensors, .ckpt, .pth), in one file or one each."""
    i3d_weights: str | None = None
    """Weights of I3D (.safetensors, .ckpt, .pt), for FVD."""
    clip_weights: str | None = None
    """Folder of CLIP as on the Hub (config.json, weights, vocab.json, merges.txt)."""
    batch_size: int = 4
    """Frames in the networks of LPIPS and CLIP at once."""
    device: Literal["CPU", "Ascend"] = "CPU"
    """Device of the networks."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(VideoPairOptions, MetricOptions):
    """Options of `opensora evaluate`."""

    output: str | None = None
    """File (.json) for all scores; default: evaluation.json in generated_video_dir."""

    def __post_init__(self) -> None:
        at_least(self, 1, "subset_size", "batch_size")
        at_least(self, 0, "num_workers")
        at_most(self, 2**10, "num_workers")
