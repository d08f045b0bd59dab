"""`opensora prepare-data FOLDER`: make data lists of a folder of videos; `prepare-data demo FOLDER`: make the demo's data set."""

from dataclasses import dataclass, field

from opensora.data.demo_build import build
from opensora.data.prepare import Filters, prepare

POSITIONAL = "source"


@dataclass(frozen=True, kw_only=True)
class PrepareDataOptions(Filters):
    """Options of `opensora prepare-data`."""

    source: list[str] = field(default_factory=list)
    """A folder of videos and pictures; or the word demo, then the folder to make."""
    output_path: str = "data_lists"
    """Folder for the lists and annotations."""
    dataloader_num_workers: int = 1
    """Files that are measured side by side."""
    archives: str | None = None
    """Folder with the demo's source archives; default: downloaded with npm into FOLDER/archives."""
    resolution: int = 128
    """Longer side of the demo's stored subjects in pixels, the largest clip size that is not enlarged."""


OPTIONS = PrepareDataOptions


def run(options: PrepareDataOptions) -> None:
    if len(options.source) == 2 and options.source[0] == "demo":
        print(build(options.source[1], options.archives, options.resolution))
    elif len(options.source) == 1 and options.source[0] != "demo":
        print(prepare(options.source[0], options.output_path, options, max(1, options.dataloader_num_workers)))
    else:
        shown = " ".join(options.source)
        raise ValueError(f"prepare-data got {shown!r}: write `opensora prepare-data FOLDER`, or `opensora prepare-data demo FOLDER`")
