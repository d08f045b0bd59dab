"""Figures of many files as a table for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from opensora.console import aligned

DECIMALS = {"psnr": 2, "ssim": 4, "mean_frame": 2, "lpips": 4, "fvd": 2}
HEADS = {"psnr": "PSNR, dB", "ssim": "SSIM", "mean_frame": "mean frame, dB", "lpips": "LPIPS", "fvd": "FVD"}


def table(files: Sequence[Mapping[str, Any]], total: Mapping[str, float]) -> str:
    """A line for each file and one for all. A file has "file", "frames", "height", "width" and its figures by metric."""
    metrics = list(total)
    lines = [["file", "frames", "size", *(HEADS[name] for name in metrics)]]
    for item in files:
        lines.append(
            [item["file"], str(item["frames"]), f"{item['height']}x{item['width']}", *_figures(item, metrics)]
        )
    lines.append(
        [f"all ({len(files)})", str(sum(item["frames"] for item in files)), "", *_figures(total, metrics)]
    )
    return aligned(lines)


def _figures(figures: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    return [f"{figures[name]:.{DECIMALS[name]}f}" if name in figures else "" for name in metrics]
