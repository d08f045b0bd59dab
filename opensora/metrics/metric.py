"""The interface of a metric."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class VideoPair(NamedTuple):
    """A real video and the generated one, both uint8 (T, H, W, 3) of one shape, and the latter's prompt."""

    real: np.ndarray
    generated: np.ndarray
    prompt: str | None = None


class Metric(ABC):
    """Scores pairs of videos one by one, and all of them together."""

    @abstractmethod
    def score(self, pair: VideoPair) -> float | None:
        """The score of one pair; None if only a set of pairs has a score.

        Raises ValueError if it cannot be scored.
        """

    def total(self, scores: Sequence[float]) -> float | None:
        """The score of all pairs, by default the mean of theirs; None if there are too few.

        scores: those of the pairs.
        """
        return float(np.mean(scores)) if scores else None


class FrameMetric(Metric):
    """The mean over the frames of `function(generated frame, real frame)`."""

    def __init__(self, function: Callable[[np.ndarray, np.ndarray], float]) -> None:
        self._function = function

    def score(self, pair: VideoPair) -> float:
        frames = zip(pair.generated, pair.real, strict=True)
        return float(np.mean([self._function(generated, real) for generated, real in frames]))


class MeanFrameMetric(Metric):
    """The score of a still picture: of the real video's mean frame against each of its frames."""

    def __init__(self, function: Callable[[np.ndarray, np.ndarray], float]) -> None:
        self._function = function

    def score(self, pair: VideoPair) -> float:
        still = pair.real.mean(0)
        return float(np.mean([self._function(still, frame) for frame in pair.real]))
