"""The evaluator recognises real renderings of every subject on every colour, also blurred and noisy."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from opensora.demo_data.classifier import SubjectClassifier, estimate_background, nearest_colour, subject_mask
from opensora.demo_data.render import Renderer, demo_set
from tests.demo_data.demo_cache import LOOKS, make_cache

COLOURS = demo_set().colours


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return make_cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def classifier(renderer: Renderer) -> SubjectClassifier:
    return SubjectClassifier(renderer)


def unchanged(video: np.ndarray) -> np.ndarray:
    return video


def blurred(video: np.ndarray) -> np.ndarray:
    return np.stack(
        [np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(1.0))) for frame in video]
    )


def noisy(video: np.ndarray) -> np.ndarray:
    return np.clip(video + np.random.default_rng(0).normal(0, 14, video.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("change", [unchanged, blurred, noisy])
@pytest.mark.parametrize("colour", COLOURS)
def test_subject_and_colour_are_recognised(
    colour: str, change: Callable[[np.ndarray], np.ndarray], renderer: Renderer, classifier: SubjectClassifier
) -> None:
    for number, subject in enumerate(LOOKS):
        clip = renderer.render(subject, colour, frames=5, size=48, rng=np.random.default_rng(number))
        video = change(clip.video)
        background = estimate_background(video)
        assert np.abs(background - COLOURS[colour]).max() < 8
        assert nearest_colour(background) == colour
        assert classifier.classify(video, background) == subject


def test_size_of_the_frame_does_not_matter(renderer: Renderer, classifier: SubjectClassifier) -> None:
    for size in (32, 128):
        clip = renderer.render("tiger", "blue", frames=2, size=size, rng=np.random.default_rng(1))
        assert classifier.classify(clip.video) == "tiger"


def test_background_is_exact_although_the_subject_touches_the_border(renderer: Renderer) -> None:
    clip = renderer.render("elephant", "green", frames=3, size=32, scale=1.0)
    assert estimate_background(clip.video).tolist() == list(COLOURS["green"])


def test_background_that_is_a_little_off_is_kept_and_named() -> None:
    video = np.full((2, 16, 16, 3), (200, 40, 50), np.uint8)
    assert estimate_background(video).tolist() == [200, 40, 50]
    assert nearest_colour(estimate_background(video)) == "red"


def test_mask_is_where_the_subject_is(renderer: Renderer) -> None:
    clip = renderer.render("horse", "white", frames=3, size=64)
    shown = subject_mask(clip.video, estimate_background(clip.video))
    inside = clip.alpha > 0
    assert shown[clip.alpha == 255].all()
    assert (shown != inside).mean() < 0.05


def test_flat_clip_shows_nothing(classifier: SubjectClassifier) -> None:
    flat = np.full((3, 32, 32, 3), COLOURS["pink"], np.uint8)
    assert classifier.classify(flat) is None


def test_distances_put_the_shown_subject_first(renderer: Renderer, classifier: SubjectClassifier) -> None:
    clip = renderer.render("ghost", "purple", frames=4, size=64)
    distances = classifier.distances(clip.video, estimate_background(clip.video))
    assert distances is not None and distances.shape == (len(LOOKS),)
    ranking = [classifier.subjects[i] for i in distances.argsort()]
    assert ranking[0] == "ghost" and 3 * distances.min() < sorted(distances)[1]
