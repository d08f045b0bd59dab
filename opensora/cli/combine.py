"""`opensora combine --src runs/x --dest folder`: one checkpoint out of the parts that the ranks of a parallel run wrote."""

from dataclasses import dataclass
from pathlib import Path

POSITIONAL = None


@dataclass(frozen=True, kw_only=True)
class CombineOptions:
    """Options of `opensora combine`."""

    src: str
    """A run or checkpoint folder of a parallel run, or a folder of the published version with rank_0, rank_1, ... of .ckpt files."""
    dest: str
    """Folder for the checkpoint; for .ckpt files the whole one becomes rank_0/full_0.ckpt in it."""
    strategy_ckpt: str | None = None
    """Accepted, and not read: how .ckpt files were split follows from the shapes in them."""
    model_config: str | None = None
    """Folder of the config.json of the network in .ckpt files; default: the published model's."""


OPTIONS = CombineOptions


def run(options: CombineOptions) -> None:
    from opensora.train.combine import combine

    combine(Path(options.src), Path(options.dest), options.model_config)
