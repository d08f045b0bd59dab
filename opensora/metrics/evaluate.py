"""`opensora evaluate`: compare the videos of two folders."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from opensora import runtime
from opensora.data.clips import ClipShape
from opensora.data.lists.beside import CaptionFinder
from opensora.data.read_ahead import read_ahead
from opensora.files import read_sidecar, write_json
from opensora.media.formats import media_files
from opensora.metrics.metric import VideoPair
from opensora.metrics.options import EvaluateOptions
from opensora.metrics.report import table
from opensora.metrics.scores import METRICS, Scores, check_metrics, need_networks

log = logging.getLogger(__name__)

COMMAND = "opensora evaluate"
NAMES_SHOWN = 5


class FilePair(NamedTuple):
    """The files of a pair, which have one name."""

    real: Path
    generated: Path


def evaluate(options: EvaluateOptions) -> int:
    """Measure all pairs, print the table and write the scores; returns 1 if a pair was left out, else 0.

    Raises ValueError, before anything is measured, for wrong options, missing partners and an output in the
    way.
    """
    shape = _clip_shape(options)
    check_metrics(options.metric, options.lpips_weights, options.i3d_weights, options.clip_weights)
    pairs, output = _find_pairs(options), _check_output(options)
    prompts = find_prompts(pairs) if "clip_score" in options.metric else {}
    if need_networks(options.metric):
        runtime.set_device(options.device)
    weights = options.lpips_weights, options.i3d_weights
    scores = Scores(options.metric, *weights, options.batch_size, options.clip_weights)
    files, skipped = _measure(pairs, prompts, shape, scores, options)
    if not files:
        raise ValueError(
            f"none of {len(pairs)} pairs could be measured, the first because {skipped[0]['reason']}"
        )
    total = scores.total([{name: file[name] for name in METRICS if name in file} for file in files])
    if "fvd" in options.metric and "fvd" not in total:
        log.info("fvd is left out: it needs at least two pairs")
    print(table(files, total))
    content = {"command": COMMAND, "options": asdict(options), "total": total}
    write_json(output, {**content, "files": files, "skipped": skipped})
    log.info("%s", output)
    return 1 if skipped else 0


def _measure(
    pairs: Sequence[FilePair],
    prompts: Mapping[Path, str],
    shape: ClipShape,
    scores: Scores,
    options: EvaluateOptions,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """(files with their scores, files that could not be measured with the reason)."""
    files: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    for pair, read in read_ahead(lambda pair: _read(pair, shape), pairs, options.num_workers):
        name = pair.real.name
        try:
            videos = read()
            frames, height, width, _ = videos.real.shape
            size = {"frames": frames, "height": height, "width": width}
            files.append(
                {
                    "file": name,
                    **size,
                    **scores.pair(videos.real, videos.generated, prompts.get(pair.generated)),
                }
            )
        except ValueError as error:
            log.info("%s is left out: %s", name, error)
            skipped.append({"file": name, "reason": str(error)})
        if need_networks(options.metric):
            log.info("%s (%d of %d)", name, len(files) + len(skipped), len(pairs))
    return files, skipped


def _find_pairs(options: EvaluateOptions) -> list[FilePair]:
    generated = media_files(options.generated_video_dir)
    if options.real_video_dir is not None:
        pairs = match(media_files(options.real_video_dir), generated)[: options.subset_size]
    else:
        comparing = [name for name in options.metric if METRICS[name].needs_real]
        if comparing:
            raise ValueError(
                f"{comparing[0]} compares with real videos: name their folder with --real_video_dir"
            )
        pairs = [FilePair(path, path) for path in generated][: options.subset_size]
    if "fvd" in options.metric and len(pairs) < 2:
        raise ValueError(
            "fvd compares two sets of videos and there is one pair: add videos, or use psnr, ssim and lpips"
        )
    return pairs


def find_prompts(pairs: Sequence[FilePair]) -> dict[Path, str]:
    """The prompt of each generated video, by its path: from the sidecar that `opensora generate` writes, or a
    caption beside it or beside the real one.

    Raises ValueError for a video without a prompt.
    """
    finders = {path.parent: CaptionFinder(path.parent) for pair in pairs for path in pair}
    prompts: dict[Path, str] = {}
    for pair in pairs:
        recipe = read_sidecar(pair.generated.with_suffix(".json")).get("recipe")
        found = recipe.get("prompt") if isinstance(recipe, dict) else None
        for path in dict.fromkeys((pair.generated, pair.real)):
            if not isinstance(found, str):
                captions = finders[path.parent].captions(path.name)
                found = captions[0] if isinstance(captions, list) else captions
        if not isinstance(found, str):
            beside = pair.generated.with_suffix(".txt").name
            raise ValueError(f"{pair.generated} has no prompt: write it to {beside} beside it")
        prompts[pair.generated] = found
    return prompts


def _check_output(options: EvaluateOptions) -> Path:
    """The file for the scores. One of the same command and options is replaced, any other is in the way."""
    output = Path(options.output or Path(options.generated_video_dir) / "evaluation.json")
    if output.suffix != ".json" or not output.absolute().parent.is_dir():
        raise ValueError(f"output {output} cannot be written: name a .json file in a folder that exists")
    earlier = read_sidecar(output)
    if output.exists() and (earlier.get("command"), earlier.get("options")) != (COMMAND, asdict(options)):
        raise ValueError(
            f"{output} exists and holds something else: move it away, or name another file with --output"
        )
    return output


def match(real: Sequence[Path], generated: Sequence[Path]) -> list[FilePair]:
    """Pair the files of one name, whatever their suffix.

    Raises ValueError for a name that occurs twice or has no partner.
    """
    ours, theirs = _by_name(real), _by_name(generated)
    lonely = [
        f"{paths[0].parent} has no partner of {_some([have[name] for name in have if name not in other])}"
        for have, other, paths in ((ours, theirs, generated), (theirs, ours, real))
        if set(have) - set(other)
    ]
    if lonely:
        raise ValueError(
            f"{'; '.join(lonely)}: files are matched by name; add the missing files or remove the others"
        )
    return [FilePair(path, theirs[name]) for name, path in ours.items()]


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


def _clip_shape(options: EvaluateOptions) -> ClipShape:
    return ClipShape(
        num_frames=options.num_frames,
        sample_rate=options.sample_rate,
        resolution=options.resolution,
        crop_size=options.crop_size,
    )


def _read(pair: FilePair, shape: ClipShape) -> VideoPair:
    """Both videos, of one shape. Raises ValueError for a file that cannot be read and for different sizes."""
    real = shape.read(pair.real)
    generated = real if pair.generated == pair.real else shape.read(pair.generated)
    if real.shape[1:3] != generated.shape[1:3]:
        sizes = [f"{video.shape[1]}x{video.shape[2]}" for video in (real, generated)]
        raise ValueError(
            f"{pair.real} has frames of {sizes[0]} and {pair.generated} of {sizes[1]}: "
            "bring both to one size with --resolution and --crop_size"
        )
    frames = min(len(real), len(generated))
    if len(real) != len(generated):
        lengths = (pair.real, len(real), pair.generated, len(generated), frames)
        log.info("%s has %d frames and %s %d: the first %d are compared", *lengths)
    return VideoPair(real[:frames], generated[:frames])
