"""Metrics by name: what they need, the figures of each pair of videos, and those of all."""

from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opensora.metrics.frechet import frechet_distance_of_samples
from opensora.metrics.pixels import WINDOW, psnr, ssim
from opensora.weights import did_you_mean

if TYPE_CHECKING:
    from opensora.metrics import networks

METRICS = ("psnr", "ssim", "mean_frame", "lpips", "fvd")
LEAST_SIDE = {"ssim": WINDOW, "lpips": 16}  # pixels; the network of LPIPS halves the size four times
LPIPS_SOURCE = (
    "https://download-mindspore.osinfra.cn/toolkits/mindone/autoencoders/lpips_vgg-426bf45c.ckpt, or the two files torchvision's "
    "vgg16-397923af.pth and lpips/weights/v0.1/vgg.pth of https://github.com/richzhang/PerceptualSimilarity"
)
I3D_SOURCE = (
    "fvd/videogpt/i3d_pretrained_400.pt of https://github.com/JunyaoHu/common_metrics_on_video_quality"
)


class Scores:
    """Measures pairs of videos by the named metrics and keeps what the Frechet video distance of all needs.

    lpips_weights, i3d_weights: files that `open_file` reads. Raises ValueError for an unknown metric, missing weights or a wrong file.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        lpips_weights: Sequence[str] = (),
        i3d_weights: str | None = None,
        batch_size: int = 4,
    ) -> None:
        check_metrics(metrics, lpips_weights, i3d_weights)
        self.metrics = metrics
        self._features: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._distance: networks.FrameDistance | None = None
        self._network: networks.VideoFeatures | None = None
        if "lpips" in metrics:
            self._distance = _networks().FrameDistance(lpips_weights, batch_size)
        if "fvd" in metrics:
            self._network = _networks().VideoFeatures(i3d_weights)

    def pair(self, real: np.ndarray, generated: np.ndarray) -> dict[str, float]:
        """The figures of two videos, uint8 (T, H, W, 3) of one shape, means over the frames. Raises ValueError for frames too small."""
        least = least_side(self.metrics)
        if min(real.shape[1:3]) < least:
            raise ValueError(
                f"frames of {real.shape[1]}x{real.shape[2]} are too small for {', '.join(self.metrics)}: {least} pixels are needed"
            )
        figures = {}
        for name, function in (("psnr", psnr), ("ssim", ssim)):
            if name in self.metrics:
                figures[name] = float(np.mean([function(b, a) for a, b in zip(real, generated, strict=True)]))
        if "mean_frame" in self.metrics:
            still = real.mean(0)
            figures["mean_frame"] = float(np.mean([psnr(still, frame) for frame in real]))
        if self._distance is not None:
            figures["lpips"] = self._distance(generated, real)
        if self._network is not None:
            for kept, video in zip(
                self._features, (self._network(real), self._network(generated)), strict=True
            ):
                kept.append(video)
        return figures

    def total(self, figures: Iterable[dict[str, float]]) -> dict[str, float]:
        """The mean over files of each figure, and the Frechet distance of all videos that were measured, if there are two or more."""
        total = mean_of_files(figures)
        if len(self._features[0]) > 1:
            total["fvd"] = frechet_distance_of_samples(
                np.stack(self._features[0]), np.stack(self._features[1])
            )
        return total


def _networks() -> Any:
    """Brings MindSpore in, which takes seconds: only for the metrics that need it."""
    return import_module("opensora.metrics.networks")


def least_side(metrics: Sequence[str]) -> int:
    """Pixels that height and width of frames must have for these metrics."""
    return max(LEAST_SIDE.get(name, 1) for name in metrics)


def mean_of_files(figures: Iterable[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric; every file counts the same, whatever its number of frames."""
    rows = list(figures)
    return {name: float(np.mean([row[name] for row in rows])) for name in (rows[0] if rows else ())}


def check_metrics(metrics: Sequence[str], lpips_weights: Sequence[str], i3d_weights: str | None) -> None:
    """Raises ValueError for a metric that is unknown or lacks its weights."""
    if not metrics:
        raise ValueError(f"there is no metric: name some of {', '.join(METRICS)}")
    for name in metrics:
        if name == "flolpips":
            raise ValueError(
                "flolpips is not there: its optical flow network is published as PyTorch code with weights of its own; use lpips or fvd"
            )
        if name not in METRICS:
            raise ValueError(
                f"metric {name!r} is unknown{did_you_mean(name, METRICS)}: choose some of {', '.join(METRICS)}"
            )
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"metrics {' '.join(metrics)} name one twice: name each once")
    needs = (
        ("lpips", "lpips_weights", list(lpips_weights), LPIPS_SOURCE),
        ("fvd", "i3d_weights", [i3d_weights] if i3d_weights else [], I3D_SOURCE),
    )
    for name, option, paths, source in needs:
        if name in metrics and not paths:
            raise ValueError(f"{name} needs --{option}, the file {source}")
        for path in paths:
            if name in metrics and not Path(path).is_file():
                raise ValueError(
                    f"{option} {path} does not exist: check the path; the weights come from {source}"
                )
