"""Options of `opensora upscale`, checked before MindSpore is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from opensora.checks import one_of, within
from opensora.pipeline.options import InferenceDeviceOptions, check_device_options


@dataclass(frozen=True, kw_only=True)
class UpscaleFileOptions:
    """Files."""

    GROUP: ClassVar[str] = "data"
    video_path: str
    """Video, animation or picture, or a folder of them."""
    rec_path: str
    """Result (.mp4, or .png of a picture), or the folder for the results of a folder."""


@dataclass(frozen=True, kw_only=True)
class UpscaleMethodOptions:
    """Enlargement."""

    GROUP: ClassVar[str] = "enlargement"
    factor: Literal[2, 3, 4] = 4
    """Factor by which height and width grow."""
    weights: str | None = None
    """Weights of SRVGGNetCompact or RGT (.pth, .safetensors); default: realesr-animevideov3, which ships."""
    denoise: float = 1.0
    """Share of the network in the result, 0 to 1; the rest is a plain enlargement, which keeps grain."""


@dataclass(frozen=True, kw_only=True)
class UpscaleOptions(UpscaleFileOptions, UpscaleMethodOptions, InferenceDeviceOptions):
    """Options of `opensora upscale`."""

    ALIASES: ClassVar[dict[str, str]] = {"ckpt_path": "weights", "input_dir": "video_path"}


def check_options(options: UpscaleOptions) -> None:
    """Raises ValueError that names the option and the remedy."""
    one_of(options, "factor")
    within(options, 0, 1, "denoise")
    if options.weights is not None and not Path(options.weights).is_file():
        fault = (
            "are a folder: name the file"
            if Path(options.weights).is_dir()
            else "do not exist: check the path"
        )
        raise ValueError(f"the weights {options.weights} {fault}")
    check_device_options(options)
