"""`opensora prepare-data demo FOLDER`: make a data set ready for training."""

from dataclasses import dataclass, field

from opensora.data.demo_build import build

POSITIONAL = "source"


@dataclass(frozen=True, kw_only=True)
class PrepareDataOptions:
    """Options of `opensora prepare-data`."""

    source: list[str] = field(default_factory=list)
    """The word demo, then the folder to make."""
    archives: str | None = None
    """Folder with the demo's source archives; default: downloaded with npm into FOLDER/archives."""
    resolution: int = 128
    """Longer side of the stored subjects in pixels, the largest clip size that is not enlarged."""


OPTIONS = PrepareDataOptions


def run(options: PrepareDataOptions) -> None:
    if len(options.source) != 2 or options.source[0] != "demo":
        raise ValueError(f"prepare-data got {' '.join(options.source)!r}: write `opensora prepare-data demo FOLDER`")
    print(build(options.source[1], options.archives, options.resolution))
