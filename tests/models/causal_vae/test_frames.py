"""Videos that are read a few frames at a time: what is stored, where, and with which statistics."""

from pathlib import Path

import numpy as np
import pytest

from opensora.models.causal_vae.frames import FLOAT, Given, Interpolated, Mapped, Statistics, Workspace

SHAPE = (7, 2, 4, 3, 5)
SIZE = int(np.prod(SHAPE)) * FLOAT


def clip(offset: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(SHAPE) + offset).astype(np.float32)


@pytest.mark.parametrize("budget", [None, 0])
def test_what_was_written_is_read_in_memory_and_from_a_file(tmp_path: Path, budget: int | None) -> None:
    frames = clip()
    with Workspace(budget, tmp_path) as workspace:
        video = workspace.store(SHAPE)
        for start in range(0, 7, 3):
            # The last chunk brings two frames more than there are.
            video.write(start, np.resize(frames[start : start + 3], (3, *SHAPE[1:])))
        np.testing.assert_array_equal(video.read(np.arange(7)), frames)
        np.testing.assert_array_equal(video.read(np.array([0, 0, 0, 1, 6, 6])), frames[[0, 0, 0, 1, 6, 6]])
        video.write(2, frames[5:6])
        np.testing.assert_array_equal(video.read(np.array([1, 2, 3])), frames[[1, 5, 3]])
        assert bool(list(tmp_path.iterdir())) == (budget == 0) and workspace.spilled == (budget == 0)
    assert not list(tmp_path.iterdir())


def test_the_budget_is_kept_and_what_was_released_counts_no_more(tmp_path: Path) -> None:
    with Workspace(2 * SIZE, tmp_path) as workspace:
        first, second = workspace.store(SHAPE), workspace.store(SHAPE)
        assert (workspace.used, workspace.peak, workspace.spilled) == (2 * SIZE, 2 * SIZE, 0)
        third = workspace.store(SHAPE)
        assert (workspace.used, workspace.spilled) == (2 * SIZE, 1)
        first.release()
        assert workspace.used == SIZE
        workspace.store(SHAPE)
        assert (workspace.used, workspace.peak, workspace.spilled) == (2 * SIZE, 2 * SIZE, 1)
        third.release()
        assert [path.name for folder in tmp_path.iterdir() for path in folder.iterdir()] == []
        second.release()


def test_scratch_files_go_after_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half way"), Workspace(0, tmp_path) as workspace:
        workspace.store(SHAPE).write(0, clip())
        raise RuntimeError("half way")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("offset", [0.0, 3e3])
def test_sums_of_chunks_are_those_of_the_whole(offset: float) -> None:
    frames = clip(offset)
    statistics = Statistics(SHAPE)
    for start in range(0, 7, 2):
        statistics.add(start, frames[start : start + 2])
    mean, variance = statistics.groups(2)
    split = frames.astype(np.float64).reshape(7, 2, 2, 2, 15)
    np.testing.assert_allclose(mean, split.mean((0, 3, 4)), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(variance, split.var((0, 3, 4)), rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_a_computed_video_is_computed_once_when_it_is_read_in_order(chunk: int) -> None:
    frames, calls = clip(), []

    def double(part: np.ndarray) -> np.ndarray:
        calls.append(len(part))
        return 2 * part

    video = Mapped(Given(frames), SHAPE, chunk, double, keep=2)
    for start in range(7):
        wanted = np.clip(np.arange(start - 2, start + 1), 0, 6)
        np.testing.assert_array_equal(video.read(wanted), 2 * frames[wanted])
    assert calls == [chunk] * -(-7 // chunk)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_strides_and_frames_before_a_chunk(chunk: int) -> None:
    frames = clip()

    def last_minus_first(window: np.ndarray) -> np.ndarray:
        assert len(window) == 2 * chunk + 1
        return window[2::2] - window[:-2:2]

    video = Mapped(Given(frames), (4, *SHAPE[1:]), chunk, last_minus_first, before=2, stride=2)
    padded = np.concatenate((frames[:1], frames[:1], frames))
    np.testing.assert_array_equal(video.read(np.arange(4)), padded[2::2] - padded[:-2:2])


def test_interpolation_keeps_the_first_frame_and_halves_the_others() -> None:
    frames = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1, 1) ** 2
    video = Interpolated(Given(frames))
    assert video.shape == (7, 1, 1, 1, 1)
    assert video.read(np.arange(7)).ravel().tolist() == [0, 1, 1.75, 3.25, 5.25, 7.75, 9]
    assert video.read(np.array([0, 0, 3])).ravel().tolist() == [0, 0, 3.25]
    assert Interpolated(Given(frames[:1])).read(np.array([0, 0])).ravel().tolist() == [0, 0]
