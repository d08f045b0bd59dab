"""Options of `opensora interpolate`, checked before MindSpore is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from opensora.checks import one_of
from opensora.pipeline.options import InferenceDeviceOptions, check_device_options


@dataclass(frozen=True, kw_only=True)
class InterpolateFileOptions:
    """Files."""

    GROUP: ClassVar[str] = "data"
    video_path: str
    """Video or animation, or a folder of them."""
    rec_path: str | None = None
    """Result (.mp4), or the folder for the results of a folder."""
    check: bool = False
    """Write nothing: leave out every second frame, interpolate it, and print the PSNR."""


@dataclass(frozen=True, kw_only=True)
class InterpolateMethodOptions:
    """Interpolation."""

    GROUP: ClassVar[str] = "interpolation"
    factor: Literal[2, 4, 8] = 2
    """Frames of the result for each frame of the video."""
    weights: str | None = None
    """Weights of AMT-G (.pth, .safetensors), or a folder with them and a config.json; default: motion
    compensation by FFmpeg's filter minterpolate."""


@dataclass(frozen=True, kw_only=True)
class InterpolateOptions(InterpolateFileOptions, InterpolateMethodOptions, InferenceDeviceOptions):
    """Options of `opensora interpolate`."""

    ALIASES: ClassVar[dict[str, str]] = {"ckpt": "weights", "input": "video_path"}


def check_options(options: InterpolateOptions) -> None:
    """Raises ValueError that names the option and the remedy."""
    one_of(options, "factor")
    if (options.rec_path is None) != options.check:
        raise ValueError("name the result with --rec_path, or measure with --check, which writes none")
    if options.check and options.factor != 2:
        raise ValueError(f"--check leaves out every second frame: leave out --factor {options.factor}")
    check_weights(options.weights)
    check_device_options(options)


def check_weights(weights: str | None) -> None:
    """Raises ValueError for weights that do not exist."""
    if weights is not None and not Path(weights).exists():
        raise ValueError(f"the weights {weights} do not exist: check the path")
