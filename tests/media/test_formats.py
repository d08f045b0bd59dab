from pathlib import Path

import pytest

from opensora.media.formats import VIDEO_SUFFIXES, media_files


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
