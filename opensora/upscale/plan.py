"""The files of a run and their recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opensora.files import hash_file
from opensora.media.formats import STILL_SUFFIXES
from opensora.models.srvgg.config import PACKAGED
from opensora.pipeline.results import PlannedFile, plan_videos
from opensora.upscale.options import UpscaleOptions, check_options

COMMAND = "opensora upscale"


@dataclass(frozen=True)
class UpscalePlan:
    """A checked request. folder: of all results, None for a single file."""

    options: UpscaleOptions
    files: list[PlannedFile]
    folder: Path | None


def plan(options: UpscaleOptions) -> UpscalePlan:
    """Check the options and find the files. ValueError names the option or file and the remedy."""
    check_options(options)
    files = plan_videos(options.video_path, options.rec_path, recipe(options), stills=STILL_SUFFIXES)
    folder = Path(options.rec_path) if Path(options.video_path).is_dir() else None
    return UpscalePlan(options, files, folder)


def recipe(options: UpscaleOptions) -> dict[str, Any]:
    """The settings that determine the frames of a result."""
    return {
        "factor": options.factor,
        "denoise": options.denoise,
        "weights": hash_weights(options.weights),
        "engine": options.engine_here,
        "precision": options.precision,
    }


def hash_weights(weights: str | None) -> dict[str, str]:
    """The sha256 of the weights, or of the packaged ones, by the file's name."""
    path = PACKAGED if weights is None else Path(weights)
    return {path.name: hash_file(path)}
