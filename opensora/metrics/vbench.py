"""`opensora export-vbench`: videos and prompts as VBench's own tool reads them (arXiv:2311.17982).

VBench finds the videos of a prompt by their names, `<prompt>-<i>.mp4` with i from 0, in a folder that holds
nothing else. Its mode `custom_input` reads the prompts from a file that names the prompt of each video.
"""

import filecmp
import logging
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from opensora.files import atomic_path, check_writable, only_writer, write_json
from opensora.media.formats import VIDEO_SUFFIXES, media_files
from opensora.metrics.evaluate import FilePair, find_prompts

log = logging.getLogger(__name__)

LONGEST_NAME = 255  # bytes, on most file systems
VIDEOS, PROMPTS = "videos", "prompts.json"


@dataclass(frozen=True, kw_only=True)
class VBenchOptions:
    """Options of `opensora export-vbench`."""

    GROUP: ClassVar[str] = "data"
    generated_video_dir: str
    """Folder of videos from `opensora generate`, or with a caption beside each."""
    output_path: str
    """Folder for `videos/` and `prompts.json`."""


def export_vbench(options: VBenchOptions) -> None:
    """Copy the videos under VBench's names, those of a prompt in the order of their names, and write the
    prompts.

    A stopped command continues. Raises ValueError, before anything is written, for a video without a prompt,
    for a prompt that cannot be a name, for videos of several formats, and for other files in the way.
    """
    source, output = Path(options.generated_video_dir), Path(options.output_path)
    check_writable(output, "output_path")
    found = [path for path in media_files(source) if path.suffix.lower() in VIDEO_SUFFIXES]
    suffixes = sorted({path.suffix for path in found})
    if len(suffixes) != 1:
        held = f"videos of several formats ({', '.join(suffixes)})" if suffixes else "no videos"
        raise ValueError(f"folder {source} holds {held}: VBench reads a folder of one format")
    prompts = find_prompts([FilePair(path, path) for path in found])
    targets: dict[Path, Path] = {}
    counts: Counter[str] = Counter()
    for path in found:
        prompt = prompts[path]
        target = output / VIDEOS / f"{prompt}-{counts[prompt]}{path.suffix}"
        _check(path, target, prompt)
        targets[path] = target
        counts[prompt] += 1
    folder = output / VIDEOS
    present = set(folder.iterdir()) - set(targets.values()) if folder.is_dir() else set()
    if present:
        raise ValueError(f"{min(present)} is not of this run: VBench reads all of the folder, choose another")
    with only_writer(output, "output_path"):
        folder.mkdir(exist_ok=True)
        for path, target in targets.items():
            if not target.exists():
                with atomic_path(target) as temporary:
                    shutil.copyfile(path, temporary)
        write_json(output / PROMPTS, {target.name: prompts[path] for path, target in targets.items()})
    log.info("%s: %d videos of %d prompts", output, len(targets), len(counts))


def _check(path: Path, target: Path, prompt: str) -> None:
    """Raises ValueError for a name that no file can have, and for another file of that name."""
    if not prompt or "/" in prompt or "\0" in prompt or len(target.name.encode()) > LONGEST_NAME:
        raise ValueError(
            f"the prompt of {path} cannot be the name of a file, as VBench needs it: shorten it, leave out /"
        )
    if target.exists() and not filecmp.cmp(path, target, shallow=False):
        raise ValueError(f"{target} exists and is another video: choose another --output_path")
