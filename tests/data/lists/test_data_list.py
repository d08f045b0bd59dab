"""Data lists: columns, commas, and which records are valid."""

import json
import pickle
from pathlib import Path

import pytest

from opensora.data.lists.data_list import AnnotatedFolder, Entries, read_data_list


def data_set(folder: Path, records: list[object], annotations: str = "a.json") -> AnnotatedFolder:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / annotations).write_text(json.dumps(records))
    return AnnotatedFolder(folder, None, folder / annotations)


@pytest.mark.parametrize(
    ("line", "columns"),
    [
        ("videos, a.json", ("videos", None, "a.json")),
        ("videos,a.json", ("videos", None, "a.json")),
        ("videos, text, a.json", ("videos", "text", "a.json")),
        ("videos, not made yet, a.json", ("videos", "not made yet", "a.json")),
        ("cats, dogs,and more/here, a.json", ("cats, dogs,and more/here", None, "a.json")),
        ("cats, dogs,and more/here, text, a, b.json", ("cats, dogs,and more/here", "text", "a, b.json")),
        ('"cats, dogs,and more/here", "a, b.json"', ("cats, dogs,and more/here", None, "a, b.json")),
        ("  videos ,  a.json  ", ("videos", None, "a.json")),
    ],
)
def test_lines_of_two_and_three_columns(tmp_path, line, columns):
    for folder in ("videos", "text", "cats, dogs,and more/here"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a.json", "a, b.json"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "list.txt").write_text(f"\ufeff# videos\n\n{line}\n", encoding="utf-8")
    (source,) = read_data_list(tmp_path / "list.txt")
    folder, text_folder, annotations = source
    assert (str(folder), text_folder and text_folder.name, str(annotations)) == columns


def test_relative_paths_may_count_from_the_list(tmp_path, monkeypatch):
    source = data_set(tmp_path / "set", [])
    (tmp_path / "list.txt").write_text("set, set/a.json")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_data_list(tmp_path / "list.txt") == [source]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no data set"),
        ("nowhere, a.json", "list.txt line 1: folder .*nowhere does not exist"),
        ("# a\n., b.json", "list.txt line 2: annotation file .*b.json does not exist"),
        (".", "line 1: annotation file"),
    ],
)
def test_bad_lists_are_explained(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_data_list(tmp_path / "list.txt")
    with pytest.raises(ValueError, match=r"data list missing\.txt does not exist"):
        read_data_list("missing.txt")


def test_entries_of_several_data_sets(tmp_path):
    first = data_set(
        tmp_path / "one",
        [{"path": "a, b.mp4", "cap": "a cat"}, {"path": "sub/c.mp4", "cap": ["x", "y"], "frame_idx": "3:20"}],
    )
    second = data_set(tmp_path / "two", [{"path": "d.mp4", "cap": "象"}])
    entries = pickle.loads(pickle.dumps(Entries([first, second])))
    assert [(e.number, e.segment, e.captions, e.source) for e in entries] == [
        (0, (tmp_path / "one" / "a, b.mp4", 0, None), ("a cat",), 0),
        (1, (tmp_path / "one" / "sub" / "c.mp4", 3, 20), ("x", "y"), 0),
        (2, (tmp_path / "two" / "d.mp4", 0, None), ("象",), 1),
    ]


def test_invalid_records_are_counted_by_reason(tmp_path):
    good = {"path": "a.mp4", "cap": "a"}
    bad = [
        {"cap": "a"},
        {"path": "../a.mp4", "cap": "a"},
        {"path": "/etc/passwd", "cap": "a"},
        {"path": "b.mp4"},
        {"path": "c.mp4", "cap": [1]},
    ]
    ranges = [{**good, "frame_idx": text} for text in ("5:5", "a:b", 7, "-1:3")]
    entries = Entries([data_set(tmp_path / "set", [*bad, good, *ranges])])
    assert len(entries) == 1 and entries[0].number == 0
    assert entries.rejected == {
        "the record has no path": 1,
        "the path leaves the folder of its data set": 2,
        "cap is neither a caption nor a list of captions": 2,
        "frame_idx is not a range of frames such as 0:65": 4,
    }
    assert entries.examples["the path leaves the folder of its data set"] == "../a.mp4"


def test_missing_files_are_left_out_on_request_and_numbers_stay(tmp_path):
    source = data_set(tmp_path / "set", [{"path": f"{i}.mp4", "cap": "a"} for i in range(3)])
    (source.folder / "1.mp4").touch()
    entries = Entries([source], only_existing=True)
    assert [entry.number for entry in entries] == [1] and entries.valid == 3
    assert entries.rejected == {"the file does not exist": 2}
    assert entries.digests == Entries([source]).digests


def test_columns_may_have_other_names(tmp_path):
    (tmp_path / "a.csv").write_text('file,text,frame_idx\n"a, b.mp4",hello,0:9\n')
    (entry,) = Entries([AnnotatedFolder(tmp_path, None, tmp_path / "a.csv")], path="file", cap="text")
    assert (entry.segment, entry.captions) == ((tmp_path / "a, b.mp4", 0, 9), ("hello",))


def test_digests_tell_captions_and_clips_apart(tmp_path):
    record = {"path": "a.mp4", "cap": "a", "frame_idx": "0:9"}
    base, same, caption, clip = (
        Entries([data_set(tmp_path / str(i), [{**record, **change}])]).digests[0]
        for i, change in enumerate(({}, {"fps": 24}, {"cap": "b"}, {"frame_idx": "1:9"}))
    )
    assert base == same
    assert caption.captions != base.captions and caption.clips == base.clips
    assert clip.captions == base.captions and clip.clips != base.clips


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("x" * 300 + ", a.json", "line 1: folder .*x\\.\\.\\. does not exist"),
        ("x" * 13000 + ", a.json", "line 1 has 13,008 characters: write `folder, annotations`"),
        ("films" + ",x" * 4000, "line 1 has 4000 commas: put paths that hold some in double quotes"),
    ],
    ids=["a name too long for a file", "a line too long for paths", "more commas than can be tried"],
)
def test_lines_that_are_no_paths(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(line)
    with pytest.raises(ValueError, match=rf"{path} {fault}"):
        read_data_list(path)
