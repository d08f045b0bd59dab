"""The metrics with CLIP: how well frames fit the prompt, and how alike neighbouring frames are."""

from pathlib import Path

import numpy as np

from opensora.engine import choose_engine
from opensora.metrics.metric import Metric, VideoPair
from opensora.models import CLIP


def clip_metrics(folder: str | Path, batch_size: int) -> dict[str, Metric]:
    """Both metrics by name, with one network. Raises ValueError for a folder without CLIP."""
    vectors = FrameVectors(CLIP.from_pretrained(folder, engine=choose_engine()), batch_size)
    return {"clip_score": CLIPScore(vectors), "clip_temp": CLIPTemp(vectors)}


class FrameVectors:
    """CLIP's vectors of a video's frames; those of the last video are kept."""

    def __init__(self, model: CLIP, batch_size: int) -> None:
        self.model, self._batch_size = model, batch_size
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (T, H, W, 3) -> vectors of length 1, float32 (T, D)."""
        if self._last is None or self._last[0] is not frames:
            self._last = frames, self._of(frames)
        return self._last[1]

    def _of(self, frames: np.ndarray) -> np.ndarray:
        size = min(self._batch_size, len(frames))
        # The last batch is filled up with copies: another size would be compiled anew.
        filled = np.concatenate([frames, np.repeat(frames[-1:], -len(frames) % size, 0)])
        starts = range(0, len(filled), size)
        vectors = [self.model.encode_images(filled[start : start + size]) for start in starts]
        return np.concatenate(vectors)[: len(frames)]


class CLIPScore(Metric):
    """100 times the cosine between frame and prompt, at least 0, averaged over frames (arXiv:2104.08718)."""

    def __init__(self, vectors: FrameVectors) -> None:
        self._vectors = vectors

    def score(self, pair: VideoPair) -> float:
        assert pair.prompt is not None
        (text,) = self._vectors.model.encode_texts([pair.prompt])
        return float(np.mean(100 * np.maximum(self._vectors(pair.generated) @ text, 0)))


class CLIPTemp(Metric):
    """100 times the cosine between neighbouring frames, averaged (EvalCrafter, arXiv:2310.11440)."""

    def __init__(self, vectors: FrameVectors) -> None:
        self._vectors = vectors

    def score(self, pair: VideoPair) -> float | None:
        """None for a picture."""
        vectors = self._vectors(pair.generated)
        if len(vectors) < 2:
            return None
        return float(np.mean(100 * np.sum(vectors[1:] * vectors[:-1], 1)))
