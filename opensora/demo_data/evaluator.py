"""Evaluate a demo model: colour, subject, motion and flicker of its clips, and the autoencoder's error.

    evaluation = evaluate(renderer, generate, reconstruct, shape=(17, 64), clips_per_pair=1, real_clips=154)
    print(report.table(evaluation))

`generate(caption, seed)` makes a clip, `reconstruct(video)` encodes and decodes a real one. The figures of
real and of reconstructed clips stand beside those of the generated ones; they are the best that a model can
reach.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from opensora.console import track
from opensora.demo_data.classifier import SubjectClassifier, estimate_background, nearest_colour, subject_mask
from opensora.demo_data.render import STRIDE, Clip, DemoClips, Pair, Renderer, caption, demo_set

Generate = Callable[[str, int], np.ndarray]
Reconstruct = Callable[[np.ndarray], np.ndarray]

MOTION_BOUNDS = (0.5, 2.0)  # times the motion of training clips
TRAINING_CLIPS = 12  # per subject, to measure its mean motion


@dataclass(frozen=True)
class Judgement:
    """What one clip shows that should show `subject` on `colour`.

    Changes are from frame to frame, in levels of 0..255.
    """

    subject: str
    colour: str
    seed: int
    found_subject: str | None
    found_colour: str
    background: tuple[float, float, float]
    motion: float  # mean absolute change of the subject's pixels
    motion_ratio: float  # relative to training clips of the subject
    flicker: float  # mean absolute change of the background's pixels

    @property
    def right_subject(self) -> bool:
        return self.found_subject == self.subject

    @property
    def right_colour(self) -> bool:
        return self.found_colour == self.colour


@dataclass(frozen=True)
class Row:
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
        """Whether the figure is within its bounds; None if it was not measured."""
        if self.figure is None:
            return None
        return (self.low is None or self.figure >= self.low) and (
            self.high is None or self.figure <= self.high
        )


@dataclass(frozen=True)
class Evaluation:
    """All results: the table's rows, a judgement of each clip, and the frames of the generated `clips`."""

    rows: list[Row]
    generated: list[Judgement]
    real: list[Judgement]
    reconstructed: list[Judgement]
    clips: list[np.ndarray]

    @property
    def missed(self) -> list[Row]:
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
    held_out = DemoClips(renderer, seed, "held_out", shape[0], shape[1], stride)
    for index in track(range(real_clips), "real clips"):
        clip = held_out[index]
        result = reconstruct(clip.video)
        errors.append(squared_errors(clip, result))
        real.append(judge(clip.video, clip.pair, index))
        reconstructed.append(judge(result, clip.pair, index))
    generated, clips = [], []
    pairs = [pair for pair in held_out.pairs for _ in range(clips_per_pair)]
    if generate is not None:
        for number, pair in track(list(enumerate(pairs)), "generated clips"):
            clips.append(generate(caption(*pair), seed + number))
            generated.append(judge(clips[-1], pair, seed + number))
    return Evaluation(
        summarise(generated, real, reconstructed, errors), generated, real, reconstructed, clips
    )


class Judge:
    """Judges clips.

    Motion is relative to training clips of the same subject, which are rendered when first needed.
    """

    def __init__(self, renderer: Renderer, shape: tuple[int, int], seed: int, stride: int) -> None:
        self._renderer, self._shape, self._seed, self._stride = renderer, shape, seed, stride
        self._classifier = SubjectClassifier(renderer)
        self._motion: dict[str, float] = {}

    def __call__(self, video: np.ndarray, pair: Pair, seed: int) -> Judgement:
        background = estimate_background(video)
        motion, flicker = changes(video, background)
        found = self._classifier.classify(video, background)
        ratio = motion / self.training_motion(pair[0])
        red, green, blue = map(float, background)
        return Judgement(
            *pair, seed, found, nearest_colour(background), (red, green, blue), motion, ratio, flicker
        )

    def training_motion(self, subject: str) -> float:
        """Mean motion of TRAINING_CLIPS clips of the subject on its training colours, in levels."""
        if subject not in self._motion:
            colours = [colour for name, colour in demo_set().pairs("train") if name == subject]
            motions = []
            for number in range(TRAINING_CLIPS):
                rng = np.random.default_rng([self._seed, number])
                clip = self._renderer.render(
                    subject, colours[number % len(colours)], *self._shape, rng, self._stride
                )
                motions.append(changes(clip.video, estimate_background(clip.video))[0])
            self._motion[subject] = float(np.mean(motions))
        return self._motion[subject]


def changes(video: np.ndarray, background: np.ndarray) -> tuple[float, float]:
    """Mean absolute change from frame to frame, in levels: (subject's pixels, background's pixels).

    video: uint8 (T, H, W, 3). A pixel that shows the subject in one of the two frames is the subject's; a rim
    of two pixels around it is neither's.
    """
    shown = subject_mask(video, background)
    subject = shown[1:] | shown[:-1]
    delta = np.abs(np.diff(video.astype(np.int16), axis=0)).mean(-1)
    background_mask = ~_grown(_grown(subject))
    return _mean(delta[subject]), _mean(delta[background_mask])


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask (T, H, W) grown by one pixel, corners included."""
    padded = np.pad(mask, [(0, 0), (1, 1), (1, 1)])
    height, width = mask.shape[1:]
    parts = [padded[:, i : i + height, k : k + width] for i in range(3) for k in range(3)]
    return np.asarray(np.logical_or.reduce(parts))


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def squared_errors(clip: Clip, result: np.ndarray) -> np.ndarray:
    """Squared error and number of values (2, 2): of the clip, and of the subject's pixels (alpha > 0)."""
    error = np.square(clip.video.astype(np.float64) - result)
    subject = error[clip.alpha > 0]
    return np.array([[error.sum(), error.size], [subject.sum(), subject.size]])


def psnr(sums: np.ndarray) -> tuple[float, float]:
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
) -> list[Row]:
    """The rows of the table. The PSNR is that of the mean squared error of all clips."""
    groups = (generated, real, reconstructed)
    colour, subject, in_bounds, motion, flicker = zip(*map(_figures, groups), strict=True)
    # Reconstructions may have no flicker at all.
    still = None if flicker[2] is None else max(flicker[2], 0.01)
    times = [None if value is None or still is None else value / still for value in flicker]
    overall, on_subject = psnr(np.sum(errors, axis=0)) if errors else (None, None)
    return [
        Row("background colour right, %", colour[0], 95, None, *colour[1:]),
        Row("subject right, %", subject[0], 85, None, *subject[1:]),
        Row("motion, times training clips (median)", motion[0], *MOTION_BOUNDS, *motion[1:]),
        Row("motion within 0.5 to 2, % of clips", in_bounds[0], None, None, *in_bounds[1:]),
        Row("background flicker, times reconstruction", times[0], None, 2, *times[1:]),
        Row("evaluator: subject right on real clips, %", subject[1], 97),
        Row("evaluator: subject right on reconstructed, %", subject[2], 95),
        Row("autoencoder: PSNR, dB", overall, 25),
        Row("autoencoder: PSNR on the subject, dB", on_subject, 18),
    ]


def _figures(clips: Sequence[Judgement]) -> tuple[float | None, ...]:
    """Colour right in %, subject right in %, motion within bounds in %, median motion ratio, mean flicker."""
    if not clips:
        return (None,) * 5
    ratios = np.array([clip.motion_ratio for clip in clips])
    return (
        100 * _mean([clip.right_colour for clip in clips]),
        100 * _mean([clip.right_subject for clip in clips]),
        100 * _mean((ratios >= MOTION_BOUNDS[0]) & (ratios <= MOTION_BOUNDS[1])),
        float(np.median(ratios)),
        _mean([clip.flicker for clip in clips]),
    )
