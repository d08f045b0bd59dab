"""`opensora prepare-data FOLDER`: from a folder of videos and pictures to data lists.

Measuring decodes every file, so it is kept, line by line, in `measured.jsonl`: a stopped command continues there. Filters are
applied to it afterwards.
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
from typing import Any

from opensora.data.clips import MEDIA_SUFFIXES
from opensora.data.lists.scenes import Scene, find_scenes
from opensora.files import write_atomic, write_json
from opensora.media.reader import probe

CAPTION_KEYS = ("cap", "caption", "captions", "text", "prompt")
OUTPUTS = ("videos.json", "images.json", "video_data.txt", "image_data.txt", "rejected.jsonl")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What goes into the lists. Raises ValueError for limits that exclude everything."""

    min_frames: int = 17
    """Fewest frames of a scene."""
    max_frames: int = 0
    """Most frames of a scene; 0 for no limit."""
    min_size: int = 0
    """Smallest shorter side in pixels."""
    min_motion: float = 0.0
    """Least motion of a scene: how much two neighbouring frames differ, in levels of 0 to 255, the middle value over the scene."""
    max_motion: float = 255.0
    """Most motion of a scene."""
    cut_scenes: bool = True
    """Make every scene a record of its own; without it a video is one record."""
    default_caption: str | None = None
    """Caption of files that have none beside them; without it they are left out."""

    def __post_init__(self) -> None:
        if self.max_frames and self.max_frames < self.min_frames:
            raise ValueError(
                f"max_frames {self.max_frames} is less than min_frames {self.min_frames}: nothing would be left"
            )
        if self.max_motion < self.min_motion:
            raise ValueError(
                f"max_motion {self.max_motion} is less than min_motion {self.min_motion}: nothing would be left"
            )


def prepare(folder: str | Path, output: str | Path, filters: Filters, workers: int = 1) -> str:
    """Write the lists into `output` and return what they hold in a sentence.

    Captions lie beside each file: the lines of `<name>.txt`, or "cap" (or caption, text, prompt) in `<name>.json`. Raises ValueError for a
    folder without videos and pictures, and where `output` has such lists already.
    """
    folder, output = Path(folder), Path(output)
    if not folder.is_dir():
        raise ValueError(f"folder {folder} does not exist: check the path")
    present = [name for name in OUTPUTS if (output / name).exists()]
    if present:
        raise ValueError(
            f"{output / present[0]} is there already and stays: remove it, or choose another --output_path"
        )
    output.mkdir(parents=True, exist_ok=True)
    names = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix.lower() in MEDIA_SUFFIXES and path.is_file()
    )
    if not names:
        raise ValueError(f"{folder} holds no file that ends in {', '.join(MEDIA_SUFFIXES)}")
    videos: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    for measured in _measure_all(folder, names, output / "measured.jsonl", workers):
        for record, reason in records_of(folder, measured, filters):
            target = rejected if reason else videos if "frame_idx" in record else images
            target.append({**record, "reason": reason} if reason else record)
    for kind, records in (("video", videos), ("image", images)):
        if records:
            write_json(output / f"{kind}s.json", records)
            _write(output / f"{kind}_data.txt", _line(folder, output / f"{kind}s.json"))
    _write(output / "rejected.jsonl", "".join(f"{json.dumps(record)}\n" for record in rejected))
    found = f"{len(videos)} scenes of videos, {len(images)} pictures"
    return f"{len(names)} files: {found}, {len(rejected)} left out (see {output / 'rejected.jsonl'})"


def records_of(
    folder: Path, measured: dict[str, Any], filters: Filters
) -> Iterator[tuple[dict[str, Any], str]]:
    """The annotation records of a measured file, each with the reason why it is left out, or none."""
    path, captions, reason = measured["path"], None, measured.get("reason", "")
    try:
        captions = read_captions(folder / path) or filters.default_caption
    except ValueError as error:
        reason = reason or str(error)
    scenes = [Scene(*scene) for scene in measured.get("scenes", [])]
    record = {"path": path, "cap": captions} | {
        name: measured[name] for name in ("height", "width", "fps") if name in measured
    }
    if not reason and captions is None:
        reason = "there is no caption beside it"
    if not reason and min(measured["height"], measured["width"]) < filters.min_size:
        reason = f"its shorter side has {min(measured['height'], measured['width'])} pixels, min_size is {filters.min_size}"
    if reason or not scenes:
        yield record, reason
        return
    if not filters.cut_scenes:
        scenes = [Scene(0, scenes[-1].end, max(scene.motion for scene in scenes))]
    for scene in scenes:
        place = {
            "frame_idx": f"{scene.start}:{scene.end}",
            "num_frames": scene.end - scene.start,
            "motion": scene.motion,
        }
        yield record | place, _why_not(scene, filters)


def _why_not(scene: Scene, filters: Filters) -> str:
    length = scene.end - scene.start
    if length < filters.min_frames:
        return f"the scene has {length} frames, min_frames is {filters.min_frames}"
    if filters.max_frames and length > filters.max_frames:
        return f"the scene has {length} frames, max_frames is {filters.max_frames}"
    if not filters.min_motion <= scene.motion <= filters.max_motion:
        return f"its motion is {scene.motion}, outside {filters.min_motion:g} to {filters.max_motion:g}"
    return ""


def read_captions(path: Path) -> str | list[str] | None:
    """The captions beside a file. Raises ValueError for a side file that cannot be understood."""
    text, described = path.with_suffix(".txt"), path.with_suffix(".json")
    try:
        if text.is_file():
            lines = [
                line.strip() for line in text.read_text(encoding="utf-8-sig").splitlines() if line.strip()
            ]
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
        raise ValueError(f"the caption beside it cannot be read: {error}") from error
    return None


def _measure_all(folder: Path, names: list[str], journal: Path, workers: int) -> Iterator[dict[str, Any]]:
    """What is known of each file, in order; new measurements are added to the journal."""
    known: dict[str, dict[str, Any]] = {}
    written = journal.read_text(encoding="utf-8") if journal.is_file() else ""
    for line in filter(None, written.splitlines()):
        with suppress(json.JSONDecodeError):  # cut off when the command was stopped: measured again
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
    """Size, rate and scenes of a file, or the reason why it cannot be read. Pictures that do not move have no scenes."""
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
    except Exception as error:  # whatever a decoder raises for a foreign file
        return {
            "path": name,
            "reason": str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}",
        }


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))


def _line(folder: Path, annotations: Path) -> str:
    """A line of a data list, with quotes where a path needs them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([folder.resolve(), annotations.resolve()])
    return text.getvalue()
