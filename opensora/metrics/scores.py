"""Metrics by name: how each is printed, what it needs, and the scores of pairs and sets of videos."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from opensora.metrics.metric import FrameMetric, MeanFrameMetric, Metric, VideoPair
from opensora.metrics.pixels import WINDOW, psnr, ssim
from opensora.weights import did_you_mean

LPIPS_SOURCE = (
    "https://download-mindspore.osinfra.cn/toolkits/mindone/autoencoders/lpips_vgg-426bf45c.ckpt, "
    "or the two files torchvision's vgg16-397923af.pth and lpips/weights/v0.1/vgg.pth of "
    "https://github.com/richzhang/PerceptualSimilarity"
)
I3D_SOURCE = (
    "fvd/videogpt/i3d_pretrained_400.pt of https://github.com/JunyaoHu/common_metrics_on_video_quality"
)


CLIP_SOURCE = "https://huggingface.co/openai/clip-vit-base-patch32 or clip-vit-large-patch14"


class MetricInfo(NamedTuple):
    """A metric's column in tables, and its needs.

    `weights`: the option that names its weights, from `source`. needs_real: it compares with real videos.
    """

    heading: str
    decimals: int
    min_side: int = 1  # pixels
    weights: str | None = None
    source: str = ""
    needs_real: bool = True


METRICS = {
    "psnr": MetricInfo("PSNR, dB", 2),
    "ssim": MetricInfo("SSIM", 4, WINDOW),
    "mean_frame": MetricInfo("mean frame, dB", 2),
    # Its network halves the size four times.
    "lpips": MetricInfo("LPIPS", 4, 16, "lpips_weights", LPIPS_SOURCE),
    "fvd": MetricInfo("FVD", 2, 1, "i3d_weights", I3D_SOURCE),
    "clip_score": MetricInfo("CLIP score", 2, 1, "clip_weights", CLIP_SOURCE, needs_real=False),
    "clip_temp": MetricInfo("CLIP temp", 2, 1, "clip_weights", CLIP_SOURCE, needs_real=False),
}


class Scores:
    """Scores pairs of videos by the named metrics.

    lpips_weights, i3d_weights: weight files. clip_weights: a folder. batch_size: frames in a network at once.
    Raises ValueError for an unknown metric, and for missing weights or files without them.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        lpips_weights: Sequence[str] = (),
        i3d_weights: str | None = None,
        batch_size: int = 4,
        clip_weights: str | None = None,
    ) -> None:
        check_metrics(metrics, lpips_weights, i3d_weights, clip_weights)
        self._metrics = {
            name: _make(name, lpips_weights, i3d_weights, batch_size)
            for name in METRICS
            if name in metrics and METRICS[name].weights != "clip_weights"
        }
        if clip_weights is not None and any(METRICS[name].weights == "clip_weights" for name in metrics):
            from opensora.metrics.clip import clip_metrics

            found = clip_metrics(clip_weights, batch_size)
            self._metrics |= {name: metric for name, metric in found.items() if name in metrics}

    def pair(self, real: np.ndarray, generated: np.ndarray, prompt: str | None = None) -> dict[str, float]:
        """The scores of two videos, uint8 (T, H, W, 3) of one shape. prompt: of the generated one.

        Raises ValueError for frames that are too small.
        """
        needed = min_side(list(self._metrics))
        if min(real.shape[1:3]) < needed:
            raise ValueError(
                f"frames of {real.shape[1]}x{real.shape[2]} are too small for {', '.join(self._metrics)}: "
                f"{needed} pixels are needed"
            )
        videos = VideoPair(real, generated, prompt)
        scores = {name: metric.score(videos) for name, metric in self._metrics.items()}
        return {name: score for name, score in scores.items() if score is not None}

    def total(self, files: Iterable[Mapping[str, float]]) -> dict[str, float]:
        """The scores of all pairs. files: what `pair` returned for each of them."""
        rows = list(files)
        totals = {
            name: metric.total([row[name] for row in rows if name in row])
            for name, metric in self._metrics.items()
        }
        return {name: total for name, total in totals.items() if total is not None}


def _make(name: str, lpips_weights: Sequence[str], i3d_weights: str | None, batch_size: int) -> Metric:
    match name:
        case "psnr":
            return FrameMetric(psnr)
        case "ssim":
            return FrameMetric(ssim)
        case "mean_frame":
            return MeanFrameMetric(psnr)
    # Imports MindSpore, which takes seconds.
    from opensora.metrics.networks import FrechetVideoDistance, LPIPSMetric

    if name == "lpips":
        return LPIPSMetric(lpips_weights, batch_size)
    assert i3d_weights is not None
    return FrechetVideoDistance(i3d_weights)


def min_side(metrics: Sequence[str]) -> int:
    """Pixels that height and width of the frames must have for these metrics."""
    return max(METRICS[name].min_side for name in metrics)


def need_networks(metrics: Sequence[str]) -> bool:
    """True if any of these metrics has a network."""
    return any(METRICS[name].weights is not None for name in metrics)


def mean_of_files(files: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score; every file counts the same, whatever its number of frames."""
    rows = list(files)
    return {name: float(np.mean([row[name] for row in rows])) for name in (rows[0] if rows else ())}


def check_metrics(
    metrics: Sequence[str],
    lpips_weights: Sequence[str],
    i3d_weights: str | None,
    clip_weights: str | None = None,
) -> None:
    """Raises ValueError for a metric that is unknown, named twice, or has no weights."""
    if not metrics:
        raise ValueError(f"there is no metric: choose some of {', '.join(METRICS)}")
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"metrics {' '.join(metrics)} name one twice: name each once")
    single = {"i3d_weights": i3d_weights, "clip_weights": clip_weights}
    files = {"lpips_weights": list(lpips_weights), **{name: [path] for name, path in single.items() if path}}
    for name in metrics:
        if name == "flolpips":
            raise ValueError(
                "flolpips is not available: its optical flow network is published as PyTorch code "
                "with weights of its own; use lpips or fvd"
            )
        if name not in METRICS:
            raise ValueError(
                f"metric {name!r} is unknown{did_you_mean(name, METRICS)}: "
                f"choose some of {', '.join(METRICS)}"
            )
        option, source = METRICS[name].weights, METRICS[name].source
        if option is None:
            continue
        if not files.get(option):
            what = "folder" if option == "clip_weights" else "file"
            raise ValueError(f"{name} needs --{option}, the {what} {source}")
        for path in files[option]:
            if not (Path(path).is_dir() if option == "clip_weights" else Path(path).is_file()):
                raise ValueError(
                    f"{option} {path} does not exist: check the path; the weights come from {source}"
                )
