"""Files that are written together: to a temporary folder, and moved to their places when all are complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opensora.files import folders_made, hash_file, remove_scratch, scratch_folder, sync_folder
from opensora.weights import WeightsError
from opensora.weights.sources import SUFFIXES


class OutputFolder:
    """The files of a conversion, by the paths that they will have."""

    def __init__(self, root: Path, building: Path, overwrite: bool) -> None:
        """overwrite: replace existing files."""
        self.root, self.overwrite = root, overwrite
        self._building = building

    def place(self, path: Path) -> Path:
        """The place to write the file that will be `path`, which lies in `root`."""
        temporary = self._building / path.relative_to(self.root)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        return temporary

    def has(self, path: Path) -> bool:
        """True if `path` exists or will."""
        return self.place(path).exists() or (path.exists() and not self.overwrite)

    def refuse(self, path: Path) -> None:
        """Raise WeightsError for a file that exists and must not be replaced."""
        if path.exists() and not self.overwrite:
            raise WeightsError(
                f"{path} exists: choose another --target, or remove it first, or replace it with --overwrite"
            )

    def publish(self) -> None:
        """Move all files to their places, weights last.

        A kill in between leaves some of them; the same conversion takes those for its own.
        """
        if not self.root.exists():
            os.rename(self._building, self.root)
            sync_folder(self.root.parent)
            return
        paths = sorted(
            (path.relative_to(self._building) for path in self._building.rglob("*") if path.is_file()),
            key=lambda path: (path.suffix in SUFFIXES, path),
        )
        if not paths:
            return
        self.refuse(self.root / paths[-1])
        for path in paths:
            if not _same(self._building / path, self.root / path):
                self.refuse(self.root / path)
        for path in paths:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._building / path, self.root / path)
            sync_folder((self.root / path).parent)


@contextmanager
def output_folder(root: Path, overwrite: bool) -> Iterator[OutputFolder]:
    """An OutputFolder that is published if the block succeeds; otherwise nothing changes."""
    place = root if root.exists() else root.absolute().parent
    with folders_made(place):
        remove_scratch(place)
        with scratch_folder(place) as building:
            output = OutputFolder(root, building, overwrite)
            with _naming_targets(building, root):
                yield output
                output.publish()


@contextmanager
def _naming_targets(building: Path, root: Path) -> Iterator[None]:
    """Name the file that was to be, instead of the temporary one, in errors of the system."""
    try:
        yield
    except OSError as error:
        path = Path(str(error.filename))
        if error.errno is None or building not in path.parents:
            raise
        raise OSError(error.errno, error.strerror, str(root / path.relative_to(building))) from error


def _same(new: Path, old: Path) -> bool:
    return old.is_file() and new.stat().st_size == old.stat().st_size and hash_file(new) == hash_file(old)
