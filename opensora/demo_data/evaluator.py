"""How well a demo model does what it is asked: right colour, right subject, lively subject, calm background, faithful autoencoder.

    evaluation = evaluate(renderer, generate, reconstruct, shape=(17, 64), clips_per_pair=1, real_clips=154)
    print(demo_report.table(evaluation))

`generate(caption, seed)` makes the clip that is judged, `reconstruct(video)` sends a real one through the autoencoder. Each
figure stands beside its ceiling: what the same measure says of real clips, which no model can be expected to exceed.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from opensora.demo_data.classifier import SubjectClassifier, estimate_background, nearest_colour, subject_mask
from opensora.demo_data.render import STRIDE, Clip, DemoClips, Pair, Renderer, caption, demo_set

log = logging.getLogger(__name__)

Generate = Callable[[str, int], np.ndarray]
Reconstruct = Callable[[np.ndarray], np.ndarray]

LIVELY = (0.5, 2.0)  # times the motion of training clips
TRAINING_CLIPS = 12  # of each subject, whose mean motion is the reference
T = TypeVar("T")


@dataclass(frozen=True)
class Judgement:
    """What was seen in one clip that should show `subject` on `colour`. Changes are in levels of 0..255 from frame to frame."""

    subject: str
    colour: str
    seed: int
    found_subject: str | None
    found_colour: str
    background: tuple[float, float, float]
    motion: float  # mean absolute change on the subject's pixels
    motion_ratio: float  # to training clips of the subject
    flicker: float  # mean absolute change on the background's pixels

    @property
    def right_subject(self) -> bool:
        return self.found_subject == self.subject

    @property
    def right_colour(self) -> bool:
        return self.found_colour == self.colour


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, the bounds it must keep, and what the same measure says of real and of reconstructed clips.

    `figure` is None where nothing was measured, a bound or a ceiling where there is none.
    """

    name: str
    figure: float | None
    low: float | None = None
    high: float | None = None
    real: float | None = None
    reconstructed: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bounds are kept; None where nothing was measured."""
        if self.figure is None:
            return None
        return (self.low is None or self.figure >= self.low) and (
            self.high is None or self.figure <= self.high
        )


@dataclass(frozen=True)
class Evaluation:
    """All that was measured. `generated`, `real` and `reconstructed` hold a judgement of each clip, `clips` the generated frames."""

    rows: list[Row]
    generated: list[Judgement]
    real: list[Judgement]
    reconstructed: list[Judgement]
    clips: list[np.ndarray]

    @property
    def missed(self) -> list[Row]:
        return [row for row in self.rows if row.met is False]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the frames, for json."""
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
    """Judge `clips_per_pair` generated clips of every held-out pair, and `real_clips` held-out renderings as they are and reconstructed.

    generate: None measures the evaluator and the autoencoder only.
    shape: frames, and side in pixels, of the real clips; generated ones should have the same. seed: of the first generated clip (each
    further one has the next) and of the renderings. stride: source frames from one frame to the next, as in training.
    """
    judge = Judge(renderer, shape, seed, stride)
    real, reconstructed, errors = [], [], []
    held_out = DemoClips(renderer, seed, "held_out", shape[0], shape[1], stride)
    for index in _counted(range(real_clips), "real clips"):
        clip = held_out[index]
        result = reconstruct(clip.video)
        errors.append(squared_errors(clip, result))
        real.append(judge(clip.video, clip.pair, index))
        reconstructed.append(judge(result, clip.pair, index))
    generated, clips = [], []
    pairs = [pair for pair in held_out.pairs for _ in range(clips_per_pair)]
    if generate is not None:
        for number, pair in _counted(list(enumerate(pairs)), "generated clips"):
            clips.append(generate(caption(*pair), seed + number))
            generated.append(judge(clips[-1], pair, seed + number))
    return Evaluation(
        summarise(generated, real, reconstructed, errors), generated, real, reconstructed, clips
    )


class Judge:
    """Looks at clips. Motion is compared with that of the training clips of the same subject, which are rendered when first needed."""

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
    """Mean absolute change from frame to frame, in levels, on the subject's pixels and on the background's: uint8 (T, H, W, 3).

    A pixel belongs to the subject where it shows it in one of the two frames; a rim of two pixels around it to neither.
    """
    shown = subject_mask(video, background)
    subject = shown[1:] | shown[:-1]
    delta = np.abs(np.diff(video.astype(np.int16), axis=0)).mean(-1)
    calm = ~_grown(_grown(subject))
    return _mean(delta[subject]), _mean(delta[calm])


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask (T, H, W) and the pixels beside it, over corners too."""
    padded = np.pad(mask, [(0, 0), (1, 1), (1, 1)])
    height, width = mask.shape[1:]
    parts = [padded[:, i : i + height, k : k + width] for i in range(3) for k in range(3)]
    return np.asarray(np.logical_or.reduce(parts))


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def squared_errors(clip: Clip, result: np.ndarray) -> np.ndarray:
    """Sums to take a PSNR from: squared error and values of the whole clip, then those of the subject's pixels (alpha > 0): (2, 2)."""
    error = np.square(clip.video.astype(np.float64) - result)
    subject = error[clip.alpha > 0]
    return np.array([[error.sum(), error.size], [subject.sum(), subject.size]])


def psnr(sums: np.ndarray) -> tuple[float, float]:
    """Peak signal-to-noise ratio in dB, overall and on the subject: 10 log10(255^2 / mean squared error). At most 100."""
    overall, subject = sums[:, 0] / sums[:, 1]
    return float(-10 * np.log10(overall / 255**2 + 1e-10)), float(-10 * np.log10(subject / 255**2 + 1e-10))


def summarise(
    generated: Sequence[Judgement],
    real: Sequence[Judgement],
    reconstructed: Sequence[Judgement],
    errors: Sequence[np.ndarray],
) -> list[Row]:
    """The rows of the table. PSNR is that of the mean squared error over all clips."""
    groups = (generated, real, reconstructed)
    colour, subject, lively, motion, flicker = zip(*map(_figures, groups), strict=True)
    # A decoder may be perfectly still.
    still = None if flicker[2] is None else max(flicker[2], 0.01)
    times = [None if value is None or still is None else value / still for value in flicker]
    overall, on_subject = psnr(np.sum(errors, axis=0)) if errors else (None, None)
    return [
        Row("background colour right, %", colour[0], 95, None, *colour[1:]),
        Row("subject right, %", subject[0], 85, None, *subject[1:]),
        Row("motion, times training clips (median)", motion[0], *LIVELY, *motion[1:]),
        Row("motion within 0.5 to 2, % of clips", lively[0], None, None, *lively[1:]),
        Row("background flicker, times reconstruction", times[0], None, 2, *times[1:]),
        Row("evaluator: subject right on real clips, %", subject[1], 97),
        Row("evaluator: subject right on reconstructed, %", subject[2], 95),
        Row("autoencoder: PSNR, dB", overall, 25),
        Row("autoencoder: PSNR on the subject, dB", on_subject, 18),
    ]


def _figures(clips: Sequence[Judgement]) -> tuple[float | None, ...]:
    """Colour right %, subject right %, motion within bounds %, median motion ratio, mean flicker."""
    if not clips:
        return (None,) * 5
    ratios = np.array([clip.motion_ratio for clip in clips])
    return (
        100 * _mean([clip.right_colour for clip in clips]),
        100 * _mean([clip.right_subject for clip in clips]),
        100 * _mean((ratios >= LIVELY[0]) & (ratios <= LIVELY[1])),
        float(np.median(ratios)),
        _mean([clip.flicker for clip in clips]),
    )


def _counted(items: Sequence[T], what: str) -> Iterator[T]:
    for number, item in enumerate(items):
        if number % 20 == 0:
            log.info("%d of %d %s", number, len(items), what)
        yield item
