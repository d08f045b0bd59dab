"""Files that a command makes of other files, such as videos of videos: the plan, and the results on disk.

Beside each result lies `<result>.json` with the recipe, everything that determines the frames. It is written
before the result, so that an interrupted run continues, and a file with another recipe is never overwritten.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opensora.files import check_writable, hash_file, only_writer, read_sidecar, write_json
from opensora.media.formats import MEDIA_SUFFIXES, media_files
from opensora.media.mp4 import open_mp4
from opensora.media.writer import write_video
from opensora.runtime import versions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedFile:
    """One file of a run.

    name: of the source, relative to its folder. settings: the recipe without the source.
    """

    name: str
    source: Path
    target: Path
    settings: dict[str, Any]

    @property
    def sidecar(self) -> Path:
        return self.target.with_name(self.target.name + ".json")

    def recipe(self) -> dict[str, Any]:
        """Everything that determines the result; hashes the source. ValueError if it does not exist."""
        if not self.source.is_file():
            raise ValueError(f"{self.source} does not exist")
        return {**self.settings, "source": self.name, "sha256": hash_file(self.source)}

    def earlier(self, option: str, *more: Path) -> dict[str, Any] | None:
        """The sidecar of an earlier run that made the result, None if there is no result.

        option: the one that names the result. more: files that come with the result. Raises ValueError for
        files of another request.
        """
        existing = next((path for path in (self.target, self.sidecar, *more) if path.exists()), None)
        if existing is None:
            return None
        content = read_sidecar(self.sidecar)
        if not self.source.is_file() or content.get("recipe") != self.recipe():
            raise ValueError(
                f"{existing} exists and was made otherwise: move it away, or choose another --{option}"
            )
        return content if self.target.is_file() else None

    def write_sidecar(self, command: str, **more: Any) -> None:
        """Write the recipe, and make the result's folder. more: other entries."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        content = {"command": command, "recipe": self.recipe(), "source": str(self.source)}
        write_json(self.sidecar, {**content, **more, "versions": versions()})


def find_targets(
    sources: Sequence[Path], folder: Path, results: Path, suffix: Callable[[Path], str]
) -> list[tuple[str, Path, Path]]:
    """(name, source, target) of each file of a folder; suffix: of the result of a source.

    Raises ValueError for two sources with one target.
    """
    by_target: dict[Path, Path] = {}
    for source in sources:
        target = results / source.relative_to(folder).with_suffix(suffix(source))
        if target in by_target:
            raise ValueError(
                f"{by_target[target].name} and {source.name} in {folder} would both become {target}: "
                "rename one"
            )
        by_target[target] = source
    return [(source.relative_to(folder).as_posix(), source, target) for target, source in by_target.items()]


def plan_videos(
    video_path: str,
    rec_path: str,
    settings: dict[str, Any],
    skipped: Sequence[str] = (),
    stills: Sequence[str] = (),
) -> list[PlannedFile]:
    """The files of a run on a video, or on all videos of a folder.

    skipped: suffixes that a folder may have and that are left out. stills: suffixes of pictures whose results
    are pictures. Raises ValueError for results that cannot be written, share a name, or belong to another
    request.
    """
    source, target = Path(video_path), Path(rec_path)

    def suffix(path: Path) -> str:
        return ".png" if path.suffix.lower() in stills else ".mp4"

    if not source.is_dir():
        if not source.is_file():
            raise ValueError(f"--video_path {source} does not exist: check the path")
        if target.suffix.lower() != suffix(source):
            raise ValueError(
                f"--rec_path {target} cannot be written: choose a name that ends in {suffix(source)}"
            )
        check_writable(target.parent, "rec_path")
        files = [PlannedFile(source.name, source, target, settings)]
    else:
        if target.suffix.lower() in MEDIA_SUFFIXES or target.is_file():
            raise ValueError(
                f"--rec_path {target} is a file, but --video_path {source} a folder: name a folder"
            )
        if target.exists() and target.samefile(source):
            raise ValueError(f"--rec_path {target} is the folder of the videos: choose another")
        found = [path for path in media_files(source) if path.suffix.lower() not in skipped]
        if not found:
            raise ValueError(f"folder {source} has no video: check --video_path")
        check_writable(target, "rec_path")
        files = [PlannedFile(*names, settings) for names in find_targets(found, source, target, suffix)]
    for file in files:
        file.earlier("rec_path")
    return files


def make_files(files: Sequence[PlannedFile], folder: Path | None, make: Callable[[PlannedFile], None]) -> int:
    """Make the results that are missing. Returns 1 if files of a folder were skipped, else 0.

    folder: of all results, None for a single file. Raises ValueError for a single file that cannot be read,
    and for a folder of such.
    """
    reasons = []
    with nullcontext() if folder is None else only_writer(folder, "rec_path"):
        for number, file in enumerate(files, 1):
            if file.earlier("rec_path") is not None:
                log.info("%s is finished", file.target)
                continue
            try:
                make(file)
            except ValueError as error:
                if folder is None:
                    raise
                log.info("skipping %s: %s", file.name, error)
                reasons.append(str(error))
                continue
            log.info("%s (%d of %d)", file.target, number, len(files))
    if len(reasons) == len(files):
        raise ValueError(f"none of {len(files)} files could be read: {reasons[0]}")
    return 1 if reasons else 0


def write_planned(file: PlannedFile, command: str, frames: Iterator[np.ndarray], fps: float) -> None:
    """Write frames, uint8 (H, W, 3), as they come: a picture, or an .mp4 with the sound of the source."""
    first = next(frames)  # errors of the source come before files
    file.write_sidecar(command)
    if file.target.suffix.lower() != ".mp4":
        write_video(file.target, first[None])
        return
    with open_mp4(file.target, fps, audio=file.source) as writer:
        writer.write(first)
        for frame in frames:
            writer.write(frame)
