"""What `opensora evaluate` is asked for."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of `opensora evaluate`."""

    real_video_dir: str | None = None
    """Folder of the real videos or pictures."""
    generated_video_dir: str | None = None
    """Folder of the generated ones; each has the name of its real partner, endings may differ."""
    metric: list[str] = field(default_factory=lambda: ["psnr", "ssim"])
    """Some of psnr, ssim, mean_frame (the PSNR that the real video's mean frame gets, shown throughout), lpips, fvd."""
    lpips_weights: list[str] = field(default_factory=list)
    """File (.safetensors, .ckpt, .pth) with the weights of LPIPS and its VGG16, or one of each."""
    i3d_weights: str | None = None
    """File (.safetensors, .ckpt, .pt) with the weights of I3D, for FVD."""
    num_frames: int = 100
    """Frames of each video at most; a shorter one is compared as far as it goes."""
    sample_rate: int = 1
    """Every so many frames one is compared."""
    resolution: int | None = None
    """Pixels that the shorter side is resized to, in both; default: the files' own size."""
    crop_size: int | None = None
    """Side of the square that is cut out of the middle, in both, after resizing; default: no crop."""
    subset_size: int | None = None
    """Only so many pairs, the first by name."""
    batch_size: int = 4
    """Frames that go through LPIPS's network at once."""
    num_workers: int = 1
    """Pairs that are read ahead while another is measured."""
    output: str | None = None
    """File (.json) for all figures; default: evaluation.json in generated_video_dir."""
    device: Literal["CPU", "Ascend"] = "CPU"
    """Where the networks of LPIPS and FVD compute."""
