"""Evaluate a demo model: colour, subject, motion and flicker of its clips, and the autoencoder's error.

    evaluation = evaluate(renderer, generate, reconstruct, shape=(17, 64), clips_per_pair=1, real_clips=154)
    print(report.table(evaluation))

`generate(caption, seed)` makes a clip, `reconstruct(video)` encodes and decodes a real one. The figures of
real and of reconstructed clips stand beside those of the generated ones; they are the best that a model can
reach.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from opensora.console import track
from opensora.demo_data.captions import caption
from opensora.demo_data.judge import Judge, Judgement, mean
from opensora.demo_data.render import STRIDE, Clip, DemoClips, Pair, Renderer

Generate = Callable[[str, int], np.ndarray]
Reconstruct = Callable[[np.ndarray], np.ndarray]
Middles = list[tuple[Pair, np.ndarray]]
"""Pairs of subject and colour with the middle frames of their clips."""

COLOUR = "background colour right, %"
SUBJECT = "subject right, %"
NEAREST_PSNR = "nearest rendering: PSNR, dB (median)"
NEAREST_IOU = "nearest rendering: IoU of the masks (median)"
MOTION = "motion, times training clips (median)"
FORWARD = "motion in the animation's direction, % of clips"
FLICKER = "background flicker, levels"
MOTION_BOUNDS = (0.8, 1.2)  # times the motion of training clips


@dataclass(frozen=True)
class Criterion:
    """A line of the table: figures of generated, real and reconstructed clips, and bounds of the first.

    None stands for a figure that was not measured and for a bound that does not exist.
    """

    name: str
    figure: float | None
    low: float | None = None
    high: float | None = None
    real: float | None = None
    reconstructed: float | None = None

    @property
    def met(self) -> bool | None:
        """True if the figure is within its bounds; None if it was not measured."""
        if self.figure is None:
            return None
        return (self.low is None or self.figure >= self.low) and (
            self.high is None or self.figure <= self.high
        )


@dataclass(frozen=True)
class Evaluation:
    """All results: the table's rows, a judgement of each clip, and the frames of the generated `clips`."""

    rows: list[Criterion]
    generated: list[Judgement]
    real: list[Judgement]
    reconstructed: list[Judgement]
    clips: list[np.ndarray]

    @property
    def missed(self) -> list[Criterion]:
        return [row for row in self.rows if row.met is False]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the frames, for JSON."""
        rows = [{**asdict(row), "met": row.met} for row in self.rows]
        clips = {
            name: [asdict(item) for item in getattr(self, name)]
            for name in ("generated", "real", "reconstructed")
        }
        return {"rows": rows, **clips}


def evaluate(
    renderer: Renderer,
    generate: Generate | None,
    reconstruct: Reconstruct,
    shape: tuple[int, int] = (17, 64),
    clips_per_pair: int = 1,
    real_clips: int = 154,
    seed: int = 0,
    stride: int = STRIDE,
) -> Evaluation:
    """Judge generated clips of every held-out pair, held-out renderings, and reconstructions of these.

    generate: None measures only the evaluator and the autoencoder. clips_per_pair, real_clips: numbers of
    generated clips for each pair and of renderings. shape: frames, and side in pixels, of real clips;
    generated ones should have the same. seed: of the renderings and of the first generated clip; the next
    clips have the next seeds. stride: source frames from one frame to the next, as in training.
    """
    judge = Judge(renderer, shape, seed, stride)
    real, reconstructed, errors = [], [], []
    middles: tuple[Middles, Middles, Middles] = ([], [], [])  # of generated, real and reconstructed clips
    held_out = DemoClips(renderer, seed, "held_out", shape[0], shape[1], stride)
    # Clips of one pair follow one another, because the judge keeps the renderings of a few pairs only.
    for index in track(sorted(range(real_clips), key=held_out.pair), "real clips"):
        clip = held_out[index]
        result = reconstruct(clip.video)
        errors.append(squared_errors(clip, result))
        real.append(judge(clip.video, clip.pair, index))
        reconstructed.append(judge(result, clip.pair, index))
        middles[1].append((clip.pair, _middle(clip.video)))
        middles[2].append((clip.pair, _middle(result)))
    generated, clips = [], []
    pairs = [pair for pair in held_out.pairs for _ in range(clips_per_pair)]
    if generate is not None:
        for number, pair in track(list(enumerate(pairs)), "generated clips"):
            clips.append(generate(caption(*pair), seed + number))
            generated.append(judge(clips[-1], pair, seed + number))
            middles[0].append((pair, _middle(clips[-1])))
    rows = summarise(generated, real, reconstructed, errors)
    rows.append(Criterion("diversity over seeds, levels", *_in_row(map(diversity, middles))))
    return Evaluation(rows, generated, real, reconstructed, clips)


def _middle(video: np.ndarray) -> np.ndarray:
    """The middle frame of a clip."""
    return np.asarray(video[len(video) // 2])


def diversity(middles: Middles) -> float | None:
    """Root mean squared difference, in levels, of frames of the same pair; None if no pair has two.

    middles: pairs with frames uint8 (H, W, 3).
    """
    by_pair = defaultdict(list)
    for pair, frame in middles:
        by_pair[pair].append(frame.astype(np.float64))
    differences = [
        float(np.sqrt(np.square(one - other).mean()))
        for frames in by_pair.values()
        for one, other in combinations(frames, 2)
    ]
    return mean(differences) if differences else None


def squared_errors(clip: Clip, result: np.ndarray) -> np.ndarray:
    """Squared error and number of values (2, 2): of the clip, and of the subject's pixels (alpha > 0)."""
    error = np.square(clip.video.astype(np.float64) - result)
    subject = error[clip.alpha > 0]
    return np.array([[error.sum(), error.size], [subject.sum(), subject.size]])


def psnr_of_sums(sums: np.ndarray) -> tuple[float, float]:
    """PSNR in dB from sums of `squared_errors`, overall and on the subject; at most 100.

    10 log10(255^2 / mean squared error)
    """
    overall, subject = sums[:, 0] / sums[:, 1]
    return float(-10 * np.log10(overall / 255**2 + 1e-10)), float(-10 * np.log10(subject / 255**2 + 1e-10))


def summarise(
    generated: Sequence[Judgement],
    real: Sequence[Judgement],
    reconstructed: Sequence[Judgement],
    errors: Sequence[np.ndarray],
) -> list[Criterion]:
    """The rows of the table. The PSNR is that of the mean squared error of all clips."""
    generated_figures, real_figures, reconstructed_figures = map(_figures, (generated, real, reconstructed))

    def row(name: str, low: float | None = None, high: float | None = None) -> Criterion:
        figures = (group.get(name) for group in (generated_figures, real_figures, reconstructed_figures))
        return Criterion(name, *_in_row(figures, low, high))

    overall, on_subject = psnr_of_sums(np.sum(errors, axis=0)) if errors else (None, None)
    return [
        row(COLOUR, 100),
        row(SUBJECT, 99),
        row(NEAREST_PSNR, 20),
        row(NEAREST_IOU, 0.87),
        row(MOTION, *MOTION_BOUNDS),
        row(FORWARD),
        _flicker_row(
            *(group.get(FLICKER) for group in (generated_figures, real_figures, reconstructed_figures))
        ),
        Criterion("evaluator: subject right on real clips, %", real_figures.get(SUBJECT), 97),
        Criterion("evaluator: subject right on reconstructed, %", reconstructed_figures.get(SUBJECT), 95),
        Criterion("autoencoder: PSNR, dB", overall, 30),
        Criterion("autoencoder: PSNR on the subject, dB", on_subject, 27),
    ]


def _in_row(
    figures: Iterable[float | None], low: float | None = None, high: float | None = None
) -> tuple[float | None, ...]:
    """Figures of generated, real and reconstructed clips and bounds in the order of a Criterion's fields."""
    generated, real, reconstructed = figures
    return generated, low, high, real, reconstructed


def _flicker_row(generated: float | None, real: float | None, reconstructed: float | None) -> Criterion:
    """Flicker relative to that of reconstructions, which may have none at all."""
    scale = None if reconstructed is None else max(reconstructed, 0.01)
    times = [
        None if value is None or scale is None else value / scale
        for value in (generated, real, reconstructed)
    ]
    return Criterion("background flicker, times reconstruction", *_in_row(times, None, 1.3))


def _figures(clips: Sequence[Judgement]) -> dict[str, float]:
    """Figures of a group of clips by name; empty without clips."""
    if not clips:
        return {}
    return {
        COLOUR: 100 * mean([clip.right_colour for clip in clips]),
        SUBJECT: 100 * mean([clip.right_subject for clip in clips]),
        NEAREST_PSNR: float(np.median([clip.nearest_psnr for clip in clips])),
        NEAREST_IOU: float(np.median([clip.nearest_iou for clip in clips])),
        MOTION: float(np.median([clip.motion_ratio for clip in clips])),
        FORWARD: 100 * mean([clip.forward for clip in clips]),
        FLICKER: mean([clip.flicker for clip in clips]),
    }
