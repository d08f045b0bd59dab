"""Colours, transparency, depth and interlacing."""

import logging
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from PIL import Image

from opensora.media import container, probe, read_video
from tests.media.material import numbered, numbers, write

RED = (210, 35, 40)


def flat(height: int, width: int) -> list[np.ndarray]:
    return [np.full((height, width, 3), RED, np.uint8)] * 2


@pytest.mark.parametrize(
    ("size", "matrix", "tag"),
    [
        ((720, 1280), Colorspace.ITU709, None),
        ((1280, 720), Colorspace.ITU709, None),
        ((480, 720), Colorspace.SMPTE170M, None),
        ((576, 720), Colorspace.SMPTE170M, None),
        ((64, 96), Colorspace.ITU709, 1),
        ((720, 1280), Colorspace.SMPTE170M, 6),
        ((64, 96), Colorspace.BT2020, 9),
    ],
)
def test_the_colour_matrix_is_the_named_one_or_goes_by_size(size, matrix, tag) -> None:
    def convert(frame: av.VideoFrame) -> av.VideoFrame:
        converted = frame.reformat(format="yuv420p", dst_colorspace=matrix)
        converted.colorspace = tag or 2
        return converted

    def prepare(stream) -> None:
        if tag is not None:
            stream.codec_context.colorspace = tag

    options = {"crf": "1", "preset": "ultrafast"}
    write("flat.mp4", flat(*size), size=size, convert=convert, prepare=prepare, options=options)
    assert np.abs(read_video("flat.mp4").astype(int) - RED).max() <= 3


def test_a_guessed_matrix_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    container._said.clear()
    options = {"preset": "ultrafast"}
    for name in ("a.mp4", "b.mp4"):
        write(name, flat(720, 1280), size=(720, 1280), options=options)
        probe(name)
    assert [record.getMessage() for record in caplog.records] == [
        "a.mp4 names no colour matrix: read as BT.709, as players read HD; other such files are not listed"
    ]


@pytest.mark.parametrize(("transfer", "kind"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_said_once(transfer: int, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    container._said.clear()

    def prepare(stream) -> None:
        stream.codec_context.color_trc = transfer

    for name in ("a.mp4", "b.mp4"):
        write(name, 3, prepare=prepare)
        probe(name)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"a.mp4 is HDR ({kind}): its colours look pale, convert it with tone mapping")


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("vp9.webm", "libvpx-vp9", "yuva420p"),
        ("vp8.webm", "libvpx", "yuva420p"),
        ("animation.mov", "qtrle", "argb"),
        ("prores.mov", "prores_ks", "yuva444p10le"),
        ("png.mov", "png", "rgba"),
        ("ffv1.mkv", "ffv1", "yuva420p"),
    ],
)
def test_transparent_videos_are_put_on_white(name: str, codec: str, pixels: str) -> None:
    frames = []
    for number in range(30):
        frame = np.dstack([numbered(number), np.full((64, 96), 255, np.uint8)])
        frame[:, -16:] = 0, 0, 0, 0
        frame[56:, :16] = 0, 0, 0, 128
        frames.append(frame)
    options = {"auto-alt-ref": "0", "deadline": "realtime", "g": "10"} if name.endswith("webm") else {}
    write(
        name, frames, codec=codec, pixels=pixels, options=options, convert=lambda f: f.reformat(format=pixels)
    )
    video = read_video(name)
    assert len(video) == 30 and (video[:, :, -12:] > 250).all()
    assert np.abs(video[:, 60:, 4:12].astype(int) - 127).max() < 12
    opaque = [numbered(number) for number in range(30)]
    for frame, expected in zip(video, opaque, strict=True):
        assert np.abs(frame[8:48, 4:72].astype(int) - expected[8:48, 4:72]).mean() < 12
    assert np.array_equal(read_video(name, 3, start=17), video[17:20])


def png(path: str, levels: np.ndarray, kind: int, more: bytes = b"") -> None:
    """A PNG of 16 bits: levels (H, W, channels)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    height, width = levels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    content = (
        chunk(b"IHDR", header) + (chunk(b"tRNS", more) if more else b"") + chunk(b"IDAT", zlib.compress(rows))
    )
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))


def test_pictures_of_16_bits_keep_their_levels() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None, :, None].repeat(8, 0)
    expected = (ramp / 257).round().astype(int)
    for kind, channels in ((0, 1), (2, 3)):
        png("deep.png", ramp.repeat(channels, 2), kind)
        assert np.abs(read_video("deep.png")[0].astype(int) - expected).max() <= 1
    for kind, channels in ((4, 1), (6, 3)):
        png("deep.png", np.dstack([ramp.repeat(channels, 2), np.full_like(ramp, 65535)]), kind)
        assert np.abs(read_video("deep.png")[0].astype(int) - expected).max() <= 1
        png("deep.png", np.dstack([ramp.repeat(channels, 2), np.zeros_like(ramp)]), kind)
        assert (read_video("deep.png") == 255).all()
    png("deep.png", np.full((4, 4, 1), 500, np.uint16), 0, struct.pack(">H", 500))
    assert (read_video("deep.png") == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_pictures_of_every_mode_are_read(mode: str) -> None:
    picture = Image.fromarray(numbered(0b1010110011))
    wide = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    name = "a.jpg" if mode == "CMYK" else "a.png"
    (wide if mode == "I;16" else picture.convert(mode)).save(name)
    assert numbers(read_video(name)) == [0b1010110011]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("field.mp4", "libx264", {"flags": "+ildct+ilme", "x264opts": "tff=1"}),
        ("field.mpg", "mpeg2video", {"flags": "+ildct+ilme"}),
    ],
)
def test_interlaced_videos_are_deinterlaced(name: str, codec: str, options: dict, caplog) -> None:
    """A bar moves by 8 pixels a field: in a frame of two fields its edges are combs."""
    caplog.set_level(logging.INFO)
    container._said.clear()
    frames = []
    for number in range(16):
        frame = np.full((64, 128, 3), 30, np.uint8)
        for field in (0, 1):
            place = 8 * (2 * number + field) % 96
            frame[field::2, place : place + 32] = 220
        frames.append(frame)
    write(name, frames, codec=codec, options=options, size=(64, 128))
    video = read_video(name).astype(int)
    assert len(video) == 16 and "is interlaced: deinterlaced" in caplog.text

    def combs(clip: np.ndarray) -> float:
        middle = clip[2:-2, 8:-8, :, 0]
        return float(np.abs(2 * middle[:, 1:-1] - middle[:, :-2] - middle[:, 2:]).mean())

    assert combs(video) < combs(np.stack(frames).astype(int)) / 3
    assert np.array_equal(read_video(name, 3, start=9), video[9:12])


def test_the_cover_of_a_song_is_no_video() -> None:
    with av.open("song.mp4", "w") as output:
        sound = output.add_stream("aac", rate=44100)
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(numbered(1), format="rgb24").reformat(format="yuvj420p")
        output.mux(cover.encode(picture))
        output.mux(cover.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        silence.sample_rate = 44100
        output.mux(sound.encode(silence))
        output.mux(sound.encode())
    for function in (probe, read_video):
        with pytest.raises(ValueError, match="it has a cover picture, and no video"):
            function("song.mp4")


def test_interlaced_frames_may_change_their_size_and_format() -> None:
    """FFmpeg aborts the process if a filter meets frames of another kind."""

    def frames():
        kinds = [("yuv420p", 96, 64)] * 3 + [("yuv411p", 96, 64)] * 2 + [("yuv420p", 48, 32)] * 2
        for number, (pixels, width, height) in enumerate(kinds):
            frame = av.VideoFrame(width, height, pixels)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            yield frame

    shown = list(container.deinterlaced(frames()))
    assert [(25 * container.frame_time(frame), frame.format.name, frame.width) for frame in shown] == [
        *((number, "yuv420p", 96) for number in range(3)),
        *((number, "yuv411p", 96) for number in (3, 4)),
        *((number, "yuv420p", 48) for number in (5, 6)),
    ]
