"""Figures of the demo model's evaluation on clips whose motion, flicker and errors are known."""

import json
import re

import numpy as np
import pytest

from opensora.demo_data.evaluator import (
    Criterion,
    diversity,
    evaluate,
    psnr_of_sums,
    squared_errors,
    summarise,
)
from opensora.demo_data.judge import Judge, Judgement, changes
from opensora.demo_data.render import Renderer, demo_set
from opensora.demo_data.report import breakdown, sheet, table
from tests.demo_data.demo_cache import LOOKS, make_cache

GREY, WHITE = np.array([100.0, 100, 100]), 255
PAIRS = [pair for pair in demo_set().pairs("held_out") if pair[0] in LOOKS]


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return make_cache(tmp_path_factory.mktemp("cache"))


def square(levels: list[int], background: list[int]) -> np.ndarray:
    """A square of 16 x 16 in the middle of 40 x 40, with one frame for each pair of levels."""
    video = np.empty((len(levels), 40, 40, 3), np.uint8)
    for frame, level, around in zip(video, levels, background, strict=True):
        frame[:] = around
        frame[12:28, 12:28] = level
    return video


def test_motion_is_the_mean_change_on_the_subject() -> None:
    motion, flicker = changes(square([200, 230, 200], [100, 100, 100]), GREY)
    # The mask sees half a pixel of blur: with its rim of one pixel it has 16 * 16 to 18 * 18 pixels.
    assert 30 * (16 / 18) ** 2 <= motion <= 30 and flicker == 0


def test_flicker_is_the_mean_change_of_the_background() -> None:
    motion, flicker = changes(square([200, 200, 200], [100, 103, 100]), GREY)
    assert flicker == 3 and motion < 3


def test_still_clip_does_not_move_and_flat_one_has_no_subject() -> None:
    assert changes(square([200, 200], [100, 100]), GREY) == (0, 0)
    assert changes(square([100, 101], [100, 101]), GREY) == (0, 1)


def test_psnr_follows_its_formula(renderer: Renderer) -> None:
    clip = renderer.render("horse", "blue", frames=3, size=32)
    shown = clip.alpha > 0
    result = clip.video.astype(int)
    result[shown] += np.where(result[shown] < 128, 10, -10)
    overall, subject = psnr_of_sums(squared_errors(clip, result.astype(np.uint8)))
    assert subject == pytest.approx(20 * np.log10(255 / 10), abs=1e-3)
    assert overall == pytest.approx(20 * np.log10(255 / 10) - 10 * np.log10(shown.mean()), abs=1e-3)


def test_psnr_of_the_same_pixels_is_100(renderer: Renderer) -> None:
    clip = renderer.render("horse", "blue", frames=1, size=32)
    assert psnr_of_sums(squared_errors(clip, clip.video)) == (pytest.approx(100), pytest.approx(100))


def test_motion_ratio_is_about_one_for_real_clips_and_zero_for_still_ones(renderer: Renderer) -> None:
    judge = Judge(renderer, (5, 48), seed=0, stride=1)
    clip = renderer.render("tiger", "blue", frames=5, size=48, rng=np.random.default_rng(9), stride=1)
    judgement = judge(clip.video, clip.pair, 9)
    assert judgement.right_subject and judgement.right_colour and judgement.flicker == 0
    assert 0.7 < judgement.motion_ratio < 1.4
    assert judge(np.repeat(clip.video[:1], 5, axis=0), clip.pair, 9).motion_ratio == 0


def judgement(right: bool, ratio: float, flicker: float) -> Judgement:
    return Judgement(
        "tiger",
        "blue",
        0,
        "tiger" if right else "horse",
        "blue",
        (45.0, 75.0, 215.0),
        ratio,
        ratio,
        flicker,
        21.0,
        0.9,
        right,
    )


def test_summary_counts_and_compares() -> None:
    generated = [
        judgement(True, 0.4, 3.0),
        judgement(True, 1.0, 1.0),
        judgement(False, 1.5, 2.0),
        judgement(True, 3.0, 2.0),
    ]
    rows = {row.name: row for row in summarise(generated, [], [judgement(True, 1.0, 0.5)], [])}
    assert rows["background colour right, %"].figure == 100 and rows["background colour right, %"].met
    assert rows["subject right, %"].figure == 75 and rows["subject right, %"].met is False
    assert rows["motion, times training clips (median)"].figure == 1.25
    assert (
        rows["nearest rendering: PSNR, dB (median)"].figure == 21
        and rows["nearest rendering: PSNR, dB (median)"].met
    )
    assert rows["nearest rendering: IoU of the masks (median)"].reconstructed == 0.9
    assert rows["motion in the animation's direction, % of clips"].figure == 75
    assert (
        rows["background flicker, times reconstruction"].figure == 4
        and rows["background flicker, times reconstruction"].met is False
    )
    assert rows["autoencoder: PSNR, dB"].met is None


@pytest.mark.parametrize(
    ("figure", "met"), [(0.5, True), (2, True), (0.49, False), (2.01, False), (None, None)]
)
def test_row_keeps_both_bounds(figure: float | None, met: bool | None) -> None:
    assert Criterion("motion", figure, 0.5, 2).met is met


def test_perfect_model_meets_every_target_and_the_report_says_so(renderer: Renderer) -> None:
    captions = []

    def generate(prompt: str, seed: int) -> np.ndarray:
        captions.append(prompt)
        return renderer.render(*PAIRS[seed - 5], frames=5, size=48, rng=np.random.default_rng(seed)).video

    evaluation = evaluate(renderer, generate, lambda video: video, (5, 48), real_clips=6, seed=5)
    assert len(evaluation.clips) == len(PAIRS) == len(captions) and captions[0].startswith(
        "an elephant on a "
    )
    unmeasured = [row.name for row in evaluation.rows if row.figure is None]
    assert not evaluation.missed and unmeasured == ["diversity over seeds, levels"]
    shown = table(evaluation)
    assert (
        len(shown.splitlines()) == 13 and "missed" not in shown and re.search(r">= 99 +100.00 +100.00", shown)
    )
    content = json.loads(json.dumps(evaluation.as_dict()))
    assert len(content["generated"]) == len(PAIRS) and content["rows"][0]["met"]
    assert not (sheet(evaluation) == (230, 0, 0)).all(-1).any()


def test_model_that_always_shows_the_same_is_found_out(renderer: Renderer) -> None:
    still = renderer.render("tiger", "blue", frames=1, size=48).video
    evaluation = evaluate(
        renderer, lambda prompt, seed: np.repeat(still, 5, axis=0), lambda video: video, (5, 48), real_clips=2
    )
    names = [row.name.split(",")[0] for row in evaluation.missed]
    assert names[:2] == ["background colour right", "subject right"] and "motion" in names
    assert "nearest rendering: PSNR" in names
    lines = list(breakdown(evaluation.generated, "subject"))
    assert len(lines) == len(LOOKS) and any("x tiger" in line for line in lines)
    assert (sheet(evaluation) == (230, 0, 0)).all(-1).any()


def test_without_a_generator_only_the_ceilings_are_measured(renderer: Renderer) -> None:
    evaluation = evaluate(renderer, None, lambda video: video, (3, 48), real_clips=2)
    measured = [row.name.split(":")[0] for row in evaluation.rows if row.figure is not None]
    assert measured == ["evaluator", "evaluator", "autoencoder", "autoencoder"] and evaluation.generated == []


def test_diversity_is_the_difference_of_clips_of_one_pair() -> None:
    dark, bright = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 30, np.uint8)
    tiger, ghost = ("tiger", "blue"), ("ghost", "blue")
    assert diversity([(tiger, dark), (tiger, bright), (ghost, dark)]) == 30
    assert diversity([(tiger, dark), (ghost, bright)]) is None
