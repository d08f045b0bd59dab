from pathlib import Path

import numpy as np
import pytest

import opensora
from opensora.data.text.tokenizer import Tokenizer
from opensora.weights import WeightsError

FOLDER = Path(opensora.__file__).parent / "demo" / "text_encoder"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(FOLDER)


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    input_ids, attention_mask = tokenizer([text], 64)
    return input_ids[0, : attention_mask[0].sum()].tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The first two are examples of T5's own documentation.
        (
            "translate English to German: The house is wonderful.",
            [13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5, 1],
        ),
        ("Hello, my dog is cute", [8774, 6, 82, 1782, 19, 5295, 1]),
        ("an elephant on a sky blue background", [46, 17926, 30, 3, 9, 5796, 1692, 2458, 1]),
        ("", [1]),
    ],
)
def test_known_ids(tokenizer: Tokenizer, text: str, expected: list[int]) -> None:
    assert ids_of(tokenizer, text) == expected


def test_vocabulary_is_that_of_t5(tokenizer: Tokenizer) -> None:
    assert tokenizer.size == 32000


def test_padding_and_mask(tokenizer: Tokenizer) -> None:
    input_ids, attention_mask = tokenizer(["Hello, my dog is cute", ""], 10)
    assert input_ids.dtype == attention_mask.dtype == np.int32
    assert input_ids.tolist() == [[8774, 6, 82, 1782, 19, 5295, 1, 0, 0, 0], [1, *[0] * 9]]
    assert attention_mask.tolist() == [[1] * 7 + [0] * 3, [1, *[0] * 9]]


@pytest.mark.parametrize("max_length", [1, 2, 6, 7])
def test_truncation_keeps_the_end_token(tokenizer: Tokenizer, max_length: int) -> None:
    input_ids, attention_mask = tokenizer(["Hello, my dog is cute"], max_length)
    assert input_ids.tolist() == [[*[8774, 6, 82, 1782, 19, 5295][: max_length - 1], 1]]
    assert attention_mask.sum() == max_length


def test_long_text_is_truncated(tokenizer: Tokenizer) -> None:
    input_ids, attention_mask = tokenizer(["a dog " * 2000], 300)
    assert input_ids.shape == (1, 300)
    assert input_ids[0, -1] == 1
    assert attention_mask.all()


def test_white_space_is_collapsed(tokenizer: Tokenizer) -> None:
    assert ids_of(tokenizer, "  two\t spaces \n here ") == ids_of(tokenizer, "two spaces here")


def test_special_names_are_plain_text(tokenizer: Tokenizer) -> None:
    ids = ids_of(tokenizer, "</s> <pad> <extra_id_0>")
    assert ids.count(1) == 1
    assert 0 not in ids
    assert max(ids) < 32000


def test_no_texts(tokenizer: Tokenizer) -> None:
    assert tokenizer([], 8)[0].shape == (0, 8)


def test_no_room_for_the_end_token(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="max_length 0"):
        tokenizer(["a dog"], 0)


def test_missing_or_damaged_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"spiece\.model does not exist"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "spiece.model").write_bytes((FOLDER / "spiece.model").read_bytes()[:300_000])
    with pytest.raises(WeightsError, match="truncated or damaged"):
        Tokenizer.from_folder(tmp_path)


def test_what_is_not_read_is_told(tokenizer: Tokenizer) -> None:
    text = "a red fox and a blue bird in the snow"
    assert tokenizer.unread(text, 300) == ""
    rest = tokenizer.unread(text, 6)
    assert rest and text.endswith(rest)
    (read,), (whole,) = tokenizer([text], 6)[0], tokenizer([text.removesuffix(rest)], 6)[0]
    assert read.tolist() == whole.tolist()


def test_lone_surrogates_are_unknown_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer(["a \ud800 dog"], 8)[0].tolist() == tokenizer(["a ? dog"], 8)[0].tolist()


def test_a_file_that_is_too_large_for_a_tokenizer_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "spiece.model", "wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(ValueError, match=r"spiece\.model is larger than 67,108,864 bytes"):
        Tokenizer.from_folder(tmp_path)
