"""From a folder of files to lists that a run reads."""

import json
import re

import av
import numpy as np
import pytest

from opensora.cli import main
from opensora.data.lists.data_list import Entries, read_data_list
from opensora.data.lists.prepare import Filters, prepare
from opensora.media.writer import write_video
from tests.data.lists.test_scenes import pan


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Videos: one with a cut and captions in a .txt, one with a .json, a short, a small and a broken one, two
    without a caption; and a picture.
    """
    folder = tmp_path_factory.mktemp("films, all")
    (folder / "sub").mkdir()
    write_video(folder / "two scenes.mp4", np.concatenate([pan(0, 20), pan(1, 25)]))
    (folder / "two scenes.txt").write_text("first caption\n\nsecond caption\n")
    write_video(folder / "sub" / "still, one.mp4", pan(2, 20, speed=0), fps=12)
    (folder / "sub" / "still, one.json").write_text('{"caption": "a still"}')
    write_video(folder / "short.mp4", pan(3, 5))
    write_video(folder / "small.mp4", pan(4, 20)[:, :16, :16])
    for name in ("short", "small", "broken"):
        (folder / f"{name}.txt").write_text(name)
    (folder / "broken.mp4").write_bytes(b"nothing")
    write_video(folder / "mute.mp4", pan(5, 20))
    write_video(folder / "odd.mp4", pan(6, 20))
    (folder / "odd.json").write_text('{"title": "no caption"}')
    write_video(folder / "picture.png", pan(7, 1))
    (folder / "picture.txt").write_text("a picture")
    (folder / "notes.doc").touch()
    return folder


def test_lists_of_scenes_and_pictures(films, tmp_path):
    summary = prepare(films, tmp_path / "lists", Filters(min_size=32), workers=2)
    assert summary.startswith("8 files: 3 scenes of videos, 1 pictures, 5 left out")
    videos, images = (
        Entries(read_data_list(tmp_path / "lists" / f"{kind}_data.txt")) for kind in ("video", "image")
    )
    assert [
        (entry.path.relative_to(films).as_posix(), entry.captions, *entry.segment[1:]) for entry in videos
    ] == [
        ("sub/still, one.mp4", ("a still",), 0, 20),
        ("two scenes.mp4", ("first caption", "second caption"), 0, 20),
        ("two scenes.mp4", ("first caption", "second caption"), 20, 45),
    ]
    assert [(entry.path.name, entry.captions, *entry.segment[1:]) for entry in images] == [
        ("picture.png", ("a picture",), 0, None)
    ]
    record = json.loads((tmp_path / "lists" / "videos.json").read_text())[0]
    assert (record["height"], record["width"], record["fps"], record["num_frames"]) == (72, 128, 12, 20)


def test_what_is_left_out_is_listed_with_its_reason(films, tmp_path):
    prepare(films, tmp_path / "lists", Filters(min_size=32))
    lines = [json.loads(line) for line in (tmp_path / "lists" / "rejected.jsonl").read_text().splitlines()]
    reasons = {line["path"]: line["reason"] for line in lines}
    assert "broken.mp4 cannot be read as a video" in reasons.pop("broken.mp4")
    assert reasons == {
        "short.mp4": "the scene has 5 frames, min_frames is 17",
        "small.mp4": "its shorter side is 16, min_size is 32",
        "mute.mp4": "it has no caption",
        "odd.mp4": "its caption file cannot be read: no text under cap, caption, captions, text, prompt",
    }


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (Filters(min_motion=0.5), {"two scenes.mp4": 2, "small.mp4": 1}),
        (Filters(max_motion=0.5), {"sub/still, one.mp4": 1}),
        (Filters(max_frames=20, min_size=32), {"two scenes.mp4": 1, "sub/still, one.mp4": 1}),
        (Filters(cut_scenes=False, min_frames=45), {"two scenes.mp4": 1}),
        (
            Filters(default_caption="a film", min_motion=0.5, min_size=32),
            {"two scenes.mp4": 2, "mute.mp4": 1},
        ),
    ],
)
def test_filters(films, tmp_path, filters, kept):
    prepare(films, tmp_path / "lists", filters)
    paths = [record["path"] for record in json.loads((tmp_path / "lists" / "videos.json").read_text())]
    assert {path: paths.count(path) for path in paths} == kept


def test_a_stopped_command_continues_without_measuring_again(films, tmp_path, monkeypatch):
    measured = []
    real = prepare.__globals__["_measure"]

    def measure(folder, name):
        measured.append(name)
        if len(measured) == 4:
            raise KeyboardInterrupt
        return real(folder, name)

    monkeypatch.setattr("opensora.data.lists.prepare._measure", measure)
    with pytest.raises(KeyboardInterrupt):
        prepare(films, tmp_path / "lists", Filters(min_size=32))
    journal = tmp_path / "lists" / "measured.jsonl"
    journal.write_text(journal.read_text()[:-20])  # the last line was cut off
    before = len(measured)
    prepare(films, tmp_path / "lists", Filters(min_size=32))
    assert len(measured) - before == 8 - 2
    prepare(films, tmp_path / "other", Filters(min_size=32))
    assert (tmp_path / "lists" / "videos.json").read_text() == (
        tmp_path / "other" / "videos.json"
    ).read_text()


def test_names_that_are_no_text_are_left_out(tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "bad\udce9.mp4").write_bytes(b"")
    assert "0 scenes of videos, 0 pictures, 1 left out" in prepare(
        tmp_path / "films", tmp_path / "lists", Filters()
    )
    assert (
        json.loads((tmp_path / "lists" / "rejected.jsonl").read_text())["reason"]
        == "its name is not UTF-8: rename it"
    )


def test_results_are_not_overwritten_and_mistakes_are_explained(films, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["prepare-data", str(films), "--output_path", "lists", "--min_size", "32"]) == 0
    assert "3 scenes of videos" in capsys.readouterr().out
    for words, message in (
        ([str(films), "--output_path", "lists"], "lists/videos.json exists and is not overwritten"),
        (["nowhere"], "folder nowhere does not exist"),
        (["empty"], "folder empty has no video or picture"),
        ([], "write `opensora prepare-data FOLDER`"),
        ([str(films), "--min_frames", "9", "--max_frames", "8"], "nothing would be left"),
    ):
        assert main(["prepare-data", *words]) == 2
        assert message in capsys.readouterr().err


def captions_in(lists):
    return {
        record["path"]: record["cap"]
        for kind in ("videos", "images")
        if (lists / f"{kind}.json").is_file()
        for record in json.loads((lists / f"{kind}.json").read_text())
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", 'file_name,text\na.png,a cat, 5" high\nsub/b.png,"a ""big"" dog"\nc.png,beside\n'),
        ("metadata.csv", 'video;caption\ra.png;a cat, 5" high\rsub/b.png;a "big" dog\r'),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": "a cat, 5\\" high"}\n'
            '{"path": "sub/b.png", "cap": "a \\"big\\" dog"}',
        ),
    ],
)
def test_captions_of_a_metadata_file(tmp_path, name, text):
    films = tmp_path / "films"
    (films / "sub").mkdir(parents=True)
    for place in ("a.png", "sub/b.png", "c.png", "d.png"):
        write_video(films / place, pan(0, 1))
    (films / "c.txt").write_text("its own\u2028line\n")
    (films / name).write_text(text)
    prepare(films, tmp_path / "lists", Filters())
    assert captions_in(tmp_path / "lists") == {
        "a.png": 'a cat, 5" high',
        "sub/b.png": 'a "big" dog',
        "c.png": "its own\u2028line",
    }


def test_a_metadata_file_of_the_files_own_folder_counts_first(tmp_path):
    (tmp_path / "films" / "sub").mkdir(parents=True)
    write_video(tmp_path / "films" / "sub" / "a.png", pan(0, 1))
    (tmp_path / "films" / "metadata.csv").write_text("file_name,text\nsub/a.png,far\n")
    (tmp_path / "films" / "sub" / "metadata.csv").write_text("file_name,text\na.png,near\n")
    prepare(tmp_path / "films", tmp_path / "lists", Filters())
    assert captions_in(tmp_path / "lists") == {"sub/a.png": "near"}


def test_files_of_another_folder_or_replaced_ones_are_measured_again(tmp_path):
    def sizes(folder):
        for name in ("images.json", "image_data.txt", "rejected.jsonl"):
            (tmp_path / "lists" / name).unlink(missing_ok=True)
        prepare(folder, tmp_path / "lists", Filters(default_caption="x"))
        (record,) = json.loads((tmp_path / "lists" / "images.json").read_text())
        return record["height"], record["width"]

    for number, folder in enumerate((tmp_path / "one", tmp_path / "two")):
        folder.mkdir()
        write_video(folder / "a.png", pan(0, 1)[:, : 32 + 8 * number])
    assert sizes(tmp_path / "one") == (32, 128)
    assert sizes(tmp_path / "two") == (40, 128)
    write_video(tmp_path / "two" / "a.png", pan(0, 1)[:, :48])
    assert sizes(tmp_path / "two") == (48, 128)


def test_a_truncated_video_is_named(tmp_path, caplog):
    (tmp_path / "films").mkdir()
    with av.open(str(tmp_path / "whole.mp4"), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("h264", rate=24, options={"g": "5", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 72, 128, "yuv420p"
        for frame in pan(0, 40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))))
        container.mux(stream.encode())
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "films" / "a.mp4").write_bytes(content[: len(content) * 2 // 3])
    with caplog.at_level("WARNING", "opensora"):
        prepare(tmp_path / "films", tmp_path / "lists", Filters(default_caption="x", min_frames=5))
    assert re.search(r"a\.mp4 is cut off: it has \d+ of its 40 frames", caplog.text)


def test_files_of_one_frame_are_sorted_by_their_ending(tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    for name in ("a.mp4", "b.gif", "c.webp", "d.png"):
        write_video(films / name, pan(0, 1))
    summary = prepare(films, tmp_path / "lists", Filters(min_frames=1, default_caption="one frame"))
    assert summary.startswith("4 files: 2 scenes of videos, 2 pictures, 0 left out")
    names = [record["path"] for record in json.loads((tmp_path / "lists" / "images.json").read_text())]
    assert names == ["c.webp", "d.png"]


def test_folders_are_classes(tmp_path):
    """UCF101's layout; a caption beside a file does not count."""
    for number, name in enumerate(("Bowling/v_1.avi", "Archery/v_1.avi", "Archery/g01/v_2.avi", "loose.avi")):
        path = tmp_path / "ucf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path.with_suffix(".mp4"), pan(number, 6))
    (tmp_path / "ucf" / "Bowling" / "v_1.txt").write_text("a caption")
    filters = Filters(min_frames=5, class_folders=True, cut_scenes=False)
    prepare(tmp_path / "ucf", tmp_path / "lists", filters)
    entries = Entries(read_data_list(tmp_path / "lists" / "video_data.txt"))
    assert [(entry.path.name, entry.captions) for entry in entries] == [
        ("v_2.mp4", ("Archery",)), ("v_1.mp4", ("Archery",)), ("v_1.mp4", ("Bowling",)),
    ]  # fmt: skip
    assert "it lies in no folder of a class" in (tmp_path / "lists" / "rejected.jsonl").read_text()


def test_folders_of_numbered_pictures_are_videos(tmp_path):
    """Sky Timelapse's layout: a few pictures are too few, and a picture beside them is none of a video."""
    for folder, count in (("one/a", 12), ("one/b", 4), ("two", 9)):
        (tmp_path / "sky" / folder).mkdir(parents=True)
        for number, frame in enumerate(pan(count, count)):
            write_video(tmp_path / "sky" / folder / f"f_{number}.jpg", frame[None])
    write_video(tmp_path / "sky" / "cover.png", pan(0, 1))
    filters = Filters(min_frames=8, numbered_pictures=True, default_caption="")
    assert prepare(tmp_path / "sky", tmp_path / "lists", filters).startswith("4 files: 2 scenes of videos")
    entries = Entries(read_data_list(tmp_path / "lists" / "video_data.txt"), only_existing=True)
    assert [(entry.path.name, entry.captions, entry.segment.end) for entry in entries] == [
        ("a", ("",), 12), ("two", ("",), 9),
    ]  # fmt: skip
