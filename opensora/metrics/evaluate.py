"""`opensora evaluate`: how alike the videos of two folders are."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from opensora import runtime
from opensora.data.clips import ClipShape
from opensora.data.read_ahead import read_ahead
from opensora.files import read_json, write_json
from opensora.media.formats import media_files
from opensora.metrics.options import EvaluateOptions
from opensora.metrics.report import table
from opensora.metrics.scores import METRICS, Scores, check_metrics

log = logging.getLogger(__name__)

COMMAND = "opensora evaluate"
NAMES_SHOWN = 5


class Pair(NamedTuple):
    real: Path
    generated: Path


def evaluate(options: EvaluateOptions) -> int:
    """Measure, print the table, write the figures. Returns 0, or 1 where files could not be measured; they are named.

    Raises ValueError, before anything is measured, for options, missing partners and a file in the way.
    """
    pairs, output = _prepare(options)
    networks = not {"lpips", "fvd"}.isdisjoint(options.metric)
    if networks:
        runtime.set_device(options.device)
    scores = Scores(options.metric, options.lpips_weights, options.i3d_weights, options.batch_size)
    shape = _shape(options)
    files: list[dict[str, Any]] = []
    skipped = []
    for pair, videos in read_ahead(lambda pair: _read(pair, shape), pairs, options.num_workers):
        try:
            real, generated = videos()
            frames, height, width, _ = real.shape
            size = {"frames": frames, "height": height, "width": width}
            files.append({"file": pair.real.name, **size, **scores.pair(real, generated)})
        except ValueError as error:
            log.info("%s is left out: %s", pair.real.name, error)
            skipped.append({"file": pair.real.name, "reason": str(error)})
        if networks:
            log.info("%s (%d of %d)", pair.real.name, len(files) + len(skipped), len(pairs))
    if not files:
        raise ValueError(
            f"none of {len(pairs)} pairs could be measured, the first because {skipped[0]['reason']}"
        )
    total = scores.total([{name: item[name] for name in METRICS if name in item} for item in files])
    if "fvd" in options.metric and "fvd" not in total:
        log.info("fvd is left out: it needs two pairs or more")
    print(table(files, total))
    write_json(
        output,
        {"command": COMMAND, "options": asdict(options), "total": total, "files": files, "skipped": skipped},
    )
    log.info("%s", output)
    return 1 if skipped else 0


def _prepare(options: EvaluateOptions) -> tuple[list[Pair], Path]:
    """The pairs and the file for the figures, after every check that needs no reading."""
    if options.real_video_dir is None or options.generated_video_dir is None:
        raise ValueError(
            "two folders are compared: name them with --real_video_dir and --generated_video_dir"
        )
    for name, least in (("batch_size", 1), ("num_workers", 0), ("subset_size", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"{name} {value} is too small: use {least} or more")
    _shape(options)
    check_metrics(options.metric, options.lpips_weights, options.i3d_weights)
    pairs = match(media_files(Path(options.real_video_dir)), media_files(Path(options.generated_video_dir)))[
        : options.subset_size
    ]
    if "fvd" in options.metric and len(pairs) < 2:
        raise ValueError(
            "fvd compares two sets of videos and there is one pair: add videos, or measure psnr, ssim and lpips"
        )
    output = (
        Path(options.output)
        if options.output is not None
        else Path(options.generated_video_dir) / "evaluation.json"
    )
    if output.suffix != ".json" or not output.absolute().parent.is_dir():
        raise ValueError(f"output {output} cannot be written: name a .json file in a folder that exists")
    earlier = read_json(output)
    if output.exists() and (earlier.get("command"), earlier.get("options")) != (COMMAND, asdict(options)):
        raise ValueError(
            f"{output} exists and holds something else: move it away, or name another file with --output"
        )
    return pairs, output


def match(real: Sequence[Path], generated: Sequence[Path]) -> list[Pair]:
    """Pairs of files of one name, endings apart. Raises ValueError for a name that occurs twice and for files without a partner."""
    by_name = [_by_name(real), _by_name(generated)]
    lonely = [
        f"{paths[0].parent} has no partner of {_some([have[name] for name in have if name not in other])}"
        for have, other, paths in ((by_name[0], by_name[1], generated), (by_name[1], by_name[0], real))
        if set(have) - set(other)
    ]
    if lonely:
        raise ValueError(
            f"{'; '.join(lonely)}: files are matched by their names; add what is missing or take away what is left over"
        )
    return [Pair(path, by_name[1][name]) for name, path in by_name[0].items()]


def _by_name(paths: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise ValueError(
                f"{found[path.stem]} and {path.name} have one name, by which partners are found: rename one"
            )
        found[path.stem] = path
    return found


def _some(paths: Sequence[Path]) -> str:
    rest = len(paths) - NAMES_SHOWN
    return ", ".join(path.name for path in paths[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _shape(options: EvaluateOptions) -> ClipShape:
    return ClipShape(
        num_frames=options.num_frames,
        sample_rate=options.sample_rate,
        resolution=options.resolution,
        crop_size=options.crop_size,
    )


def _read(pair: Pair, shape: ClipShape) -> tuple[np.ndarray, np.ndarray]:
    """Both videos, uint8 (T, H, W, 3) of one shape. Raises ValueError for a file that cannot be read and for different sizes."""
    real, generated = shape.read(pair.real), shape.read(pair.generated)
    if real.shape[1:] != generated.shape[1:]:
        sizes = [f"{video.shape[1]}x{video.shape[2]}" for video in (real, generated)]
        first, second = f"{pair.real} has frames of {sizes[0]}", f"{pair.generated} of {sizes[1]}"
        raise ValueError(f"{first} and {second}: bring both to one size with --resolution and --crop_size")
    frames = min(len(real), len(generated))
    if len(real) != len(generated):
        log.info(
            "%s has %d frames and %s %d: the first %d are compared",
            pair.real,
            len(real),
            pair.generated,
            len(generated),
            frames,
        )
    return real[:frames], generated[:frames]
