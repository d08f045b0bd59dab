"""Prompts from arguments and files."""

import logging
from pathlib import Path

import pytest

from opensora.data.text.prompts import read_prompts

EXAMPLES = Path(__file__).parents[3] / "examples"


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_sentences_and_files_keep_their_order(tmp_path: Path) -> None:
    text = write(tmp_path / "a.txt", "\ufefffirst\r\n\n  second, with commas  \n")
    table = write(tmp_path / "b.CSV", 'id,Caption\n1,"third, quoted\nover two lines"\n\n2,\n3,fourth\n')
    prompts = read_prompts([" zero ", text, table, "x" * 10_000])
    assert prompts == [
        "zero",
        "first",
        "second, with commas",
        "third, quoted\nover two lines",
        "fourth",
        "x" * 10_000,
    ]


@pytest.mark.parametrize("column", ["prompt", "caption", "cap", "text"])
def test_known_columns(tmp_path: Path, column: str) -> None:
    assert read_prompts([write(tmp_path / "a.csv", f"path,{column}\nx.mp4,a cat\n")]) == ["a cat"]


def test_unknown_columns_mean_the_first_and_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "opensora"):
        assert read_prompts([write(tmp_path / "a.csv", "sentence,length\na cat,3\n")]) == ["a cat"]
    assert "the first, 'sentence'" in caplog.text


def test_a_sentence_may_end_like_a_file_name(tmp_path: Path) -> None:
    assert read_prompts(["a robot that reads notes.txt"]) == ["a robot that reads notes.txt"]
    assert read_prompts([write(tmp_path / "my prompts.txt", "a cat")]) == ["a cat"]


@pytest.mark.parametrize(
    ("name", "text"), [("a.txt", "\n  \n"), ("a.csv", ""), ("a.csv", "prompt\n"), ("a.csv", "\n\n")]
)
def test_empty_file(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"{name} holds no prompt"):
        read_prompts([write(tmp_path / name, text)])


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a prompt is empty"):
        read_prompts(["a cat", "  "])
    with pytest.raises(ValueError, match=r"prompt file nowhere\.txt does not exist"):
        read_prompts(["nowhere.txt"])
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="save it as UTF-8"):
        read_prompts([str(tmp_path / "a.txt")])


@pytest.mark.parametrize("name", ["prompt_list_65.txt", "prompt_list_221.txt"])
def test_shipped_lists(name: str) -> None:
    prompts = read_prompts([str(EXAMPLES / name)])
    assert len(prompts) == len(set(prompts)) >= 10
