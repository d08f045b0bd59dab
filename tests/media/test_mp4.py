"""Streaming .mp4 files: the sound of another file, memory, and what an error leaves behind."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from opensora.media import probe
from opensora.media.mp4 import open_mp4

RATE = 16000
FRAMES, FPS = 48, 24


def picture(number: int) -> np.ndarray:
    return np.full((48, 64, 3), 5 * number % 256, np.uint8)


def write_source(path: Path, codec: str, layout: str = "mono", silence: float = 0.0) -> Path:
    """Two seconds of grey frames with clicks: half a second apart, one sample each, the first at 0.25 s.

    silence: seconds by which the sound begins later than the video.
    """
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=FPS)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        audio: Any = container.add_stream(codec, rate=RATE, layout=layout)
        for number in range(FRAMES):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(video.encode())
        samples = np.zeros((1, 2 * RATE), np.int16)
        samples[0, RATE // 4 :: RATE // 2] = 30000
        channels = len(audio.codec_context.layout.channels)
        resampler = av.AudioResampler(
            audio.codec_context.format.name, layout, RATE, audio.codec_context.frame_size or 1024
        )
        sound = av.AudioFrame.from_ndarray(np.repeat(samples, channels, 0), format="s16p", layout=layout)
        sound.sample_rate, sound.pts, sound.time_base = RATE, round(silence * RATE), Fraction(1, RATE)
        for part in (*resampler.resample(sound), *resampler.resample(None), None):
            container.mux(audio.encode(part))
    return path


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def click_times(path: Path) -> list[float]:
    """Seconds from the first frame of the video to the loudest sample of each click."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        start = float((video.start_time or 0) * video.time_base)
        loud: list[tuple[float, float]] = []
        for frame in container.decode(audio=0):
            samples = np.abs(frame.to_ndarray().astype(np.float64).reshape(len(frame.layout.channels), -1)[0])
            loud += [(frame.time - start + i / frame.sample_rate, s) for i, s in enumerate(samples)]
    half = max(level for _, level in loud) / 2
    times: list[float] = []
    for time, level in loud:
        if level > half and (not times or time - times[-1] > 0.1):
            times.append(time)
    return times


def copy(source: Path, target: Path) -> Path:
    with open_mp4(target, FPS, audio=source) as writer:
        for number in range(FRAMES):
            writer.write(picture(number))
    return target


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "aac"), ("mkv", "libopus"), ("mov", "alac"), ("avi", "libmp3lame")]
)
def test_sound_that_mp4_can_hold_is_copied(tmp_path, suffix, codec):
    source = write_source(tmp_path / f"in.{suffix}", codec)
    target = copy(source, tmp_path / "out.mp4")
    assert packets(target) == packets(source)
    assert click_times(target) == pytest.approx(click_times(source), abs=0.03)


@pytest.mark.parametrize(
    ("suffix", "codec", "layout"),
    [("mkv", "pcm_s16le", "mono"), ("avi", "pcm_s16le", "stereo"), ("ts", "mp2", "stereo")],
)
def test_other_sound_is_encoded_again_and_stays_in_time(tmp_path, suffix, codec, layout):
    source = write_source(tmp_path / f"in.{suffix}", codec, layout)
    target = copy(source, tmp_path / "out.mp4")
    with av.open(str(target)) as container:
        codec_context = container.streams.audio[0].codec_context
        assert (codec_context.name, codec_context.layout.name, codec_context.sample_rate) == (
            "aac",
            layout,
            RATE,
        )
    assert click_times(target) == pytest.approx([0.25, 0.75, 1.25, 1.75], abs=0.03)


def test_sound_of_transport_streams_plays(tmp_path):
    target = copy(write_source(tmp_path / "in.ts", "aac"), tmp_path / "out.mp4")
    assert click_times(target) == pytest.approx([0.25, 0.75, 1.25, 1.75], abs=0.03)


def test_sound_that_begins_late_stays_late(tmp_path):
    source = write_source(tmp_path / "in.mp4", "aac", silence=0.5)
    assert click_times(copy(source, tmp_path / "out.mp4")) == pytest.approx(
        [0.75, 1.25, 1.75, 2.25], abs=0.03
    )


def test_sound_and_video_are_interleaved(tmp_path):
    target = copy(write_source(tmp_path / "in.mp4", "aac"), tmp_path / "out.mp4")
    with av.open(str(target)) as container:
        kinds = [packet.stream.type for packet in container.demux() if packet.size]
    middle = kinds[len(kinds) // 4 : -len(kinds) // 4]
    assert set(middle) == {"video", "audio"}


def test_videos_without_sound_and_pictures_add_none(tmp_path):
    with open_mp4(tmp_path / "silent.mp4", FPS) as writer:
        writer.write(picture(1))
    target = copy(tmp_path / "silent.mp4", tmp_path / "out.mp4")
    with av.open(str(target)) as container:
        assert not container.streams.audio
    assert probe(target)[:2] == (FRAMES, FPS)


def test_an_error_in_the_block_leaves_no_file(tmp_path):
    def frames() -> Iterator[np.ndarray]:
        yield picture(0)
        raise ValueError("in.mp4 cannot be read")

    with pytest.raises(ValueError, match=r"in\.mp4"), open_mp4(tmp_path / "out.mp4", FPS) as writer:
        for frame in frames():
            writer.write(frame)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(ValueError, match=r"missing/out\.mp4 cannot be written"),
        open_mp4(tmp_path / "missing" / "out.mp4", FPS),
    ):
        pass


def test_sound_whose_layout_changes_is_encoded_on(tmp_path):
    """As between the programmes of a broadcast; of a clock that starts again, the first part is kept."""
    parts = [write_source(tmp_path / f"{layout}.ts", "mp2", layout) for layout in ("stereo", "mono")]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert click_times(copy(joined, tmp_path / "out.mp4")) == pytest.approx(
        click_times(copy(parts[0], tmp_path / "first.mp4")), abs=0.02
    )
