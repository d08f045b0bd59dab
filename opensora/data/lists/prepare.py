"""`opensora prepare-data FOLDER`: data lists and annotations for a folder of videos and pictures.

Every file is decoded once to measure it. Measurements are kept in `measured.jsonl`, so that a stopped command
continues and other filters need no second look at the files.
"""

import csv
import io
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from opensora.checks import at_least
from opensora.data.lists.scenes import Scene, find_scenes
from opensora.files import write_atomic, write_json
from opensora.media.formats import media_files
from opensora.media.reader import probe

CAPTION_KEYS = ("cap", "caption", "captions", "text", "prompt")
OUTPUTS = ("videos.json", "images.json", "video_data.txt", "image_data.txt", "rejected.jsonl")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Filters.

    Raises ValueError for limits that exclude everything.
    """

    GROUP: ClassVar[str] = "filters"

    min_frames: int = 17
    """Minimum frames of a scene."""
    max_frames: int = 0
    """Maximum frames of a scene; 0 for no limit."""
    min_size: int = 0
    """Minimum of the shorter side in pixels."""
    min_motion: float = 0.0
    """Minimum motion of a scene: median of the mean differences of neighbouring frames, in levels (0-255)."""
    max_motion: float = 255.0
    """Maximum motion of a scene."""
    cut_scenes: bool = True
    """Make each scene a record; false makes each video one record."""
    default_caption: str | None = None
    """Caption for files without one; default: such files are left out."""

    def __post_init__(self) -> None:
        at_least(self, 0, "min_frames", "max_frames", "min_size", "min_motion")
        for kind in ("frames", "motion"):
            low, high = getattr(self, f"min_{kind}"), getattr(self, f"max_{kind}")
            if high < low and not (kind == "frames" and high == 0):
                raise ValueError(
                    f"max_{kind} {high} is less than min_{kind} {low}: nothing would be left, raise it"
                )


def prepare(folder: str | Path, output: str | Path, filters: Filters, workers: int = 1) -> str:
    """Write lists and annotations into `output`; returns a one-line summary.

    `workers` files are measured in parallel. The captions of a file are the lines of `<name>.txt` beside it,
    or "cap" (caption, captions, text, prompt) in `<name>.json`. Raises ValueError for a folder without videos
    and pictures, and if `output` holds such lists already.
    """
    folder, output = Path(folder), Path(output)
    names = [str(path.relative_to(folder)) for path in media_files(folder, recursive=True)]
    present = [name for name in OUTPUTS if (output / name).exists()]
    if present:
        raise ValueError(
            f"{output / present[0]} exists and is not overwritten: remove it, or choose another --output_path"
        )
    output.mkdir(parents=True, exist_ok=True)
    videos: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    for measured in _measure_all(folder, names, output / "measured.jsonl", workers):
        for record, reason in records_of(folder, measured, filters):
            if reason:
                rejected.append({**record, "reason": reason})
            else:
                (videos if "frame_idx" in record else images).append(record)
    for kind, records in (("video", videos), ("image", images)):
        if records:
            write_json(output / f"{kind}s.json", records)
            _write(output / f"{kind}_data.txt", _data_list(folder, output / f"{kind}s.json"))
    _write(output / "rejected.jsonl", "".join(f"{json.dumps(record)}\n" for record in rejected))
    return (
        f"{len(names)} files: {len(videos)} scenes of videos, {len(images)} pictures, "
        f"{len(rejected)} left out (see {output / 'rejected.jsonl'})"
    )


def records_of(
    folder: Path, measured: dict[str, Any], filters: Filters
) -> Iterator[tuple[dict[str, Any], str]]:
    """The annotation records of a measured file, each with the reason why it is rejected, or ""."""
    path, captions, reason = measured["path"], None, measured.get("reason", "")
    try:
        captions = read_captions(folder / path) or filters.default_caption
    except ValueError as error:
        reason = reason or str(error)
    scenes = [Scene(*scene) for scene in measured.get("scenes", [])]
    record = {"path": path, "cap": captions} | {
        name: measured[name] for name in ("height", "width", "fps") if name in measured
    }
    reason = reason or _reject_file(measured, captions, filters)
    if reason or not scenes:
        yield record, reason
        return
    if not filters.cut_scenes:
        scenes = [Scene(0, scenes[-1].end, max(scene.motion for scene in scenes))]
    for scene in scenes:
        fields = {
            "frame_idx": f"{scene.start}:{scene.end}",
            "num_frames": scene.end - scene.start,
            "motion": scene.motion,
        }
        yield record | fields, _reject_scene(scene, filters)


def _reject_file(measured: dict[str, Any], captions: Any, filters: Filters) -> str:
    if captions is None:
        return "it has no caption"
    side = min(measured["height"], measured["width"])
    return "" if side >= filters.min_size else f"its shorter side is {side}, min_size is {filters.min_size}"


def _reject_scene(scene: Scene, filters: Filters) -> str:
    length = scene.end - scene.start
    if length < filters.min_frames:
        return f"the scene has {length} frames, min_frames is {filters.min_frames}"
    if filters.max_frames and length > filters.max_frames:
        return f"the scene has {length} frames, max_frames is {filters.max_frames}"
    if not filters.min_motion <= scene.motion <= filters.max_motion:
        return f"its motion is {scene.motion}, outside {filters.min_motion:g} to {filters.max_motion:g}"
    return ""


def read_captions(path: Path) -> str | list[str] | None:
    """The captions beside a file, or None. Raises ValueError for a caption file that cannot be read."""
    text, described = path.with_suffix(".txt"), path.with_suffix(".json")
    try:
        if text.is_file():
            lines = [line.strip() for line in text.read_text(encoding="utf-8-sig").splitlines()]
            lines = [line for line in lines if line]
            return lines[0] if len(lines) == 1 else lines or None
        if described.is_file():
            content = json.loads(described.read_text(encoding="utf-8-sig"))
            if isinstance(content, dict):
                content = next((content[key] for key in CAPTION_KEYS if key in content), None)
            captions = content if isinstance(content, list) else [content]
            if not captions or not all(isinstance(caption, str) for caption in captions):
                raise ValueError(f"no text under {', '.join(CAPTION_KEYS)}")
            found: str | list[str] = content
            return found
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its caption file cannot be read: {error}") from error
    return None


def _measure_all(folder: Path, names: list[str], journal: Path, workers: int) -> Iterator[dict[str, Any]]:
    """The measurements of all files, in order; new ones are appended to the journal."""
    known: dict[str, dict[str, Any]] = {}
    written = journal.read_text(encoding="utf-8") if journal.is_file() else ""
    for line in filter(None, written.splitlines()):
        with suppress(
            json.JSONDecodeError
        ):  # a stopped command left half a line: that file is measured again
            measured = json.loads(line)
            known[measured["path"]] = measured
    missing = [name for name in names if name not in known]
    with open(journal, "a", encoding="utf-8") as file, ThreadPoolExecutor(workers) as pool:
        file.write("\n" if written else "")
        for number, measured in enumerate(pool.map(lambda name: _measure(folder, name), missing), 1):
            known[measured["path"]] = measured
            file.write(json.dumps(measured) + "\n")
            file.flush()
            if number % 100 == 0:
                log.info("measured %d of %d files", number, len(missing))
    return (known[name] for name in names)


def _measure(folder: Path, name: str) -> dict[str, Any]:
    """Size, rate and scenes of a file, or the reason why it cannot be read. Still pictures have no scenes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return {"path": name, "reason": "its name is not UTF-8: rename it"}
    try:
        info = probe(folder / name)
        size = {"height": info.height, "width": info.width}
        if info.frames == 1:
            return {"path": name, **size}
        return {"path": name, **size, "fps": round(info.fps, 3), "scenes": find_scenes(folder / name)}
    except ValueError as error:
        return {"path": name, "reason": str(error)}


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))


def _data_list(folder: Path, annotations: Path) -> str:
    """A data list of one line, with quotes if a path needs them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([folder.resolve(), annotations.resolve()])
    return text.getvalue()
