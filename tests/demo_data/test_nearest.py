"""The nearest rendering: exact for renderings, worse for damaged subjects, blind to place and scale."""

import numpy as np
import pytest

from opensora.demo_data.nearest import PHASE_STEP, NearestRendering, compared_frames, moves_forward
from opensora.demo_data.render import Renderer, demo_set
from tests.demo_data.demo_cache import LOOP, make_cache


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return make_cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def nearest(renderer: Renderer) -> NearestRendering:
    return NearestRendering(renderer)


def test_a_rendering_finds_itself(renderer: Renderer, nearest: NearestRendering) -> None:
    clip = renderer.render("tiger", "blue", frames=1, scale=0.76)  # one of the nine scales, first phase
    match = nearest.frame(clip.video[0], "tiger", "blue")
    assert match.psnr > 60 and match.iou == 1 and match.errors.argmin() == 0
    assert len(match.errors) == LOOP // PHASE_STEP


@pytest.mark.parametrize("size", [64, 128])
def test_place_scale_and_resolution_cost_little(
    renderer: Renderer, nearest: NearestRendering, size: int
) -> None:
    clips = [renderer.render("tiger", "blue", 1, size, np.random.default_rng(seed)) for seed in range(24)]
    compared = [clip for clip in clips if clip.phase % PHASE_STEP == 0]
    assert len(compared) > 3
    for clip in compared:
        match = nearest.frame(clip.video[0], "tiger", "blue")
        assert match.psnr > 16 and match.iou > 0.9


def test_a_missing_part_and_another_subject_cost_much(renderer: Renderer, nearest: NearestRendering) -> None:
    clip = renderer.render("tiger", "blue", frames=1, scale=0.76)
    whole = nearest.frame(clip.video[0], "tiger", "blue")
    broken = clip.video[0].copy()
    broken[:28] = demo_set().colours["blue"]
    without_head = nearest.frame(broken, "tiger", "blue")
    assert without_head.psnr < 15 < whole.psnr and without_head.iou < 0.8 < whole.iou
    assert nearest.frame(clip.video[0], "ghost", "blue").psnr < 15


def test_an_empty_frame_matches_nothing(nearest: NearestRendering) -> None:
    empty = np.full((64, 64, 3), demo_set().colours["blue"], np.uint8)
    match = nearest.frame(empty, "tiger", "blue")
    assert match.psnr == match.iou == 0 and not match.errors.any()


def test_the_direction_is_that_of_the_animation(renderer: Renderer, nearest: NearestRendering) -> None:
    """Forwards, backwards, with several source frames from one frame to the next, and standing still."""
    for stride, frames in ((1, 9), (1, 17), (3, 5)):
        rng = np.random.default_rng(frames)
        video = renderer.render("elephant", "blue", frames, 64, rng, stride).video
        steps = compared_frames(frames) * stride
        assert moves_forward(nearest.clip(video, "elephant", "blue"), steps)
        assert not moves_forward(nearest.clip(video[::-1], "elephant", "blue"), steps)
    still = np.repeat(video[:1], frames, 0)
    assert not moves_forward(nearest.clip(still, "elephant", "blue"), [0, 0, 0])
