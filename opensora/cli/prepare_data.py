"""`opensora prepare-data FOLDER`: write the data lists of a folder of videos, or make the demo data set."""

from dataclasses import dataclass, field
from typing import ClassVar

from opensora.console import say
from opensora.data.lists.prepare import Filters, prepare
from opensora.demo_data.build import build
from opensora.demo_data.clips import write_clips
from opensora.demo_data.render import Renderer

POSITIONAL = "source"


@dataclass(frozen=True, kw_only=True)
class PrepareInputOptions:
    """Input and output."""

    GROUP: ClassVar[str] = "data"
    source: list[str] = field(default_factory=list)
    """A folder of videos and images; or `demo FOLDER` to make the demo data set, or `demo-clips FOLDER` to
    render clips of it."""
    output_path: str = "data_lists"
    """Folder for lists and annotations, and for the clips of demo-clips."""
    dataloader_num_workers: int = 1
    """Files to measure in parallel."""


@dataclass(frozen=True, kw_only=True)
class DemoBuildOptions:
    """Demo data set."""

    GROUP: ClassVar[str] = "demo"
    num_clips: int = 64
    """Clips that demo-clips renders, each with its caption."""
    seed: int = 0
    """Seed of the subjects, colours and positions of demo-clips."""
    archives: str | None = None
    """Folder of the source archives; default: downloaded with npm into FOLDER/archives."""
    resolution: int = 128
    """Longer side of the stored subjects in pixels; larger clips enlarge them."""


@dataclass(frozen=True, kw_only=True)
class PrepareDataOptions(PrepareInputOptions, Filters, DemoBuildOptions):
    """Options of `opensora prepare-data`."""


OPTIONS = PrepareDataOptions


def run(options: PrepareDataOptions) -> None:
    match options.source:
        case ["demo", folder]:
            say(build(folder, options.archives, options.resolution))
        case ["demo-clips", folder]:
            say(write_clips(Renderer(folder), options.output_path, options.num_clips, seed=options.seed))
        case [folder] if folder not in ("demo", "demo-clips"):
            say(prepare(folder, options.output_path, options, max(1, options.dataloader_num_workers)))
        case words:
            raise ValueError(
                f"prepare-data got {' '.join(words)!r}: write `opensora prepare-data FOLDER`, "
                "`opensora prepare-data demo FOLDER` or `opensora prepare-data demo-clips FOLDER`"
            )
