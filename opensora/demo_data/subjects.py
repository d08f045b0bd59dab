"""Score a class-conditional model of the demo's subjects: how many of its clips show their class."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from opensora.console import track
from opensora.demo_data.classifier import SubjectClassifier, estimate_background
from opensora.demo_data.render import Renderer


class SubjectScore(NamedTuple):
    """The subject that a clip of a class shows; None if it shows none."""

    subject: str
    seed: int
    found: str | None

    @property
    def right(self) -> bool:
        return self.found == self.subject


def score_subjects(
    renderer: Renderer,
    subjects: Sequence[str],
    generate: Callable[[str, int], np.ndarray],
    clips: int = 1,
    seed: int = 0,
) -> tuple[list[SubjectScore], list[np.ndarray]]:
    """Generate `clips` clips of each subject and find the subject in them: scores, and the clips.

    generate: from subject and seed to frames uint8 (T, H, W, 3); seeds count up from `seed`.
    Raises ValueError for a subject that the data set does not have.
    """
    for subject in subjects:
        if subject not in renderer.files:
            raise ValueError(
                f"the class {subject!r} is no subject of the demo data set: train the model on latents made "
                "with --demo_captions subject"
            )
    classifier = SubjectClassifier(renderer)
    wanted = [subject for subject in subjects for _ in range(clips)]
    scores, videos = [], []
    for number, subject in enumerate(track(wanted, "clips")):
        video = generate(subject, seed + number)
        found = classifier.classify(video, estimate_background(video))
        scores.append(SubjectScore(subject, seed + number, found))
        videos.append(video)
    return scores, videos


def subject_table(scores: Sequence[SubjectScore]) -> str:
    """The share of right clips, and a line for each wrong one."""
    right = sum(score.right for score in scores)
    lines = [f"subject right, %: {100 * right / len(scores):.1f} ({right} of {len(scores)})"]
    lines += [
        f"  {score.subject} (seed {score.seed}): shows {score.found or 'no subject'}"
        for score in scores
        if not score.right
    ]
    return "\n".join(lines)
