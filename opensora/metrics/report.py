"""Scores of many files as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from opensora.console import aligned
from opensora.metrics.scores import METRICS


def table(files: Sequence[Mapping[str, Any]], total: Mapping[str, float]) -> str:
    """A line for each file and one for all.

    A file has "file", "frames", "height", "width" and its scores by metric.
    """
    metrics = list(total)
    lines = [["file", "frames", "size", *(METRICS[name].heading for name in metrics)]]
    for file in files:
        size = f"{file['height']}x{file['width']}"
        lines.append([file["file"], str(file["frames"]), size, *_cells(file, metrics)])
    frames = str(sum(file["frames"] for file in files))
    lines.append([f"all ({len(files)})", frames, "", *_cells(total, metrics)])
    return aligned(lines)


def _cells(scores: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    return [f"{scores[name]:.{METRICS[name].decimals}f}" if name in scores else "" for name in metrics]
