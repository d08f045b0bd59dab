"""The distances of clips by the loss that they are a part of, against double precision and their
definitions."""

from collections.abc import Callable

import mindspore as ms
import numpy as np
import pytest

from opensora.train.vae.loss import GeneratorTerms
from opensora.train.vae.task import VAELoss


def terms(video: np.ndarray, reconstruction: np.ndarray, **weights: float) -> GeneratorTerms:
    moments = np.zeros((len(video), 8, 1, 1, 1))
    given = (ms.Tensor(value.astype(np.float32)) for value in (video, reconstruction, moments))
    return VAELoss(**weights).generator(*given)


def assert_value_and_slope(
    video: np.ndarray, reconstruction: np.ndarray, expected: Callable[[np.ndarray], float], **weights: float
) -> None:
    """The slope along one random direction."""
    found = terms(video, reconstruction, **weights)
    assert found.loss == pytest.approx(expected(reconstruction), rel=1e-5)
    direction = np.random.default_rng(1).standard_normal(video.shape)
    slope = (expected(reconstruction + 1e-6 * direction) - expected(reconstruction - 1e-6 * direction)) / 2e-6
    assert float((found.by_reconstruction.asnumpy() * direction).sum()) == pytest.approx(slope, rel=1e-4)


def test_motion_weight_adds_the_distance_of_the_changes() -> None:
    rng = np.random.default_rng(0)
    video, reconstruction = rng.uniform(-1, 1, (2, 2, 3, 5, 4, 6))

    def distance(error: np.ndarray) -> float:
        return float((np.abs(error) + 4.0 * error**2).sum())

    def expected(reconstruction: np.ndarray) -> float:
        error = video - reconstruction
        return (distance(error) + 3.0 * distance(np.diff(error, axis=2))) / 10  # 2 videos of 5 frames

    assert_value_and_slope(video, reconstruction, expected, squared_weight=4.0, motion_weight=3.0)
    constant = video + 0.1 * rng.standard_normal((2, 3, 1, 4, 6))
    assert terms(video, constant, motion_weight=3.0).loss == pytest.approx(
        terms(video, constant).loss, rel=1e-5
    )


def test_motion_strength_weight_compares_how_much_patches_change() -> None:
    """The last two columns fill no patch."""
    video, reconstruction = np.random.default_rng(0).uniform(-1, 1, (2, 2, 3, 5, 8, 6))

    def strengths(clip: np.ndarray) -> np.ndarray:
        squares = np.square(np.diff(clip, axis=2)[..., :4])
        return np.stack([np.sqrt(squares[:, :, :, row : row + 4].mean((3, 4)) + 0.02**2) for row in (0, 4)])

    def expected(reconstruction: np.ndarray) -> float:
        errors = np.abs(strengths(video) - strengths(reconstruction))
        return (
            float(np.abs(video - reconstruction).sum() + 3.0 * 16 * errors.sum()) / 10
        )  # 2 videos of 5 frames

    assert_value_and_slope(video, reconstruction, expected, motion_strength_weight=3.0)
    backwards = -video
    assert terms(video, backwards, motion_strength_weight=3.0).loss == pytest.approx(
        terms(video, backwards).loss, rel=1e-5
    )


@pytest.mark.parametrize("name", ["motion_weight", "motion_strength_weight"])
def test_weights_of_motion_say_nothing_about_single_frames(name: str) -> None:
    frame = np.random.default_rng(0).uniform(-1, 1, (2, 3, 1, 4, 8))
    assert terms(frame, frame * 0.5, **{name: 3.0}).loss == terms(frame, frame * 0.5).loss
