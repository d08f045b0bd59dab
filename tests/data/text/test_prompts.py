"""Prompts from arguments and files."""

import io
import logging
from pathlib import Path

import pytest

from opensora.cli.arguments import parse
from opensora.data.text.prompts import as_prompt, read_prompt_file, read_prompts
from opensora.generate.options import GenerateOptions

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


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "a.json",
            '["one", {"caption": "two"}, {"cap": ["three", "four"]}]',
            ["one", "two", "three", "four"],
        ),
        ("a.jsonl", '"one"\r{"prompt": "two"}\n', ["one", "two"]),
        ("a.tsv", "id\tprompt\n1\ta cat, asleep\n", ["a cat, asleep"]),
        ("a.csv", "id;prompt\n1;a cat, asleep\n", ["a cat, asleep"]),
        ("a.csv", 'prompt\na cat, asleep, at 5" high\n', ['a cat, asleep, at 5" high']),
        ("a.csv", "a cat, asleep\na dog\n", ["a cat, asleep", "a dog"]),
        ("a.csv", "a cat\ra dog\r", ["a cat", "a dog"]),
        ("a.csv", '"a cat, asleep"\n"a ""big"" dog"\n', ["a cat, asleep", 'a "big" dog']),
        ("a.csv", "elephant\ntiger\n", ["elephant", "tiger"]),
        ("a.csv", "prompt\n" + "x" * 200_000, ["x" * 200_000]),
        ("a.txt", "one\u2028still one\x0b\x0c\x85\rtwo\n", ["one\u2028still one", "two"]),
    ],
)
def test_every_kind_of_file(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert read_prompts([str(path)]) == read_prompt_file(path) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "1,a cat\n2,a dog\n", "its columns have no names: write a first row with one of prompt"),
        ("a.csv", "prompt,seed\na cat, asleep,3\n", "put texts that hold ',' in double quotes"),
        ("a.json", '[{"name": "x"}]', "record 1 has no text under prompt"),
        ("a.json", '[{"prompt": 3}]', "record 1 has no text under prompt"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "[]", "holds no prompt"),
        ("a.yaml", "prompt: x", "is a file, but prompts are read from .txt"),
        ("prompts", "a cat", "is a file, but prompts are read from .txt"),
        ("my prompts", "a cat", "is a file, but prompts are read from .txt"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        read_prompts([str(tmp_path / name)])


@pytest.mark.parametrize("name", ["nowhere.json", "nowhere.jsonl", "nowhere.TSV", "nowhere.xlsx", "a/b.mp4"])
def test_a_word_that_ends_like_a_file_is_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"prompt file {name} does not exist"):
        read_prompts([name])


@pytest.mark.parametrize(
    "prompt",
    [
        "a robot that reads " + "long " * 60 + "notes.txt",
        "x" * 300 + "notes.txt",
        "a cat at 3.5",
        "e.g. a cat",
        "a\0cat.txt",
        "/" * 5000,
    ],
)
def test_what_cannot_be_a_file_is_a_prompt(prompt: str) -> None:
    assert read_prompts([prompt]) == [prompt]


@pytest.mark.parametrize(
    "prompt", ["--fast cars", "-v", "notes.txt", "a cat", "prompts", "24", "null", "[a]"]
)
def test_prompts_survive_a_command_line(tmp_path: Path, prompt: str) -> None:
    Path("prompts").touch()  # in the test's own working directory
    options = parse(GenerateOptions, [as_prompt(prompt)], "opensora generate", "x", "text_prompt")
    assert options is not None and read_prompts(options.text_prompt) == [prompt]


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the prompt 'a \\udcff' is not UTF-8 text"):
        read_prompts(["a \udcff"])


@pytest.mark.parametrize("name", ["prompt_list_65.txt", "prompt_list_221.txt"])
def test_shipped_lists(name: str) -> None:
    prompts = read_prompts([str(EXAMPLES / name)])
    assert len(prompts) == len(set(prompts)) >= 10


def test_the_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for content, expected in (("a cat\n\n  an owl \r\n", ["a cat", "an owl"]), ("\u00fcber", ["\u00fcber"])):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        assert read_prompts(["first", "-"]) == ["first", *expected]
    for damaged, message in ((b" \n", "holds no prompt"), (b"\xff", "the standard input is not UTF-8")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(damaged)))
        with pytest.raises(ValueError, match=message):
            read_prompts(["-"])
