"""GIF, WebP and APNG: what is held is held, and what the product writes reads back."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opensora.media import probe, read_video
from opensora.media.writer import write_video
from tests.media.material import numbered, numbers


def animation(path: str, delays: list[int], **options: object) -> None:
    pictures = [Image.fromarray(numbered(number)) for number in range(len(delays))]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=delays, **options)


FORMATS = pytest.mark.parametrize("path", ["a.gif", "a.webp", "a.png", "a.apng"])


@FORMATS
@pytest.mark.parametrize(
    ("delays", "fps", "shown"),
    [
        ([40, 40, 200, 40], 25, [0, 1, 2, 2, 2, 2, 2, 3]),
        ([80, 600], 25, [0] * 2 + [1] * 15),
        ([1000, 1000, 3000], 1, [0, 1, 2, 2, 2]),
        ([20] * 10, 50, list(range(10))),
        ([100] * 3 + [500], 10, [0, 1, 2, 3, 3, 3, 3, 3]),
    ],
)
def test_held_frames_are_held(path: str, delays: list[int], fps: int, shown: list[int]) -> None:
    animation(path, delays, **({"format": "PNG"} if path == "a.apng" else {}))
    assert probe(path) == (len(shown), fps, 64, 96)
    assert numbers(read_video(path)) == shown
    assert numbers(read_video(path, 2, sample_rate=2, start=1)) == shown[1:4:2]
    assert numbers(read_video(path, fps=2 * fps)) == [number for number in shown for _ in range(2)]


@FORMATS
@pytest.mark.parametrize("delay", [0, 10])
def test_delays_that_are_too_short_take_a_tenth_of_a_second(path: str, delay: int) -> None:
    animation(path, [delay] * 4, loop=3, **({"format": "PNG"} if path == "a.apng" else {}))
    assert probe(path) == (4, 10, 64, 96) and numbers(read_video(path)) == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize("fps", [24, 25, 10, 30, 50, 12.5, 23.976])
@pytest.mark.parametrize(
    "shown", [[n // 2 for n in range(17)], [0] * 17, list(range(17)), [0, 0] + [1] * 15, [0, *[1] * 4, 0]]
)
def test_what_is_written_reads_back(suffix: str, fps: float, shown: list[int]) -> None:
    """Of equal frames in a row the formats keep one."""
    frames = np.stack([numbered(number) for number in shown])
    write_video(f"a{suffix}", frames, fps)
    info = probe(f"a{suffix}")
    assert info.frames == len(shown) and info.fps == pytest.approx(fps, abs=1e-3)
    assert numbers(read_video(f"a{suffix}")) == shown


def test_a_gif_keeps_its_rate_on_average() -> None:
    write_video("a.gif", np.stack([numbered(number) for number in range(25)]), 24)
    with Image.open("a.gif") as picture:
        delays = []
        for number in range(25):
            picture.seek(number)
            delays.append(picture.info["duration"])
    assert set(delays) == {40, 50} and sum(delays) == 1040


def test_the_rate_that_a_gif_cannot_have_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write_video("a.gif", np.stack([numbered(number) for number in range(17)]), 60)
    assert "a GIF plays at 50 frames per second at most, not 60" in caplog.text
    assert probe("a.gif")[:2] == (17, 50) and numbers(read_video("a.gif")) == list(range(17))


def test_a_changed_file_is_not_what_its_comment_says() -> None:
    write_video("a.gif", np.stack([numbered(number) for number in range(17)]), 10)
    with Image.open("a.gif") as picture:
        comment = picture.info["comment"]
    animation("a.gif", [100] * 5, comment=comment)
    assert probe("a.gif").frames == 5 and numbers(read_video("a.gif")) == [0, 1, 2, 3, 4]


def test_transparent_animations_are_put_on_white() -> None:
    pictures = []
    for number in range(3):
        frame = np.dstack([numbered(number), np.full((64, 96), 255, np.uint8)])
        frame[48:] = 0
        pictures.append(Image.fromarray(frame))
    for path in ("a.png", "a.gif"):
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, disposal=2)
        assert (read_video(path)[:, 52:] > 250).all()


@pytest.mark.parametrize("path", ["a.webp", "a.png", "a.apng"])
def test_every_degree_of_transparency_is_put_on_white(path: str) -> None:
    alphas, pictures = [255, 128, 0, 64, 255], []
    for number, alpha in enumerate(alphas):
        pictures.append(Image.fromarray(np.full((32, 48, 4), (10 * number, 50, 200, alpha), np.uint8)))
    kind = {"lossless": True, "exact": True} if path == "a.webp" else {"format": "PNG", "blend": 0}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, **kind)
    for number, (alpha, frame) in enumerate(zip(alphas, read_video(path), strict=True)):
        white = np.array([10 * number, 50, 200]) * alpha / 255 + 255 - alpha
        assert np.abs(frame - white).max() <= 1


def test_the_picture_for_programs_without_animations_is_not_shown() -> None:
    pictures = [Image.fromarray(numbered(number)) for number in (9, 0, 1, 2)]
    options = {"save_all": True, "append_images": pictures[1:], "duration": 40, "default_image": True}
    pictures[0].save("a.png", **options)
    assert probe("a.png").frames == 3 and numbers(read_video("a.png")) == [0, 1, 2]
    assert numbers(read_video("a.png", 1, start=1)) == [1]


def test_a_file_that_is_replaced_is_read_anew() -> None:
    for length in (3, 5):
        animation("a.gif", [100] * length)
        assert probe("a.gif").frames == length
    Path("a.gif").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        probe("a.gif")
