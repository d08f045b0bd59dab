"""Lists of files in every form."""

import json
from pathlib import Path

import pytest

from opensora.data.lists.files import listed_files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "b.mp4\n\n  sub/a.avi \n"),
        ("list.csv", "caption,video\nx,b.mp4\ny,sub/a.avi\n"),
        ("list.csv", "file\nb.mp4\nsub/a.avi\n"),
        ("list.csv", "b.mp4,x\rsub/a.avi,y\r"),
        ("list.tsv", "caption\tvideo\na, b\tb.mp4\nx\tsub/a.avi\n"),
        ("list.json", '["b.mp4", {"path": "sub/a.avi", "cap": "a cat"}]'),
    ],
)
def test_lists_of_files(name: str, content: str) -> None:
    Path(name).write_text(content)
    assert listed_files(Path(name), Path("videos")) == [Path("videos/b.mp4"), Path("videos/sub/a.avi")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.txt", "../a.mp4", "names '../a.mp4', which is outside videos"),
        ("list.txt", "/etc/a.mp4", "which is outside videos"),
        ("list.txt", "a.mp4\na.mp4", "names 'a.mp4' twice"),
        ("list.txt", "\n", "names no file"),
        ("list.csv", "", "names no file"),
        ("list.json", "{", "cannot be read"),
        ("list.json", '[{"cap": "x"}]', "record 1 has none of video, path"),
        ("list.json", "3", "cannot be read"),
        ("list.xml", "a.mp4", "ends in none of .json, .jsonl, .csv"),
    ],
)
def test_lists_that_are_refused(name: str, content: str, message: str) -> None:
    Path(name).write_text(content)
    with pytest.raises(ValueError, match=message):
        listed_files(Path(name), Path("videos"))


def test_a_list_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"data_file_path gone\.txt does not exist"):
        listed_files(Path("gone.txt"), Path("videos"))


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_lists_name_videos(tmp_path: Path, suffix: str) -> None:
    names = ["a.mp4", "sub/b, c.mp4"]
    path = tmp_path / f"list{suffix}"
    if suffix == ".csv":
        path.write_text('caption,clip\nx,a.mp4\ny,"sub/b, c.mp4"\n')
    else:
        rows = [json.dumps({"clip": name}) for name in names]
        path.write_text("\n".join(rows) if suffix == ".jsonl" else f"[{', '.join(rows)}]")
    assert listed_files(path, tmp_path, "clip") == [tmp_path / name for name in names]
    assert listed_files(path, "videos", "clip") == [Path("videos") / name for name in names]
    with pytest.raises(ValueError, match=f"list{suffix}: record 1 has no 'video'"):
        listed_files(path, tmp_path, "video")


def test_a_list_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    for name in ("../a.mp4", "/etc/a.mp4"):
        (tmp_path / "list.json").write_text(json.dumps([{"video": name}]))
        with pytest.raises(ValueError, match="is outside"):
            listed_files(tmp_path / "list.json", tmp_path, "video")
    (tmp_path / "list.json").write_text("[")
    with pytest.raises(ValueError, match=r"list\.json cannot be read"):
        listed_files(tmp_path / "list.json", tmp_path, "video")
