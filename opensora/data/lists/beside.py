"""Captions that lie beside the files of a folder, in a file of their own or in a metadata file."""

from pathlib import Path
from typing import Any

from opensora.config_files import read_json
from opensora.data.lists.lines import read_lines
from opensora.data.lists.records import scan

CAPTION_KEYS = ("cap", "caption", "captions", "text", "prompt")
NAME_KEYS = ("file_name", "file", "path", "video", "image", "name")
METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.json")

Captions = str | list[str]


class CaptionFinder:
    """Finds the captions of the files in a folder.

    They are the lines of `<name>.txt` beside a file; or "cap" (caption, captions, text, prompt) in
    `<name>.json`; or the same column in a metadata.csv, .tsv, .jsonl or .json of the file's folder or one
    above it, in the record whose file_name (file, path, video, image, name) is the file's path from there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metadata: dict[Path, dict[str, Captions]] = {}

    def captions(self, name: str) -> Captions | None:
        """The captions of a file, or None. Raises ValueError for a caption file that cannot be read."""
        path = self.folder / name
        try:
            text, described = path.with_suffix(".txt"), path.with_suffix(".json")
            if text.is_file():
                lines = [line.strip() for line in read_lines(text, "caption file")]
                lines = [line for line in lines if line]
                return lines[0] if len(lines) == 1 else lines or None
            if described.is_file():
                found = _captions(read_json(described))
                if found is None:
                    raise ValueError(f"no text under {', '.join(CAPTION_KEYS)}")
                return found
        except ValueError as error:
            raise ValueError(f"its caption file cannot be read: {error}") from error
        for parent in (path.parent, *path.parent.parents):
            found = self._of_folder(parent).get(path.relative_to(parent).as_posix())
            if found is not None or parent == self.folder:
                return found
        return None

    def _of_folder(self, folder: Path) -> dict[str, Captions]:
        """The captions by file name in a folder's metadata file; the first record of a name counts."""
        if folder not in self._metadata:
            by_name: dict[str, Captions] = {}
            self._metadata[folder] = by_name
            for path in (folder / name for name in METADATA if (folder / name).is_file()):
                for record in scan(path, texts=CAPTION_KEYS):
                    name = next((record.content[key] for key in NAME_KEYS if key in record.content), None)
                    captions = _captions(record.content)
                    if isinstance(name, str) and captions:
                        by_name.setdefault(Path(name).as_posix(), captions)
        return self._metadata[folder]


def _captions(content: Any) -> Captions | None:
    """The captions in the content of a file, or None if it has none."""
    if isinstance(content, dict):
        content = next((content[key] for key in CAPTION_KEYS if key in content), None)
    captions = content if isinstance(content, list) else [content]
    if not captions or not all(isinstance(caption, str) for caption in captions):
        return None
    return content if isinstance(content, str) else captions
