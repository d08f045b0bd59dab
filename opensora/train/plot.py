"""`opensora plot`: the metrics of runs in one picture, with a panel per metric and a line per run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opensora.console import printable
from opensora.files import atomic_path, read_json_lines

COLUMNS = 3


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """Options of `opensora plot`."""

    runs: list[str] = field(default_factory=list)
    """Run folders to compare."""
    output: str = "curves.png"
    """Picture to write (.png, .svg or .pdf)."""
    metrics: list[str] = field(default_factory=list)
    """Metrics to draw, by their names in metrics.jsonl; default: all."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("no run to draw: name run folders, as in `opensora plot runs/a runs/b`")
        if Path(self.output).suffix not in (".png", ".svg", ".pdf"):
            raise ValueError(f"output {self.output} has an unknown suffix: use .png, .svg or .pdf")


LARGEST_DRAWN = 1e30
Curves = dict[str, tuple[list[int], list[float]]]


def read_curves(run: str | Path) -> Curves:
    """(steps, values) of every metric of a run. Raises ValueError if the folder has no metrics."""
    path = Path(run) / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"{run} has no metrics.jsonl: name the folder of a run that has logged a step")
    curves: Curves = {}
    for values in read_json_lines(path):
        step = values.pop("step", None)
        for name, value in values.items():
            if _is_number(step) and _is_number(value):
                steps, numbers = curves.setdefault(name, ([], []))
                steps.append(step)
                numbers.append(value)
    return curves


def _is_number(value: object) -> bool:
    """True if a value can be drawn: larger numbers than these overflow in a plot."""
    return type(value) in (int, float) and not abs(value) > LARGEST_DRAWN  # type: ignore[arg-type]


def plot(options: PlotOptions) -> str:
    """Draw the picture and return its path. Raises ValueError for unknown metrics, and without matplotlib."""
    runs = {run: read_curves(run) for run in options.runs}
    empty = next((run for run, curves in runs.items() if not curves), None)
    if empty is not None:
        raise ValueError(f"{empty} has not logged a step yet: wait for the first line of its metrics.jsonl")
    known = sorted({name for curves in runs.values() for name in curves})
    unknown = [name for name in options.metrics if name not in known]
    if unknown:
        raise ValueError(f"no run has the metric {unknown[0]}: choose from {', '.join(known)}")
    figure = _draw(runs, options.metrics or known)
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.output) as temporary:
        figure.savefig(temporary)
    return options.output


def _plain(name: str) -> str:
    """A name that is drawn as it is; dollar signs would enclose a formula."""
    return printable(name).replace("$", r"\$")


def _draw(runs: dict[str, Curves], names: Sequence[str]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("drawing needs matplotlib: pip install 'opensora[plot]'") from error
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.5 * columns, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, name in zip(panels, names, strict=False):
        panel.set_title(_plain(name), fontsize="medium")
        for run, curves in runs.items():
            if name in curves:
                steps, numbers = curves[name]
                panel.plot(steps, numbers, label=_plain(run), marker="." if len(steps) < 20 else None)
        panel.grid(alpha=0.3)
    for panel in panels:  # unused panels
        panel.axis("off")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(runs))
    return figure
