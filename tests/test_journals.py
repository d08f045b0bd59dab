"""Files that the project wrote itself: journals, arrays and names in JSON."""

from pathlib import Path

import numpy as np
import pytest

from opensora.files import read_array, read_json_lines, read_sidecar, write_json


def test_a_journal_loses_only_the_lines_that_are_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert list(read_json_lines(path)) == []
    lines = [
        b'{"step": 1, "x": "\xe2\x80\xa8"}',
        b"3",
        b"[" * 9999,
        b'{"a": "\xff"}',
        b'{"loss": NaN}',
        b'{"step"',
    ]
    path.write_bytes(b"\n".join(lines))
    first, second = read_json_lines(path)
    assert first == {"step": 1, "x": "\u2028"} and second["loss"] != second["loss"]


def test_arrays_that_are_damaged_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6.0))
    assert read_array(path, "make it again").tolist() == list(range(6))
    content = path.read_bytes()
    for damaged in (
        b"",
        content[:20],
        content[:-1],
        content.replace(b"(6,)", b"(99,"),
        content.replace(b"(6,), }" + b" " * 22, b"(99999999999999999999999999,),}"),
        content.replace(b"'<f8'", b"'|O' "),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.npy is damaged .*: make it again"):
            read_array(path, "make it again")
    np.savez(tmp_path / "b.npz", x=np.ones(1))
    (tmp_path / "b.npz").rename(path)
    with pytest.raises(ValueError, match=r"a\.npy is an archive and not an array: make it again"):
        read_array(path, "make it again")


def test_names_that_are_no_text_survive_in_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"path": "a\udcff é"})
    assert read_sidecar(tmp_path / "a.json") == {"path": "a\udcff é"}
