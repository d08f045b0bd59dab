"""Show an evaluation of the demo model: a table, mistakes by subject and colour, a picture of all clips."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from opensora.console import aligned
from opensora.demo_data.evaluator import Criterion, Evaluation, Judgement
from opensora.media.sheets import contact_sheet

SHEET_FRAMES = 4  # shown of each clip
BORDER = 2  # pixels around a clip in the sheet
WRONG = (230, 0, 0)


def table(evaluation: Evaluation) -> str:
    """A line for each row: target, figure, and the figures of real and reconstructed clips."""
    head = ("", "target", "figure", "real", "reconstructed", "")
    return aligned([head, *(_cells(row) for row in evaluation.rows)])


def _cells(row: Criterion) -> tuple[str, ...]:
    if row.low is not None and row.high is not None:
        target = f"{row.low:g} to {row.high:g}"
    else:
        target = (
            f">= {row.low:g}" if row.low is not None else f"<= {row.high:g}" if row.high is not None else ""
        )
    figures = ("" if value is None else f"{value:.2f}" for value in (row.figure, row.real, row.reconstructed))
    return row.name, target, *figures, "missed" if row.met is False else ""


def breakdown(judgements: Sequence[Judgement], by: Literal["subject", "colour"]) -> Iterator[str]:
    """A line for each subject or colour: clips that are right, median motion, what was found instead."""
    groups = defaultdict(list)
    for judgement in judgements:
        groups[getattr(judgement, by)].append(judgement)
    for name, group in groups.items():
        seen = [getattr(item, f"found_{by}") or "nothing" for item in group]
        mistakes = Counter(found for found in seen if found != name)
        instead = ", ".join(f"{count} x {found}" for found, count in mistakes.most_common())
        motion = float(np.median([item.motion_ratio for item in group]))
        right = len(group) - mistakes.total()
        yield f"{name:20} {right:3} of {len(group):3}   motion {motion:.2f}   {instead}".rstrip()


def sheet(evaluation: Evaluation) -> np.ndarray:
    """Frames of every generated clip, with a red border if subject or colour is wrong: uint8 (H, W, 3)."""
    right = [item.right_subject and item.right_colour for item in evaluation.generated]
    return marked_sheet(evaluation.clips, right)


def marked_sheet(clips: Sequence[np.ndarray], right: Sequence[bool]) -> np.ndarray:
    """Frames of clips, with a red border around those that are not right: uint8 (H, W, 3)."""
    strips = []
    for clip, is_right in zip(clips, right, strict=True):
        chosen = clip[np.linspace(0, len(clip) - 1, min(SHEET_FRAMES, len(clip))).astype(int)]
        strip = np.concatenate(list(chosen), axis=1)
        colour = (255, 255, 255) if is_right else WRONG
        height, width, _ = strip.shape
        bordered = np.full((height + 2 * BORDER, width + 2 * BORDER, 3), colour, np.uint8)
        bordered[BORDER:-BORDER, BORDER:-BORDER] = strip
        strips.append(bordered)
    return contact_sheet(np.stack(strips), columns=4)
