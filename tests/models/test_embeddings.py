import numpy as np
import pytest

from opensora.models.embeddings import (
    rope_1d,
    rope_2d,
    sincos_1d,
    sincos_2d,
    sincos_frames,
    timestep_embedding,
)
from tests import reference

POSITIONS = reference.load("extras/posembed")


@pytest.mark.parametrize(
    ("case", "dim", "grid", "base_size", "scale"),
    [("sq", 64, (4, 4), 4, 1), ("rect", 64, (3, 5), 4, 1), ("scaled", 48, (6, 4), 32, 2)],
)
def test_grid_positions_are_the_references(
    case: str, dim: int, grid: tuple[int, int], base_size: int, scale: int
) -> None:
    table = sincos_2d(dim, grid, base_size, scale)
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, POSITIONS[f"2d.{case}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "dim", "length", "scale"), [("s1", 64, 5, 1), ("s3", 72, 56, 3), ("s8", 64, 129, 8)]
)
def test_frame_positions_are_the_references(case: str, dim: int, length: int, scale: int) -> None:
    np.testing.assert_allclose(sincos_1d(dim, length, scale), POSITIONS[f"1d.{case}"], rtol=0, atol=1e-6)


def test_first_half_of_the_channels_is_for_the_column() -> None:
    table = sincos_2d(8, (2, 3), 3).reshape(2, 3, 8)
    np.testing.assert_array_equal(table[0, :, :4], table[1, :, :4])
    np.testing.assert_array_equal(table[:, 0, 4:], table[:, 1, 4:])


def test_frames_of_the_models_own_length_keep_its_positions_exactly() -> None:
    np.testing.assert_array_equal(sincos_frames(64, 17, 17, 2), sincos_1d(64, 17, 2))


@pytest.mark.parametrize("frames", [2, 9, 33])
def test_other_lengths_span_the_same_time(frames: int) -> None:
    table, own = sincos_frames(64, frames, 17), sincos_1d(64, 17)
    np.testing.assert_allclose(table[[0, -1]], own[[0, -1]], rtol=0, atol=1e-6)
    assert table.shape == (frames, 64)


def test_twice_the_frames_fall_on_the_models_own_and_between_them() -> None:
    np.testing.assert_allclose(sincos_frames(64, 33, 17)[::2], sincos_1d(64, 17), rtol=0, atol=1e-6)


def test_a_single_frame_lies_at_the_start() -> None:
    np.testing.assert_array_equal(sincos_frames(64, 1, 17), sincos_1d(64, 1))


def test_timesteps_are_cosines_then_sines_and_may_be_fractional() -> None:
    table = timestep_embedding(np.array([0, 2.5]), 4)
    np.testing.assert_array_equal(table[0], [1, 1, 0, 0])
    np.testing.assert_allclose(table[1], [np.cos(2.5), np.cos(0.025), np.sin(2.5), np.sin(0.025)], rtol=1e-6)


def test_rotation_keeps_lengths_and_rounds_scaled_positions_down() -> None:
    cos, sin = rope_1d(16, 6, 2)
    np.testing.assert_allclose(cos**2 + sin**2, np.ones((6, 16)), rtol=1e-6)
    np.testing.assert_array_equal(cos[0::2], cos[1::2])
    np.testing.assert_array_equal(cos[0], np.ones(16))


def test_rotation_of_a_grid_is_by_row_then_by_column() -> None:
    cos, _ = rope_2d(16, (2, 3))
    grid = cos.reshape(2, 3, 16)
    np.testing.assert_array_equal(grid[:, 0, :8], grid[:, 2, :8])
    np.testing.assert_array_equal(grid[0, :, 8:], grid[1, :, 8:])
