"""The files of a run and their recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opensora.files import hash_file
from opensora.interpolate.motion import NAME, SETTINGS
from opensora.interpolate.options import InterpolateOptions, check_options
from opensora.media.formats import STILL_SUFFIXES, media_files
from opensora.models.amt.config import open_amt
from opensora.pipeline.results import PlannedFile, plan_videos
from opensora.weights.sources import hash_folder

COMMAND = "opensora interpolate"


@dataclass(frozen=True)
class InterpolatePlan:
    """A checked request.

    files: with their results; none for --check. folder: of all results, None for a single file.
    """

    options: InterpolateOptions
    files: list[PlannedFile]
    sources: list[Path]
    folder: Path | None


def plan(options: InterpolateOptions) -> InterpolatePlan:
    """Check the options and weights, and find the files. ValueError names option or file and the remedy."""
    check_options(options)
    if options.weights is not None:
        open_amt(options.weights)
    source = Path(options.video_path)
    if options.rec_path is None:
        found = media_files(source) if source.is_dir() else [source]
        sources = [path for path in found if path.suffix.lower() not in STILL_SUFFIXES]
        if not sources:
            raise ValueError(f"{source} is no video and has none: check --video_path")
        return InterpolatePlan(options, [], sources, None)
    if source.suffix.lower() in STILL_SUFFIXES and source.is_file():
        raise ValueError(f"--video_path {source} is a picture: name a video")
    files = plan_videos(options.video_path, options.rec_path, recipe(options), STILL_SUFFIXES)
    folder = Path(options.rec_path) if source.is_dir() else None
    return InterpolatePlan(options, files, [file.source for file in files], folder)


def recipe(options: InterpolateOptions) -> dict[str, Any]:
    """The settings that determine the frames of a result."""
    settings = {"factor": options.factor, **method_recipe(options.weights)}
    if options.weights is None:
        return settings
    return {**settings, "engine": options.engine_here, "precision": options.precision}


def method_recipe(weights: str | None) -> dict[str, Any]:
    """The filter's settings, or the sha256 of the weights' files by name."""
    if weights is None:
        return {"filter": f"{NAME}={SETTINGS}"}
    path = Path(weights)
    return {"weights": hash_folder(path, "model") if path.is_dir() else {path.name: hash_file(path)}}
