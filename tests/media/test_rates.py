"""Files whose frames do not follow one another evenly, or whose container says something else."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from opensora.media import probe, read_video
from opensora.media.reader import iter_frames
from tests.media.material import FAST_VP9, MILLISECOND, b_frames, copy_packets, numbers, write


def shown(times: list[int], fps: float, count: int) -> list[tuple[int, int]]:
    """For each k, the frames that are on screen from a quarter of an interval before k/fps to one after."""
    interval = 1000 / fps
    return [
        tuple(int(np.searchsorted(times, (k + d) * interval + 1, "right")) - 1 for d in (-0.5, 0.5))
        for k in range(count)
    ]  # type: ignore[misc]


def without_default_duration(path: Path) -> Path:
    """Rename the element that states the duration of a frame, as in recordings of a browser."""
    content = path.read_bytes()
    assert content.count(b"\x23\xe3\x83") == 1
    path.write_bytes(content.replace(b"\x23\xe3\x83", b"\x23\x31\x4f"))
    return path


def test_a_recording_of_a_browser_has_its_own_rate() -> None:
    times = [round(1000 * number / 30) for number in range(87)]
    options = FAST_VP9
    write("recorded.webm", 87, "libvpx", 1000, times, options=options)
    without_default_duration(Path("recorded.webm"))
    info = probe("recorded.webm")
    assert (info.frames, info.fps) == (87, 30)
    assert numbers(read_video("recorded.webm")) == list(range(87))
    assert numbers(read_video("recorded.webm", 3, start=40)) == [40, 41, 42]


def test_a_recording_that_jitters_keeps_every_frame() -> None:
    jitter = np.random.default_rng(2).integers(-9, 10, 90)
    times = (np.arange(90) * 100 / 3 + jitter).round().astype(int)
    write("jitter.webm", 90, "libvpx", 1000, (times - times[0]).tolist(), options=FAST_VP9)
    without_default_duration(Path("jitter.webm"))
    info = probe("jitter.webm")
    assert info.fps == pytest.approx(30, rel=0.01) and info.frames in (90, 91)
    assert numbers(read_video("jitter.webm"))[:90] == list(range(90))


@pytest.mark.parametrize("name", ["held.mkv", "held.mp4", "held.mov"])
def test_frames_that_are_held_fill_their_time(name: str) -> None:
    gaps = np.random.default_rng(0).choice([1, 1, 2, 5, 18], 50)
    slots = np.concatenate([[0], np.cumsum(gaps)])[:-1]
    write(name, 50, rate=30, times=slots.tolist(), tick=Fraction(1, 30))
    info = probe(name)
    expected = np.repeat(np.arange(50), np.append(np.diff(slots), 1))
    assert info.fps == 30 and info.frames in (len(expected), len(expected) + gaps[-1] - 1)
    found = numbers(read_video(name))
    assert found[: len(expected)] == expected.tolist() and len(found) == info.frames
    for start in range(0, len(expected) - 3, 11):
        assert numbers(read_video(name, 3, start=start)) == expected[start : start + 3].tolist()


@pytest.mark.parametrize("name", ["phone.mp4", "phone.mkv"])
def test_a_rate_that_varies_is_read_by_time(name: str) -> None:
    gaps = np.random.default_rng(3).integers(20, 70, 120)
    times = np.concatenate([[0], np.cumsum(gaps)])[:-1].tolist()
    write(name, 120, rate=1000, times=times)
    info = probe(name)
    assert 15 < info.fps <= 60 and info.frames == pytest.approx(times[-1] / 1000 * info.fps, abs=2)
    found = numbers(read_video(name))
    assert len(found) == info.frames
    for number, (low, high) in zip(found, shown(times, info.fps, info.frames), strict=True):
        assert low <= number <= high
    middle = info.frames // 2
    assert numbers(read_video(name, 4, start=middle)) == found[middle : middle + 4]


def test_a_pause_counts_alike_in_all_readers() -> None:
    times = [0, 40, 80, 1000, 1040, 1080, 1120]
    write("pause.mkv", 7, rate=1000, times=times)
    info = probe("pause.mkv")
    assert (info.frames, info.fps) == (29, 25)
    expected = [0, 1, *[2] * 23, 3, 4, 5, 6]
    assert numbers(read_video("pause.mkv")) == expected == numbers(iter_frames("pause.mkv"))
    assert numbers(read_video("pause.mkv", sample_rate=4, start=2)) == expected[2::4]
    assert numbers(read_video("pause.mkv", 29)) == expected
    with pytest.raises(ValueError, match=r"30 frames are needed .* it has 29"):
        read_video("pause.mkv", 30)


@pytest.mark.parametrize(("fps", "step"), [(5, 5), (12.5, 2), (25, 1), (50, 0.5), (10, 2.5)])
def test_other_rates_show_what_is_on_screen_then(fps: float, step: float) -> None:
    write("video.mp4", 60)
    expected = [int(number * step) for number in range(int(60 / step))]
    assert probe("video.mp4", fps=fps) == (len(expected), fps, 64, 96)
    assert numbers(read_video("video.mp4", fps=fps)) == expected
    assert numbers(read_video("video.mp4", 3, sample_rate=2, start=4, fps=fps)) == expected[4:9:2]


def test_one_rate_for_videos_of_different_rates() -> None:
    for rate in (24, 25, 30, 60):
        write(f"{rate}.mp4", 2 * rate, rate=rate)
        assert probe(f"{rate}.mp4", fps=15).frames == 30
        assert numbers(read_video(f"{rate}.mp4", fps=15)) == [int(k * rate / 15) for k in range(30)]


def test_times_that_begin_late_are_no_pause() -> None:
    write("late.mkv", 20, rate=1000, times=[5000 + 40 * number for number in range(20)])
    assert probe("late.mkv")[:2] == (20, 25) and numbers(read_video("late.mkv")) == list(range(20))


def test_reordered_frames_in_avi_are_counted() -> None:
    """Xvid and DivX name their codec with other letters."""
    source = write("source.avi", codec="mpeg4", prepare=b_frames(2, 15))
    Path("xvid.avi").write_bytes(source.read_bytes().replace(b"FMP4", b"XVID"))
    assert probe("xvid.avi").frames == 120 and numbers(read_video("xvid.avi")) == list(range(120))
    assert numbers(read_video("xvid.avi", 5, start=31)) == [31, 32, 33, 34, 35]


def test_a_last_frame_in_the_far_future_is_damage() -> None:
    path = write("far.mkv", 6, codec="mjpeg", rate=1000, times=[40 * n for n in range(6)], pixels="yuvj420p")
    info = probe(path)
    assert info.frames == 6
    write("far.mkv", 6, codec="mjpeg", rate=1000, times=[*range(0, 200, 40), 2**31], pixels="yuvj420p")
    for function in (probe, read_video):
        with pytest.raises(ValueError, match=r"far\.mkv cannot be read .* the times of its frames jump"):
            function("far.mkv")


def test_a_clock_that_starts_again_does_not_stop_a_transport_stream() -> None:
    """As after joining two recordings byte by byte."""
    write("one.ts", 30, options={"bf": "0"})
    content = Path("one.ts").read_bytes()
    Path("two.ts").write_bytes(content + content)
    assert numbers(read_video("two.ts")) == [*range(30), *range(30)] and probe("two.ts").frames == 60


def test_an_empty_edit_only_delays() -> None:
    source = write("source.mp4", 40, options={"bf": "0"})
    copy_packets(source, "delayed.mp4", Fraction(-1))
    assert probe("delayed.mp4").frames == 40 and numbers(read_video("delayed.mp4")) == list(range(40))


def test_the_clock_of_a_container_may_be_coarse() -> None:
    content = write("coarse.mp4", 60, rate=24, options={"bf": "0"}).read_bytes()
    assert struct.pack(">I", 12288) in content
    times = [round(number * 1000 / 24) for number in range(60)]
    write("coarse.mp4", 60, rate=1000, times=times, tick=MILLISECOND)
    assert probe("coarse.mp4")[:2] == (60, 24) and numbers(read_video("coarse.mp4")) == list(range(60))


@pytest.mark.parametrize("container", ["h264", "hevc"])
def test_a_raw_stream_has_the_rate_of_its_headers(container: str) -> None:
    codec = {"h264": "libx264", "hevc": "libx265"}[container]
    write(f"a.{container}", 20, codec=codec, rate=10, container=container)
    assert probe(f"a.{container}").fps == 10
