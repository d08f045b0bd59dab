from collections import Counter

import numpy as np
import pytest

from opensora.demo_data.captions import caption
from opensora.demo_data.render import SCALES, DemoClips, Renderer, composite, demo_set, split_pairs


def test_committed_set_has_48_subjects_8_colours_and_a_fifth_held_out():
    content = demo_set()
    assert (len(content.subjects), len(content.colours)) == (48, 8)
    assert len(content.pairs("held_out")) == 77 and len(content.pairs("train")) == 307
    assert not set(content.pairs("train")) & set(content.pairs("held_out"))
    assert ("elephant", "sky blue") in content.pairs("train")


def test_committed_list_follows_the_rule_and_is_balanced():
    content = demo_set()
    assert list(content.held_out) == split_pairs(list(content.subjects), list(content.colours), seed=0)
    subjects, colours = (Counter(pair[i] for pair in content.held_out) for i in (0, 1))
    assert set(subjects) == set(content.subjects) and set(subjects.values()) == {1, 2}
    assert set(colours) == set(content.colours) and set(colours.values()) == {9, 10}


def test_colours_are_far_apart():
    colours = np.array(list(demo_set().colours.values()), float)
    distances = np.sqrt(((colours[:, None] - colours) ** 2).sum(-1))
    assert distances[~np.eye(8, dtype=bool)].min() > 100


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match="'test' is unknown"):
        demo_set().pairs("test")


def test_caption_uses_the_right_article():
    assert caption("elephant", "sky blue") == "an elephant on a sky blue background"
    assert caption("cat", "orange") == "a cat on an orange background"


def test_clip_shows_the_subject_inside_its_box_on_the_flat_colour(renderer):
    for seed in range(20):
        clip = renderer.render("elephant", "sky blue", frames=5, size=32, rng=np.random.default_rng(seed))
        top, left, height, width = clip.box
        assert clip.video.shape == (5, 32, 32, 3) and clip.alpha.shape == (5, 32, 32)
        assert 0 <= top <= 32 - height and 0 <= left <= 32 - width
        assert abs(max(height, width) - clip.scale * 32) <= 0.5 and SCALES[0] <= clip.scale <= SCALES[1]
        inside = np.zeros((32, 32), bool)
        inside[top : top + height, left : left + width] = True
        assert not clip.alpha[:, ~inside].any()
        assert (clip.video[clip.alpha == 0] == (135, 206, 235)).all()
        assert np.abs(clip.video[clip.alpha == 255].astype(int) - (200, 10, 20)).max() <= 1


def test_frames_follow_the_stride_and_wrap(renderer):
    still = renderer.render("tiger", "white", frames=10, size=32, stride=9)
    assert (still.video == still.video[0]).all()
    loop = renderer.render("tiger", "white", frames=10, size=32, stride=2)
    assert (loop.video[9] == loop.video[0]).all() and (loop.video[1] != loop.video[0]).any()


def test_clip_without_generator_is_centred(renderer):
    clip = renderer.render("tiger", "red", frames=1, size=40)
    assert clip.box == (8, 4, 24, 32) and clip.scale == 0.8 and clip.phase == 0


def test_composite_rounds_to_nearest():
    pixels = np.array([[0, 0, 0, 0], [10, 20, 30, 255], [50, 0, 0, 128]], np.uint8)
    assert composite(pixels, (255, 100, 1)).tolist() == [[255, 100, 1], [10, 20, 30], [177, 50, 0]]


def test_clips_depend_on_seed_and_index_only(renderer):
    clips, again = (
        DemoClips(renderer, seed=3, frames=2, size=16),
        DemoClips(renderer, seed=3, frames=2, size=16),
    )
    backwards = [again[i] for i in (4, 3, 2, 1, 0)][::-1]
    for clip, other in zip((clips[i] for i in range(5)), backwards, strict=True):
        assert clip.pair == other.pair and (clip.video == other.video).all()
    different = DemoClips(renderer, seed=4, frames=2, size=16)
    assert any(clips[i].box != different[i].box for i in range(5))


def test_clips_of_a_split_stay_in_it(renderer):
    held_out = set(demo_set().held_out)
    assert all(
        DemoClips(renderer, split="held_out", frames=1, size=16)[i].pair in held_out for i in range(20)
    )
    assert not any(DemoClips(renderer, frames=1, size=16)[i].pair in held_out for i in range(50))


def test_folder_without_cache_and_unknown_subject_are_named(renderer, tmp_path):
    with pytest.raises(ValueError, match="holds no demo data set"):
        Renderer(tmp_path)
    with pytest.raises(ValueError, match="'unicorn' is not in"):
        renderer.render("unicorn", "red")
