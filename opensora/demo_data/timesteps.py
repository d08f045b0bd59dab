"""Where a demo model loses quality: held-out clips are noised to a timestep and denoised again.

    for level in by_timestep(renderer, reconstruct, restore, shape=(17, 64), clips=24):
        print(level.timestep, level.psnr)

The reconstruction without noise bounds every row. What is lost between two timesteps is decided there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from opensora.console import aligned, track
from opensora.demo_data.classifier import estimate_background
from opensora.demo_data.evaluator import Reconstruct, psnr_of_sums, squared_errors
from opensora.demo_data.judge import changes, mean
from opensora.demo_data.render import STRIDE, Clip, DemoClips, Renderer

TIMESTEPS = (50, 100, 200, 300, 500, 700, 900, 999)

Restore = Callable[[np.ndarray, str], Callable[[int, int], np.ndarray]]
"""From a clip and its caption to what noises the clip to a timestep, with a seed, and denoises it again."""


@dataclass(frozen=True)
class Level:
    """Figures of clips that were denoised from one timestep; None stands for the reconstruction."""

    timestep: int | None
    psnr: float  # dB
    psnr_on_subject: float  # dB
    sharpness: float  # mean difference of neighbouring pixels, times that of the clips
    motion: float  # mean change of the subject's pixels, times that of the clips


def by_timestep(
    renderer: Renderer,
    reconstruct: Reconstruct,
    restore: Restore,
    shape: tuple[int, int] = (17, 64),
    clips: int = 24,
    seed: int = 0,
    stride: int = STRIDE,
    timesteps: Sequence[int] = TIMESTEPS,
) -> list[Level]:
    """A level for the reconstruction and one for each timestep, over the same held-out clips.

    shape: frames, and side in pixels. seed: of the clips; the noise of clip n has the seed `seed + n`.
    """
    drawn = DemoClips(renderer, seed, "held_out", *shape, stride)
    compared: dict[int | None, list[_Comparison]] = {timestep: [] for timestep in (None, *timesteps)}
    for number in track(list(range(clips)), "clips"):
        clip = drawn[number]
        compared[None].append(_compare(clip, reconstruct(clip.video)))
        denoise = restore(clip.video, clip.caption)
        for timestep in timesteps:
            compared[timestep].append(_compare(clip, denoise(timestep, seed + number)))
    return [_level(timestep, found) for timestep, found in compared.items()]


class _Comparison(NamedTuple):
    """A clip after a restoration beside the clip itself."""

    errors: np.ndarray  # of `squared_errors`
    sharpness: float  # times that of the clip
    motion: float  # times that of the clip


def _compare(clip: Clip, result: np.ndarray) -> _Comparison:
    return _Comparison(
        squared_errors(clip, result),
        sharpness_of(result) / sharpness_of(clip.video),
        _motion(result) / max(_motion(clip.video), 1e-6),
    )


def _level(timestep: int | None, found: Sequence[_Comparison]) -> Level:
    errors, sharpness, motion = zip(*found, strict=True)
    return Level(timestep, *psnr_of_sums(np.sum(errors, axis=0)), mean(sharpness), float(np.median(motion)))


def sharpness_of(video: np.ndarray) -> float:
    """Mean absolute difference of neighbouring pixels of a video, uint8 (T, H, W, 3)."""
    levels = video.astype(np.float64)
    return sum(float(np.abs(np.diff(levels, axis=axis)).mean()) for axis in (1, 2))


def _motion(video: np.ndarray) -> float:
    return changes(video, estimate_background(video))[0]


def timestep_table(levels: Sequence[Level]) -> str:
    """A line for each level."""
    rows = [
        (
            "reconstruction" if level.timestep is None else f"t = {level.timestep}",
            f"{level.psnr:.1f}",
            f"{level.psnr_on_subject:.1f}",
            f"{level.sharpness:.2f}",
            f"{level.motion:.2f}",
        )
        for level in levels
    ]
    return aligned([("denoised from", "PSNR, dB", "on the subject", "sharpness", "motion"), *rows])
