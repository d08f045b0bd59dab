"""Annotation files are read record by record, in bounded memory, and records are found again."""

import io
import json
import tracemalloc

import pytest

from opensora.data.lists import records

RECORDS = [
    {"path": 'a, b/"é" {0}.mp4', "cap": "]},{[\\"},
    {"path": "b.mp4", "cap": ["one", "象"], "frame_idx": "0:65"},
    {"path": "c", "cap": ""},
]


@pytest.fixture(params=[1, 7, 1 << 20])
def piece(request, monkeypatch):
    monkeypatch.setattr(records, "PIECE", request.param)


@pytest.mark.parametrize(
    "text", [json.dumps(RECORDS), "\ufeff \n" + json.dumps(RECORDS, indent=3, ensure_ascii=False) + "\n"]
)
@pytest.mark.usefixtures("piece")
def test_json_lists_in_pieces_of_any_size(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    found = list(records.scan(path))
    assert [record.content for record in found] == RECORDS
    assert [records.read(path, record.offset, record.length) for record in found] == RECORDS


def test_lines_and_tables(tmp_path):
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.csv"
    lines.write_text(
        "\n".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS), encoding="utf-8"
    )
    table.write_text(
        '\ufeffpath, cap\r\n"a, b.mp4","two\nlines, and ""quotes"""\r\n\r\né.mp4, plain\r\n', encoding="utf-8"
    )
    for path, expected in (
        (lines, RECORDS),
        (table, [{"path": "a, b.mp4", "cap": 'two\nlines, and "quotes"'}, {"path": "é.mp4", "cap": "plain"}]),
    ):
        found = list(records.scan(path))
        assert [record.content for record in found] == expected
        assert [records.read(path, record.offset, record.length) for record in found] == expected


def test_an_empty_list_has_no_records(tmp_path):
    (tmp_path / "a.json").write_text(" [ ] ")
    assert list(records.scan(tmp_path / "a.json")) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"path": 1}', r"does not begin with \["),
        ("a.json", '[{"path": 1} {"path": 2}]', "a comma is missing at byte 13"),
        ("a.json", '[{"path": 1}, {"path', "the object at byte 14 is incomplete or malformed"),
        ("a.json", '[{"path": 1}', "the list has no end"),
        ("a.json", "[3]", "the record at byte 1 is a int"),
        ("a.json", "[" * 100_000, "recursion"),
        ("a.json", '[{"a": "\udce9"}]', "can't decode byte"),
        ("a.jsonl", '{"path": 1}\n{"path"\n', "the line at byte 12 is not an object"),
        ("a.csv", "path,cap\na,\udce9\n", "the line at byte 9 is not UTF-8 text: save the file as UTF-8"),
        ("a.xml", "", "ends in none of"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=rf"annotation file .*{name}.*{message}"):
        list(records.scan(tmp_path / name))


def test_a_changed_file_is_noticed(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(RECORDS))
    place = list(records.scan(path))[1]
    path.write_text(json.dumps(RECORDS[1:]))
    with pytest.raises(ValueError, match="has changed during the run"):
        records.read(path, place.offset, place.length)


class EndlessList(io.RawIOBase):
    """A list of `count` records, made while it is read. `largest` is the largest piece that was requested."""

    def __init__(self, count: int) -> None:
        self.count, self.largest, self.total = count, 0, 0
        self._rest = b"["

    def read(self, size: int = -1) -> bytes:
        self.largest = max(self.largest, size) if size >= 0 else 1 << 60
        while len(self._rest) < size and self.count:
            self.count -= 1
            self._rest += json.dumps({"path": f"{self.count}.mp4", "cap": "word " * 200}).encode() + (
                b", " if self.count else b"]"
            )
        piece, self._rest = self._rest[:size], self._rest[size:]
        self.total += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        self._rest = b"["
        self.total = 0
        return 0


def test_memory_stays_bounded_whatever_the_file_holds(monkeypatch):
    monkeypatch.setattr(records, "PIECE", 1 << 14)
    file = EndlessList(20_000)
    file.read(0)
    scanner = records._scan_json(file)
    next(scanner)
    assert file.total <= 2 << 14  # nothing is read before it is needed
    tracemalloc.start()
    try:
        assert sum(1 for _ in scanner) > 19_900
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file.total > 20_000_000 and file.largest <= 1 << 14
    assert peak < 500_000


def test_a_record_without_an_end_is_not_read_to_the_end_of_the_file(monkeypatch):
    monkeypatch.setattr(records, "PIECE", 1 << 10)
    monkeypatch.setattr(records, "LARGEST", 1 << 14)
    file = io.BytesIO(b'[{"cap": "' + b"x" * 1_000_000)
    with pytest.raises(ValueError, match="incomplete or malformed"):
        next(records._scan_json(file))
    assert file.tell() < 1 << 15
