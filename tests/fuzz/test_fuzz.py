"""A fixed slice of the fuzzer, and the faults that it must find."""

import json
import random
import re
from pathlib import Path

import pytest

from tests.fuzz import faulty
from tests.fuzz.cases import Case, make_case, make_seeds, run_case
from tests.fuzz.mutate import LARGEST, mutate
from tests.fuzz.pool import run_cases
from tests.fuzz.readers import READERS, Reader

SEED, CASES = 20, 400


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    make_seeds(folder, READERS)
    return folder


@pytest.mark.slow
def test_a_fixed_slice_has_no_fault(seeds: Path) -> None:
    results = list(run_cases(seeds, sorted(READERS), SEED, range(CASES)))
    assert sorted(result.number for result in results) == list(range(CASES))
    assert [result for result in results if result.fault] == []
    assert {result.reader for result in results} == set(READERS)


def test_cases_are_a_function_of_seed_and_number(seeds: Path) -> None:
    cases = [make_case(seeds, READERS, 5, number) for number in range(30)]
    assert cases == [make_case(seeds, READERS, 5, number) for number in range(30)]
    assert cases != [make_case(seeds, READERS, 6, number) for number in range(30)]


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.jsonl", "a.safetensors"])
def test_mutations_are_bounded_and_change_the_file(name: str) -> None:
    content = json.dumps({"a": [1, {"b": "c"}], "d": None}).encode()
    if name == "a.safetensors":
        content = len(content).to_bytes(8, "little") + content + bytes(16)
    mutated = [mutate(content, name, random.Random(number)) for number in range(300)]
    assert all(len(item) <= LARGEST for item in mutated)
    assert sum(item == content for item in mutated) < 30
    assert mutate(b"", name, random.Random(0)) is not None


def reading(read: object) -> dict[str, Reader]:
    return {"bad": Reader(lambda folder: (folder / "a.txt").write_text("x"), read)}  # type: ignore[arg-type]


def raising(error: BaseException) -> object:
    def read(folder: Path) -> None:
        raise error

    return read


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (KeyError("x"), "traceback: .*KeyError"),
        (RecursionError(), "traceback: .*RecursionError"),
        (MemoryError(), "more than 2 GiB of memory"),
        (SystemExit(3), "traceback: .*SystemExit"),
        (ValueError("no file is named"), "the message does not name the file"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), "UnicodeDecodeError instead of a sentence"),
        (OSError("Cannot allocate memory"), "more than 2 GiB of memory"),
    ],
)
def test_faults_are_found(tmp_path: Path, error: BaseException, fault: str) -> None:
    (tmp_path / "bad").mkdir()
    found = run_case(tmp_path, reading(raising(error)), Case("bad", "a.txt", b"y"))
    assert re.match(fault, found, re.DOTALL)


def test_a_sentence_is_no_fault(tmp_path: Path) -> None:
    def read(folder: Path) -> None:
        assert (folder / "a.txt").read_bytes() == b"y"
        raise ValueError(f"{folder / 'a.txt'} is damaged: save it again")

    (tmp_path / "bad").mkdir()
    assert run_case(tmp_path, reading(read), Case("bad", "a.txt", b"y")) == ""


@pytest.mark.slow
def test_a_process_that_dies_hangs_or_takes_memory_does_not_end_the_others(tmp_path: Path) -> None:
    make_seeds(tmp_path / "seeds", faulty.READERS, read=False)
    results = list(
        run_cases(tmp_path / "seeds", sorted(faulty.READERS), 1, range(16), faulty.__name__, seconds=5)
    )
    faults = {result.reader: result.fault for result in results}
    assert len(results) == 16 and faults["fine"] == ""
    assert faults["die"] == "the process died with code 9" and faults["hang"] == "no end within 5 s"
    assert faults["memory"].startswith("more than 2 GiB of memory")
