"""A clip that starts inside a file holds the frames that reading from the start gives."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from opensora.media import container, probe, read_video
from tests.media.material import FAST_VP9, b_frames, copy_packets, numbered, numbers, write

OPEN_GOP = "open-gop=1:keyint=30:min-keyint=30:bframes=4:scenecut=0:log-level=none"
SVT = {"g": "25", "preset": "12"}
FILES: dict[str, dict[str, Any]] = {
    "h264.mp4": {"options": {"g": "25"}},
    "h264.mkv": {"options": {"g": "25"}},
    "h264.ts": {"options": {"g": "25"}},
    "h264.flv": {"options": {"g": "25"}},
    "h264.avi": {"options": {"g": "25"}},
    "h264.h264": {"container": "h264"},
    "refresh.mp4": {"options": {"g": "25", "x264opts": "intra-refresh=1"}},
    "open.mp4": {"options": {"g": "25", "x264opts": "open-gop=1:bframes=3:b-adapt=0"}},
    "open.ts": {"options": {"g": "25", "x264opts": "open-gop=1:bframes=3:b-adapt=0"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": OPEN_GOP}},
    "hevc.ts": {"codec": "libx265", "options": {"x265-params": OPEN_GOP}},
    "hevc.hevc": {"codec": "libx265", "options": {"x265-params": OPEN_GOP}},
    "mpeg2.mpg": {"codec": "mpeg2video", "prepare": b_frames(2, 15)},
    "mpeg2.ts": {"codec": "mpeg2video", "prepare": b_frames(2, 15)},
    "mpeg2.m2v": {"codec": "mpeg2video", "prepare": b_frames(2, 15), "container": "mpeg2video"},
    "mpeg4.avi": {"codec": "mpeg4", "prepare": b_frames(2, 15)},
    "plain.avi": {"codec": "mpeg4", "options": {"g": "15"}},
    "vp8.webm": {"codec": "libvpx", "options": FAST_VP9 | {"g": "25"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": FAST_VP9 | {"g": "25", "lag-in-frames": "16"}},
    "wmv2.wmv": {"codec": "wmv2", "options": {"g": "15"}},
    "bit.avi": {"codec": "rawvideo", "pixels": "monow"},  # their palette comes with the first packet
    "bit.mov": {"codec": "rawvideo", "pixels": "monow"},
    "grey.avi": {"codec": "rawvideo", "pixels": "gray"},
    "interlaced.ts": {
        "codec": "mpeg2video",
        "options": {"flags": "+ildct+ilme"},
        "prepare": b_frames(2, 15),
    },
}


@pytest.mark.parametrize("name", FILES)
def test_every_start_gives_the_frames_of_the_whole(name: str) -> None:
    write(name, **FILES[name])
    info, whole = probe(name), read_video(name)
    assert (info.frames, info.fps, info.height, info.width) == (120, 25, 64, 96)
    assert numbers(whole) == list(range(120))
    for start in (*range(8, 118, 7), 24, 25, 26, 29, 30, 31, 46, 118):
        assert np.array_equal(read_video(name, 2, start=start), whole[start : start + 2]), start
    assert numbers(read_video(name, 5, sample_rate=9, start=40)) == [40, 49, 58, 67, 76]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All frames that are decoded."""
    frames: list[Any] = []
    decode = container.VideoStream.decode

    def count(self: container.VideoStream, packet: Any) -> list[Any]:
        found = decode(self, packet)
        frames.extend(found)
        return found

    monkeypatch.setattr(container.VideoStream, "decode", count)
    return frames


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts", "long.webm"])
def test_the_middle_of_a_long_file_is_not_decoded_from_the_start(name: str, decoded: list[Any]) -> None:
    codec = {"codec": "libvpx"} if name.endswith("webm") else {}
    write(
        name,
        (numbered(number, 32, 40) for number in range(1000)),
        size=(32, 40),
        options={"g": "25"},
        **codec,
    )
    assert numbers(read_video(name, 3, start=777)) == [777, 778, 779]
    assert len(decoded) < 150
    decoded.clear()
    assert numbers(read_video(name, 3)) == [0, 1, 2] and len(decoded) < 50


def test_a_long_mp4_is_not_read_through(monkeypatch: pytest.MonkeyPatch) -> None:
    write("long.mp4", (numbered(number, 32, 40) for number in range(1000)), size=(32, 40))
    seen = []
    packets = container.VideoStream.packets
    monkeypatch.setattr(
        container.VideoStream, "packets", lambda self: (seen.append(p) or p for p in packets(self))
    )
    assert probe("long.mp4").frames == 1000 and len(seen) < 50


def test_a_transport_stream_without_times_is_read_in_order() -> None:
    """In each packet's header the flag of the presentation time is cleared; its bytes become stuffing."""
    content = bytearray(write("timed.ts", 20, codec="mpeg2video", options={"bf": "0"}).read_bytes())
    patched = 0
    for begin in range(0, len(content), 188):
        place = content.find(b"\x00\x00\x01\xe0", begin, begin + 188)
        if place >= 0:
            length = content[place + 8]
            content[place + 7] = 0
            content[place + 9 : place + 9 + length] = b"\xff" * length
            patched += 1
    Path("untimed.ts").write_bytes(content)
    assert patched == 20
    assert numbers(read_video("untimed.ts")) == list(range(20)) and probe("untimed.ts").frames == 20
    assert numbers(read_video("untimed.ts", 3, start=11)) == [11, 12, 13]


def test_a_recording_that_begins_in_the_middle_starts_with_its_first_whole_picture() -> None:
    content = write("whole.ts", options={"g": "25"}).read_bytes()
    Path("cut.ts").write_bytes(content[len(content) // 3 // 188 * 188 :])
    found = numbers(read_video("cut.ts"))
    assert found == list(range(found[0], 120)) and 30 < found[0] < 70 and len(found) == probe("cut.ts").frames
    assert np.array_equal(read_video("cut.ts"), read_video("whole.ts", start=found[0]))
    assert numbers(read_video("cut.ts", 2, start=30)) == found[30:32]


@pytest.mark.parametrize("begin", [Fraction(2), Fraction(12, 5)])
def test_edit_lists_hide_what_comes_before(begin: Fraction) -> None:
    source = write("source.mp4", options={"g": "30"})
    name = copy_packets(source, "cut.mp4", begin)
    first = int(begin * 25)
    assert numbers(read_video(name)) == list(range(first, 120)) and probe(name).frames == 120 - first
    for start in (1, 17, 40, 58):
        assert numbers(read_video(name, 2, start=start)) == [first + start, first + start + 1]


def test_a_file_that_is_cut_off_counts_what_is_there(caplog: pytest.LogCaptureFixture) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    whole = write("whole.mp4", list(frames), size=(64, 64), options={"bf": "0"})
    path = copy_packets(whole, "fast.mp4", Fraction(0), options={"movflags": "+faststart"})
    with av.open(str(path)) as file:
        ends = [entry.pos + entry.size for entry in file.streams.video[0].index_entries]
    Path("half.mp4").write_bytes(path.read_bytes()[: ends[25] + 100])
    assert probe("half.mp4").frames == 26 and "half.mp4 is cut off: it has 26 of its 40 frames" in caplog.text
    assert len(read_video("half.mp4")) == 26
    with pytest.raises(ValueError, match=r"27 frames are needed .* it has 26"):
        read_video("half.mp4", 27)
