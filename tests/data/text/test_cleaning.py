import time

import pytest

from opensora.data.text import clean_caption
from tests.reference import read_json

CASES = read_json("extras/text_cleaning")


@pytest.mark.parametrize("case", CASES, ids=[case["text"][:20] for case in CASES])
def test_training_and_sampling_match_the_reference(case):
    assert clean_caption(case["text"]) == case["text_preprocessing"]
    assert clean_caption(case["text"], sampling=True) == case["pipeline_clean_true"]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("see www.example.org/a and mail@site.com", "see and mail"),
        ("a%20red+fox", "a red fox"),
        ("<i>two</i> birds<br/>fly", "two birdsfly"),
        ("at 10.0.0.1 at 7:30 ", "at at 7:30"),
        ("id 1234567 and #99999 and #1234", "id and and 1234"),
        ("a_b_c_d_e", "a b c d e"),
        ("a-b-c-d", "a-b-c-d"),
        ("‐–—― dashes", "dashes"),  # noqa: RUF001
        ("the «guillemets» and ‘quotes’ here", "the \"guillemets\" and 'quotes' here"),  # noqa: RUF001
        ("wait... what....", "wait what"),
        ("***sale*** [now] {here} |bar| \\slash/", "sale now here bar slash"),
        ("worldwide free shipping today", "today"),
        ("free download free cat", "cat"),
        ("click on this cat", "cat"),
        ("png images of cats", "of cats"),
        ("abc123 a1b2c3 12ab34", ""),
        ("ﬁne", "fine"),
        ("&amp;amp;lt;b&amp;amp;gt;", "lt;b;gt;"),
        ("photo.jpg", ""),
        (".hidden", ""),
    ],
)
def test_rules(text, cleaned):
    assert clean_caption(text) == cleaned


def test_sampling_keeps_spaces_that_hide_the_ends_from_the_last_rules():
    assert clean_caption("(,,,a cat)") == ", a cat"
    assert clean_caption("(,,,a cat)", sampling=True) == ",, a cat"


def test_long_and_broken_strings_are_cleaned_without_an_error_or_warning():
    assert clean_caption("x" * 10_000) == "x" * 10_000
    assert clean_caption("a cat\ud800 \x00<") == "a cat\ufffd <"
    assert clean_caption("https://example.com") == ""


@pytest.mark.parametrize(
    "text", ["a cat <![CDATA[", "<![", "a <!cat", "<!--", "&#xD800; &#1114112;", "\ud83d", "a\udcff"]
)
def test_every_caption_has_a_result(text):
    for sampling in (False, True):
        clean_caption(text, sampling).encode()


def test_a_broken_declaration_is_text():
    assert clean_caption("a cat <![ and a dog") == "a cat <! and a dog"
    assert clean_caption("\ud83d\ude00 a cat") == "\U0001f600 a cat"


@pytest.mark.parametrize(
    "text",
    [
        "a.",
        "a ",
        "aa",
        "1",
        " ",
        "x .",
        "1.1",
        "1.1x",
        "a1",
        "a.com/-",
        "<a ",
        "<",
        "&amp;",
        "@a",
        "http",
        "'",
        "é.",
    ],
)
def test_time_grows_with_the_length_only(text):
    def seconds(count):
        times = []
        for _ in range(2):
            start = time.process_time()
            clean_caption(text * count)
            times.append(time.process_time() - start)
        return min(times)

    # Eight times the text: 8 for linear time, 64 for quadratic.
    assert seconds(16000) < 30 * seconds(2000) + 0.05


def test_long_texts_lose_their_markup():
    assert clean_caption("a <b>red</b> cat &amp; " * 500) == " ".join(["a red cat"] * 500)
