import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from opensora.media import probe, read_video
from opensora.media.formats import VIDEO_SUFFIXES, media_files
from opensora.media.writer import write_video
from tests.media.material import numbered, numbers, write


def test_files_of_a_folder() -> None:
    for name in ("b.MP4", "a.webm", "c.json", ".hidden.mp4", "d.jpg"):
        Path(name).touch()
    Path("folder.mp4").mkdir()
    assert media_files(Path()) == [Path("a.webm"), Path("b.MP4"), Path("d.jpg")]
    with pytest.raises(
        ValueError, match=r"folder folder\.mp4 has no video or picture: files ending in \.mp4"
    ):
        media_files(Path("folder.mp4"))
    with pytest.raises(ValueError, match="folder nowhere does not exist"):
        media_files(Path("nowhere"))


def test_subfolders_are_listed_on_request() -> None:
    for name in ("b/z.mp4", "b/a.gif", "a.mp4", "c.txt", ".hidden/x.mp4", "b/.x.mp4"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert media_files(".") == [Path("a.mp4")]
    assert media_files(".", recursive=True) == [Path("a.mp4"), Path("b/a.gif"), Path("b/z.mp4")]


def test_every_video_format_is_listed() -> None:
    for suffix in VIDEO_SUFFIXES:
        Path(f"video{suffix}").touch()
    assert {path.suffix for path in media_files(".")} == set(VIDEO_SUFFIXES)


def test_links_to_folders_are_followed_but_not_in_circles(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("films/a.mp4", "elsewhere/deep/b.mp4"):
        Path(name).parent.mkdir(parents=True)
        Path(name).touch()
    Path("films/linked").symlink_to(Path("elsewhere").absolute())
    Path("elsewhere/deep/back").symlink_to(Path("films").absolute())
    Path("films/gone.mp4").symlink_to("nowhere.mp4")
    assert media_files("films", recursive=True) == [Path("films/a.mp4"), Path("films/linked/deep/b.mp4")]
    skipped = [record.getMessage() for record in caplog.records]
    assert sorted(skipped) == [
        "films/gone.mp4 is skipped: it is a link to a file that does not exist, or no file",
        "films/linked/deep/back is skipped: it is a link to a folder above it",
    ]


def test_pictures_that_are_not_read_have_a_line(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "b.bmp", "c.HEIC", "d.heic", "e.tiff", "f.avif", "g.txt"):
        Path(name).touch()
    assert media_files(".") == [Path("a.png")]
    assert [record.getMessage() for record in caplog.records] == [
        ".: 1 .avif, 1 .bmp, 2 .heic, 1 .tiff not read, save them as .png or .jpg"
    ]


@pytest.mark.parametrize(
    "name",
    [
        "10:30",
        "http:__x",
        "a b",
        "%03d",
        "-",
        "~",
        "data:1,2",
        "[1]*?",
        "line\nbreak",
        "é象",
        "byte\udce9",
        "n" * 246,
    ],
)
def test_every_name_is_read_and_written(name: str) -> None:
    source = write("source.mp4", 5)
    os.replace(source, f"{name}.mp4")
    assert probe(f"{name}.mp4").frames == 5 and numbers(read_video(f"{name}.mp4")) == [0, 1, 2, 3, 4]
    Image.fromarray(numbered(9)).save("source.png")
    os.replace("source.png", f"{name}.png")
    assert numbers(read_video(f"{name}.png")) == [9]
    for suffix in (".mp4", ".gif", ".png"):
        write_video(f"{name}{suffix}", numbered(7)[None])
        assert numbers(read_video(f"{name}{suffix}")) == [7]


def test_names_of_devices_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    os.mkfifo("pipe.mp4")
    Path("a.mp4").touch()
    assert media_files(".") == [Path("a.mp4")] and "pipe.mp4 is skipped" in caplog.text


def test_contact_sheets_are_no_pictures_of_their_folder() -> None:
    for name in ("a.mp4", "a.contact.png", "contact.png"):
        Path(name).touch()
    assert [path.name for path in media_files(".")] == ["a.mp4", "contact.png"]


def test_a_file_in_place_of_a_folder_is_named() -> None:
    Path("a.mp4").touch()
    with pytest.raises(ValueError, match=r"a\.mp4 is a file: name the folder that holds it"):
        media_files("a.mp4")
