"""Tables in plain text."""

from collections.abc import Sequence


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns: the first to the left, all others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    rows = ([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))] for line in lines)
    return "\n".join("  ".join(row).rstrip() for row in rows)
