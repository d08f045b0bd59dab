"""`opensora prepare-data FOLDER`: data lists of a folder of videos; `demo FOLDER` and `demo-clips FOLDER`: the demo's data set."""

from dataclasses import dataclass, field

from opensora.data.lists.prepare import Filters, prepare
from opensora.demo_data.build import build
from opensora.demo_data.clips import write_clips
from opensora.demo_data.render import Renderer

POSITIONAL = "source"


@dataclass(frozen=True, kw_only=True)
class PrepareDataOptions(Filters):
    """Options of `opensora prepare-data`."""

    source: list[str] = field(default_factory=list)
    """A folder of videos and pictures; or the word demo, then the folder to make; or demo-clips, then that folder."""
    output_path: str = "data_lists"
    """Folder for the lists and annotations, and for the files of demo-clips."""
    num_clips: int = 64
    """Clips that demo-clips writes, each with a caption of its own."""
    seed: int = 0
    """What demo-clips draws subjects, colours and places from."""
    dataloader_num_workers: int = 1
    """Files that are measured side by side."""
    archives: str | None = None
    """Folder with the demo's source archives; default: downloaded with npm into FOLDER/archives."""
    resolution: int = 128
    """Longer side of the demo's stored subjects in pixels, the largest clip size that is not enlarged."""


OPTIONS = PrepareDataOptions


def run(options: PrepareDataOptions) -> None:
    match options.source:
        case ["demo", folder]:
            print(build(folder, options.archives, options.resolution))
        case ["demo-clips", folder]:
            print(write_clips(Renderer(folder), options.output_path, options.num_clips, seed=options.seed))
        case [folder] if folder not in ("demo", "demo-clips"):
            print(prepare(folder, options.output_path, options, max(1, options.dataloader_num_workers)))
        case words:
            forms = "`opensora prepare-data FOLDER`, `opensora prepare-data demo FOLDER` or `opensora prepare-data demo-clips FOLDER`"
            raise ValueError(f"prepare-data got {' '.join(words)!r}: write {forms}")
