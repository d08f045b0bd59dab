"""`opensora prepare-data FOLDER`: data lists and annotations for a folder of videos and pictures.

Every file is decoded once to measure it. Measurements are kept in `measured.jsonl`, so that a stopped command
continues and other filters need no second look at the files.
"""

import csv
import io
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from opensora.checks import at_least
from opensora.config_files import typed
from opensora.data.lists.beside import CaptionFinder
from opensora.data.lists.scenes import Scene, find_scenes
from opensora.files import naming, read_json_lines, write_atomic, write_json
from opensora.media.formats import STILL_SUFFIXES, is_picture, media_files
from opensora.media.reader import probe
from opensora.media.sequences import numbered_pictures

OUTPUTS = ("videos.json", "images.json", "video_data.txt", "image_data.txt", "rejected.jsonl")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """A file as it was measured: its place, size in bytes and time of change (ns), and what it holds.

    reason: why it cannot be read. scenes: (start, end, motion) each; none of a picture.
    """

    path: str
    folder: str
    size: int
    time: int
    reason: str = ""
    height: int = 0
    width: int = 0
    fps: float = 0.0
    scenes: tuple[tuple[int, int, float], ...] = ()


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
    class_folders: bool = False
    """The caption of a file is the name of the folder that it lies in, its class (UCF101)."""
    numbered_pictures: bool = False
    """Each folder of numbered pictures is a video (Sky Timelapse)."""

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

    `workers` files are measured in parallel. `CaptionFinder` says where captions are found. Raises ValueError
    for a folder without videos and pictures, and if `output` holds such lists already.
    """
    folder, output = Path(folder), Path(output)
    names = [str(path.relative_to(folder)) for path in media_files(folder, recursive=True)]
    if filters.numbered_pictures:
        names = _with_sequences(folder, names)
    present = [name for name in OUTPUTS if (output / name).exists()]
    if present:
        raise ValueError(
            f"{output / present[0]} exists and is not overwritten: remove it, or choose another --output_path"
        )
    output.mkdir(parents=True, exist_ok=True)
    videos: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    captions = CaptionFinder(folder)
    for measured in _measure_all(folder, names, output / "measured.jsonl", workers):
        for record, reason in _records(captions, measured, filters):
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


def _with_sequences(folder: Path, names: list[str]) -> list[str]:
    """The names with those of the pictures in a folder replaced by the folder's, if they are numbered."""
    parents = sorted({os.path.dirname(name) for name in names})
    sequences = {parent for parent in parents if parent and len(numbered_pictures(folder / parent)) > 1}
    videos = [
        name
        for name in names
        if os.path.dirname(name) not in sequences or Path(name).suffix.lower() not in STILL_SUFFIXES
    ]
    return sorted([*videos, *sequences])


def _class_of(name: str) -> str | None:
    """The first folder on the way to a file, or None for a file that lies in none."""
    parts = Path(name).parts
    return parts[0] if len(parts) > 1 else None


def _records(
    finder: CaptionFinder, measured: Measured, filters: Filters
) -> Iterator[tuple[dict[str, Any], str]]:
    """The annotation records of a measured file, each with the reason why it is rejected, or ""."""
    captions, reason = None, measured.reason
    try:
        own = _class_of(measured.path) if filters.class_folders else finder.captions(measured.path)
        captions = own if own is not None else filters.default_caption
    except ValueError as error:
        reason = reason or str(error)
    scenes = [Scene(*scene) for scene in measured.scenes]
    record = {"path": measured.path, "cap": captions} | {
        name: getattr(measured, name) for name in ("height", "width", "fps") if getattr(measured, name)
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


def _reject_file(measured: Measured, captions: Any, filters: Filters) -> str:
    if captions is None:
        return "it lies in no folder of a class" if filters.class_folders else "it has no caption"
    side = min(measured.height, measured.width)
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


def _measure_all(folder: Path, names: list[str], journal: Path, workers: int) -> Iterator[Measured]:
    """The measurements of all files, in order; new ones are appended to the journal."""
    known = _read_journal(journal)
    missing = [name for name in names if not _is_current(known.get(name), folder, name)]
    with (
        naming(journal),
        open(journal, "a", encoding="utf-8") as file,
        ThreadPoolExecutor(workers) as pool,
    ):
        file.write("\n" if file.tell() else "")  # a stopped command left half a line
        for number, measured in enumerate(pool.map(lambda name: _measure(folder, name), missing), 1):
            known[measured.path] = measured
            file.write(json.dumps(asdict(measured)) + "\n")
            file.flush()
            if number % 100 == 0:
                log.info("measured %d of %d files", number, len(missing))
    return (known[name] for name in names)


def _read_journal(journal: Path) -> dict[str, Measured]:
    """The last measurement of each file. Unreadable lines are skipped, so their files are measured again."""
    known: dict[str, Measured] = {}
    for line in read_json_lines(journal):
        with suppress(ValueError):
            measured = typed(Measured, line, journal)
            known[measured.path] = measured
    return known


def _is_current(measured: Measured | None, folder: Path, name: str) -> bool:
    """True if a measurement is of the present file, by its folder, size and time of change."""
    facts = measured and (measured.folder, measured.size, measured.time)
    return facts == _file_facts(folder, name)


def _file_facts(folder: Path, name: str) -> tuple[str, int, int]:
    facts = os.stat(folder / name)
    return str(folder.resolve()), facts.st_size, facts.st_mtime_ns


def _measure(folder: Path, name: str) -> Measured:
    """Size, rate and scenes of a file, or the reason why it cannot be read. Still pictures have no scenes."""
    measured = Measured(name, *_file_facts(folder, name))
    try:
        name.encode()
    except UnicodeEncodeError:
        return replace(measured, reason="its name is not UTF-8: rename it")
    try:
        info = probe(folder / name)
        measured = replace(measured, height=info.height, width=info.width)
        if is_picture(name, info.frames):
            return measured
        scenes = tuple(find_scenes(folder / name))
        return replace(measured, fps=round(info.fps, 3), scenes=scenes)
    except ValueError as error:
        return replace(measured, reason=str(error))


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))


def _data_list(folder: Path, annotations: Path) -> str:
    """A data list of one line, with quotes if a path needs them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([folder.resolve(), annotations.resolve()])
    return text.getvalue()
