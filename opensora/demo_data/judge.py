"""Judge one clip of the demo data set: colour, subject, shape, motion and flicker."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from opensora.demo_data.classifier import SubjectClassifier, estimate_background, nearest_colour, subject_mask
from opensora.demo_data.nearest import NearestRendering, compared_frames, moves_forward
from opensora.demo_data.render import Pair, Renderer, demo_set

TRAINING_CLIPS = 12  # per subject, to measure its mean motion


@dataclass(frozen=True)
class Judgement:
    """The findings about one clip that should show `subject` on `colour`.

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
    nearest_psnr: float  # median over three frames, see NearestRendering
    nearest_iou: float
    forward: bool  # True if the animation plays forwards, see moves_forward

    @property
    def right_subject(self) -> bool:
        return self.found_subject == self.subject

    @property
    def right_colour(self) -> bool:
        return self.found_colour == self.colour


class Judge:
    """Judges clips.

    Motion is relative to training clips of the same subject, which are rendered when first needed.
    """

    def __init__(self, renderer: Renderer, shape: tuple[int, int], seed: int, stride: int) -> None:
        self._renderer, self._shape, self._seed, self._stride = renderer, shape, seed, stride
        self._classifier = SubjectClassifier(renderer)
        self._nearest = NearestRendering(renderer)
        self._motion: dict[str, float] = {}

    def __call__(self, video: np.ndarray, pair: Pair, seed: int) -> Judgement:
        background = estimate_background(video)
        motion, flicker = changes(video, background)
        found = self._classifier.classify(video, background)
        ratio = motion / self.training_motion(pair[0])
        red, green, blue = map(float, background)
        matches = self._nearest.clip(video, *pair)
        return Judgement(
            *pair,
            seed,
            found_subject=found,
            found_colour=nearest_colour(background),
            background=(red, green, blue),
            motion=motion,
            motion_ratio=ratio,
            flicker=flicker,
            nearest_psnr=float(np.median([match.psnr for match in matches])),
            nearest_iou=float(np.median([match.iou for match in matches])),
            forward=moves_forward(matches, compared_frames(len(video)) * self._stride),
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
    return mean(delta[subject]), mean(delta[background_mask])


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask (T, H, W) grown by one pixel, corners included."""
    padded = np.pad(mask, [(0, 0), (1, 1), (1, 1)])
    height, width = mask.shape[1:]
    parts = [padded[:, i : i + height, k : k + width] for i in range(3) for k in range(3)]
    return np.asarray(np.logical_or.reduce(parts))


def mean(values: Any) -> float:
    """The mean; 0 for no values."""
    return float(np.mean(values)) if len(values) else 0.0
