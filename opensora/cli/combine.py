"""`opensora combine --src runs/x --dest folder`: merge the checkpoint shards of a parallel run."""

from dataclasses import dataclass
from pathlib import Path

POSITIONAL = None


@dataclass(frozen=True, kw_only=True)
class CombineOptions:
    """Options of `opensora combine`."""

    src: str
    """Run or checkpoint folder of a parallel run, or a folder of the published version with rank_0, rank_1,
    ... of .ckpt files."""
    dest: str
    """Folder for the merged checkpoint; .ckpt files become rank_0/full_0.ckpt in it."""
    strategy_ckpt: str | None = None
    """Ignored: the shapes in .ckpt files tell how they were split."""
    model_config: str | None = None
    """Folder of the config.json of the network in .ckpt files; default: the released model's."""


OPTIONS = CombineOptions


def run(options: CombineOptions) -> None:
    from opensora.train.combine import combine

    combine(Path(options.src), Path(options.dest), options.model_config)
