"""Options of what follows decoding, shared by `generate` and `generate-class`, and their part of a recipe."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

from opensora.checks import one_of
from opensora.interpolate.plan import method_recipe
from opensora.models.geometry import Size
from opensora.upscale.plan import hash_weights


@dataclass(frozen=True, kw_only=True)
class EnhanceOptions:
    """Enlargement and interpolation of the decoded frames."""

    GROUP: ClassVar[str] = "enhancement"
    upscale: Literal[2, 3, 4] | None = None
    """By how much height and width grow after decoding, as by `opensora upscale`; default: not at all."""
    upscale_weights: str | None = None
    """Weights for --upscale; default: those that ship."""
    interpolate: Literal[2, 4, 8] | None = None
    """By how much frames and rate grow after that, as by `opensora interpolate`; default: not at all."""
    interpolate_weights: str | None = None
    """Weights of AMT-G for --interpolate; default: FFmpeg's filter."""


def check_enhancement(options: EnhanceOptions) -> None:
    """Raises ValueError that names the option and the remedy."""
    one_of(options, "upscale", "interpolate")
    for name in ("upscale", "interpolate"):
        factor, weights = getattr(options, name), getattr(options, f"{name}_weights")
        if weights is not None and factor is None:
            raise ValueError(f"--{name}_weights has no effect without --{name}: add --{name} 2")
        if weights is not None and not Path(weights).exists():
            raise ValueError(f"--{name}_weights {weights} does not exist: check the path")


def check_frames(options: EnhanceOptions, num_frames: int) -> None:
    """Raises ValueError if results of so many frames have none to interpolate between."""
    if options.interpolate is not None and num_frames == 1:
        raise ValueError("--interpolate makes frames between frames, and an image has one: leave it out")


def enhancement_bytes(options: EnhanceOptions, size: Size) -> int:
    """Bytes of the frames while they are enlarged and interpolated, at most; size: of the decoded video."""
    if options.upscale is None and options.interpolate is None:
        return 0
    enlarged = 3 * prod(size) * (options.upscale or 1) ** 2
    # Frames are collected one by one, then joined.
    interpolated = 0 if options.interpolate is None else enlarged + 2 * options.interpolate * enlarged
    return max(2 * enlarged, interpolated)


def enhancement_recipe(options: EnhanceOptions) -> dict[str, Any]:
    """The part of a video's recipe that tells what follows decoding; empty if nothing does."""
    recipe: dict[str, Any] = {}
    if options.upscale is not None:
        recipe["upscale"] = {"factor": options.upscale, "weights": hash_weights(options.upscale_weights)}
    if options.interpolate is not None:
        method = method_recipe(options.interpolate_weights)
        recipe["interpolate"] = {"factor": options.interpolate, **method}
    return recipe


def enhancement_words(options: EnhanceOptions) -> list[str]:
    """The options that are set, as on the command line without the dashes."""
    names = ("upscale", "upscale_weights", "interpolate", "interpolate_weights")
    values = {name: getattr(options, name) for name in names}
    return [f"{name}={value}" for name, value in values.items() if value is not None]
