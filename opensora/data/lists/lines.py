"""Text files of lines: one prompt, caption or name a line."""

from pathlib import Path
from typing import BinaryIO

from opensora.data.lists.tables import BOM, LARGEST


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a UTF-8 file without their ends: LF, CR LF or CR.

    No other character ends a line, so that a caption may hold U+2028 or a vertical tab. what: the file's
    role, for errors. Raises ValueError for a file that is missing, too large or not UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{what} {path} does not exist: check the path")
    with open(path, "rb") as file:
        return lines_of(file, f"{what} {path}")


def lines_of(file: BinaryIO, name: str) -> list[str]:
    """The lines of an open file. name: of the file, for errors. Raises ValueError as `read_lines` does."""
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{name} is larger than {LARGEST:,} bytes: split it, or check the path")
    try:
        return [line.decode() for line in content.removeprefix(BOM).splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text: save it as UTF-8") from error
