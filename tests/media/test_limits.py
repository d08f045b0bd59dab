"""Small files that would do much harm, and files that are not what they are called."""

import resource
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opensora.media import probe, read_video
from opensora.media.formats import MAX_PIXELS
from opensora.media.writer import write_video
from tests.media.material import numbered, numbers, write


def refused(name: str, message: str) -> None:
    for function in (probe, read_video):
        with pytest.raises(ValueError, match=message) as caught:
            function(name)
        assert name in str(caught.value)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_the_size_that_a_picture_claims_is_checked_first() -> None:
    gif = b"GIF89a" + struct.pack("<HH", 60000, 20000) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    image = b"," + struct.pack("<HHHH", 0, 0, 60000, 20000) + b"\0\x02\x02\x44\x01\0;"
    Path("a.gif").write_bytes(gif + image)
    refused("a.gif", "cannot be read as a picture")
    header = struct.pack(">IIBBBBB", 12000, 12000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1501) * 12000)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    Path("a.png").write_bytes(png)
    with pytest.warns(Image.DecompressionBombWarning):
        refused("a.png", f"12000x12000 are too large, at most {MAX_PIXELS:,} pixels")


def test_frames_outside_of_a_gif_are_cut_off() -> None:
    pictures = [Image.fromarray(numbered(number)) for number in range(2)]
    pictures[0].save("a.gif", save_all=True, append_images=pictures[1:], duration=100)
    content = bytearray(Path("a.gif").read_bytes())
    content[6:10] = struct.pack("<HH", 80, 50)
    Path("a.gif").write_bytes(content)
    info = probe("a.gif")
    assert read_video("a.gif").shape == (2, info.height, info.width, 3)


def test_the_size_that_a_video_claims_is_checked_first() -> None:
    content = write("a.mp4", 3, codec="mpeg4").read_bytes()
    huge = content.replace(struct.pack(">HH", 96, 64), struct.pack(">HH", 60000, 60000))
    assert huge != content
    Path("a.mp4").write_bytes(huge)
    for function in (probe, read_video):
        try:
            function("a.mp4")  # the codec's own size may be right
        except ValueError as error:
            assert "a.mp4" in str(error)


def test_what_would_not_fit_into_memory_is_refused() -> None:
    delays = [60000] + [20] * 3
    pictures = [Image.new("L", (1500, 1500), 60 * number) for number in range(4)]
    pictures[0].save("a.gif", save_all=True, append_images=pictures[1:], duration=delays)
    assert probe("a.gif").frames == 3003
    with pytest.raises(ValueError, match="3003 frames of 1500x1500 take more than 4 GiB: read fewer at once"):
        read_video("a.gif")
    assert read_video("a.gif", 2).shape == (2, 1500, 1500, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp"])
def test_no_other_format_is_opened(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript starts Ghostscript."""
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **_: started.append(words))
    Path(f"a{suffix}").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"
    )
    refused(f"a{suffix}", "cannot be read as a picture")
    Image.fromarray(numbered(1)).save("b.bmp")
    Path(f"b{suffix}").write_bytes(Path("b.bmp").read_bytes())
    refused(f"b{suffix}", "cannot be read as a picture")
    assert not started


def test_a_playlist_does_not_open_other_files() -> None:
    write("secret.ts", 5)
    for text in (
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile secret.ts\n",
    ):
        Path("list.mp4").write_text(text)
        refused("list.mp4", "cannot be read as a video")


def test_a_picture_under_another_ending_is_still_a_picture() -> None:
    Image.fromarray(numbered(37)).save("a.png")
    Path("a.jpg").write_bytes(Path("a.png").read_bytes())
    assert numbers(read_video("a.jpg")) == [37]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".webm", ".mpg", ".flv"])
def test_damaged_videos_are_an_error_or_read(suffix: str) -> None:
    """Whatever is read has the length and size that probing tells."""
    codec = {".avi": "mpeg4", ".webm": "libvpx", ".mpg": "mpeg2video"}.get(suffix, "libx264")
    whole = np.frombuffer(write(f"a{suffix}", 12, codec=codec).read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    for number in range(60):
        damaged = whole.copy() if number % 4 else whole[: rng.integers(1, len(whole))]
        if number % 4:
            reach = min(len(whole), 600 if number % 4 == 1 else len(whole))
            damaged[rng.integers(0, reach, 8)] = rng.integers(0, 256, 8)
        Path(f"a{suffix}").write_bytes(damaged.tobytes())
        try:
            info = probe(f"a{suffix}")
            assert read_video(f"a{suffix}").shape == (info.frames, info.height, info.width, 3)
        except ValueError as error:
            assert f"a{suffix}" in str(error)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a.png", "a.jpg"])
@pytest.mark.parametrize("part", [0.0, 0.4, 0.98])
def test_a_full_disk_is_no_success(name: str, part: float) -> None:
    """A limit on the size of files cuts a write short, as the end of a disk does."""
    frames = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), np.uint8)
    write_video(name, frames)
    size = Path(name).stat().st_size
    Path(name).unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size * part), hard))
    try:
        with pytest.raises(ValueError, match="cannot be written"):
            write_video(name, frames)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(Path().iterdir())


def test_many_frames_on_a_large_canvas_are_refused_at_once() -> None:
    """A GIF of 8000x8000 stores 30 frames of one pixel each in 1 kB."""
    head = b"GIF89a" + struct.pack("<HHBBB", 8000, 8000, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x21\xf9\x04\x04\x05\0\0\0\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    Path("a.gif").write_bytes(head + frame * 30 + b";")
    with pytest.raises(ValueError, match=r"a\.gif cannot be read as a picture: its 30 frames of 8000x8000"):
        probe("a.gif")


def test_the_frames_that_an_index_claims_are_compared_with_the_file() -> None:
    content = bytearray(write("a.mp4", 30).read_bytes())
    for name, offset, values in (
        ("stsz", 4, (1, 10**7)),
        ("stts", 8, (10**7, 512)),
        ("stsc", 8, (1, 10**7, 1)),
    ):
        place = content.find(name.encode()) + 4 + offset
        content[place : place + 4 * len(values)] = struct.pack(f">{len(values)}I", *values)
    Path("a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"it claims 10,000,000 frames in [\d,]+ bytes, the file is damaged"):
        probe("a.mp4")
