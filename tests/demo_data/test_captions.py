"""Captions in other words name the same subject, its size and the colour."""

from opensora.demo_data.captions import SYNONYMS, captions
from opensora.demo_data.render import SCALES, demo_set


def test_the_sentence_and_the_subject() -> None:
    assert captions("sentence", ("elephant", "sky blue"), 0.76) == ["an elephant on a sky blue background"]
    assert captions("subject", ("elephant", "sky blue"), 0.76) == ["elephant"]


def test_other_words() -> None:
    small = captions("varied", ("jack-o-lantern", "red"), 0.76)
    assert small == [
        "a jack-o-lantern on a red background",
        "a pumpkin on a red background",
        "a small jack-o-lantern on a red background",
        "a small pumpkin on a red background",
        "a little jack-o-lantern on a red background",
        "a little pumpkin on a red background",
    ]
    assert captions("varied", ("ant", "pink"), 0.98)[1:] == [
        "a big ant on a pink background",
        "a large ant on a pink background",
    ]
    assert captions("varied", ("ant", "pink"), 0.87) == ["an ant on a pink background"]


def test_a_third_of_the_clips_is_small_and_a_third_big() -> None:
    scales = [SCALES[0] + (SCALES[1] - SCALES[0]) * (n + 0.5) / 300 for n in range(300)]
    first = [captions("varied", ("ant", "pink"), scale)[-1].split()[1] for scale in scales]
    assert all(90 <= first.count(word) <= 110 for word in ("little", "large", "ant"))


def test_a_name_stands_for_one_subject() -> None:
    subjects = demo_set().subjects
    names = [*subjects, *(name for names in SYNONYMS.values() for name in names)]
    assert set(SYNONYMS) <= set(subjects) and len(set(names)) == len(names)
