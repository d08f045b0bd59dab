"""Sentences for files that cannot be read or written."""

import errno
import re
from pathlib import Path

import av.error
import numpy as np
import pytest

from opensora.media import mp4, writer
from opensora.media.mp4 import open_mp4
from opensora.media.reader import probe, read_video
from opensora.media.writer import write_folder, write_video
from tests.media.material import numbered, numbers, write

CUT, UNKNOWN = "it is damaged or cut off", "it is damaged or cut off, or of a format that is not read"


def picture(suffix: str) -> bytes:
    write_video(f"picture{suffix}", numbered(3)[None])
    return Path(f"picture{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.mp4", b"", "it is empty"),
        ("a.png", b"", "it is empty"),
        ("a.mp4", b"hello world" * 99, UNKNOWN),
        ("a.mkv", bytes(5000), UNKNOWN),
        ("a.jpg", b"hello world" * 99, UNKNOWN),
        ("a.mp4", b"<!DOCTYPE html><html>" * 99, "its content is that of a .html file"),
        ("a.gif", b"<html>" * 99, "its content is that of a .html file"),
        ("a.mov", b"%PDF-1.7 " * 99, "its content is that of a .pdf file"),
        ("a.mp4", bytes(4) + b"ftypheic" + bytes(99), "its content is that of a .heic file"),
    ],
)
def test_other_content(name: str, content: bytes, fault: str) -> None:
    Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} cannot be read as a (video|picture): ") as caught:
        probe(name)
    assert str(caught.value).endswith(fault)


def test_a_picture_called_a_video_and_a_video_called_a_picture() -> None:
    Path("a.mp4").write_bytes(picture(".png"))
    with pytest.raises(ValueError, match=r"its content is that of a \.png file"):
        probe("a.mp4")
    Path("b.gif").write_bytes(write("b.mkv", 3).read_bytes())
    with pytest.raises(ValueError, match=r"its content is that of a \.mkv file"):
        probe("b.gif")


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".ts", ".gif", ".webp", ".png", ".jpg"])
def test_damage_is_told_without_numbers_of_a_library(suffix: str) -> None:
    if suffix in (".png", ".jpg"):
        whole = picture(suffix)
    elif suffix in (".gif", ".webp"):
        write_video(f"b{suffix}", np.stack([numbered(number) for number in range(9)]))
        whole = Path(f"b{suffix}").read_bytes()
    else:
        whole = write(f"b{suffix}", 60, codec="mpeg4" if suffix == ".avi" else "libx264").read_bytes()
    rng, told = np.random.default_rng(0), 0
    for number in range(40):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if number % 2 else whole)
        for place in rng.integers(0, len(damaged), 30 if number % 2 == 0 else 0):
            damaged[place] = rng.integers(256)
        Path(f"a{suffix}").write_bytes(damaged)
        try:
            read_video(f"a{suffix}")
        except ValueError as error:
            told += 1
            assert re.match(rf"a{suffix} (cannot be read as a \w+: |is too short|:)", str(error))
            assert not re.search(r"Errno|\d{6}|file:|avcodec", str(error)), error
    assert told > 5


def test_a_folder_with_the_name_of_a_video() -> None:
    Path("a.mp4").mkdir()
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be read as a video: it has no numbered pictures"):
        probe("a.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.webp", "a.png"])
def test_a_full_disk_is_told_with_the_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether Pillow, our own code or FFmpeg meets it, which has an error class of its own."""

    def full(*arguments: object, **options: object) -> None:
        if name in ("a.mp4", "a.webm"):
            raise av.error.FFmpegError(errno.ENOSPC, "No space left on device", "file:x")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mp4.VideoWriter, "finish", full)
    for made in ("_write_pictures", "_write_still"):
        monkeypatch.setattr(writer, made, full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_video(name, numbered(3)[None])
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, name)
    assert not list(Path().iterdir())


def test_a_full_disk_in_a_block_that_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="No space left") as caught, open_mp4("a.mp4", 24):
        raise OSError(errno.ENOSPC, "No space left on device", "b.txt")
    assert caught.value.filename == "a.mp4" and not list(Path().iterdir())
    monkeypatch.setattr(writer, "_write_still", lambda *_: (_ for _ in ()).throw(OSError(errno.EDQUOT, "x")))
    with pytest.raises(OSError) as caught:
        write_folder("frames", numbered(3)[None])
    assert caught.value.filename == "frames" and not list(Path().iterdir())


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("suffix", [".ts", ".mp4", ".mkv", ".avi", ".gif", ".webp"])
def test_the_shortest_videos(suffix: str, count: int) -> None:
    if suffix in (".gif", ".webp"):
        write_video(f"a{suffix}", np.stack([numbered(number) for number in range(count)]), fps=25)
    else:
        write(f"a{suffix}", count, codec="mpeg4" if suffix == ".avi" else "libx264")
    info = probe(f"a{suffix}")
    assert (info.frames, info.fps) == (count, 25) and numbers(read_video(f"a{suffix}")) == list(range(count))
