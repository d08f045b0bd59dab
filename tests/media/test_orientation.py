"""Pictures and videos are read upright, with square pixels."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from opensora.media import probe, read_video
from opensora.media.reader import iter_frames
from tests.media.material import numbered, numbers, write

ONE = 65536
MATRICES = {  # of a display matrix: a, b, c, d; what it does to the picture
    (1, 0, 0, 1): lambda frame: frame,
    (0, 1, -1, 0): lambda frame: np.rot90(frame, -1),
    (-1, 0, 0, -1): lambda frame: np.rot90(frame, 2),
    (0, -1, 1, 0): lambda frame: np.rot90(frame),
    (-1, 0, 0, 1): lambda frame: frame[:, ::-1],
    (1, 0, 0, -1): lambda frame: frame[::-1],
    (0, 1, 1, 0): lambda frame: frame.swapaxes(0, 1),
    (0, -1, -1, 0): lambda frame: np.rot90(frame.swapaxes(0, 1), 2),
}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", ["turned.mp4", "turned.mov"])
def test_display_matrices(name: str, matrix: tuple[int, int, int, int]) -> None:
    a, b, c, d = (ONE * value for value in matrix)
    write("stored.mp4", 30, options={"g": "10"})
    write(
        name,
        30,
        options={"g": "10"},
        prepare=lambda stream: stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30]),
    )
    expected = np.stack([MATRICES[matrix](frame) for frame in read_video("stored.mp4")])
    assert np.array_equal(read_video(name), expected)
    assert probe(name)[2:] == expected.shape[1:3]
    assert np.array_equal(read_video(name, 2, start=14), expected[14:16])
    small = next(iter(iter_frames(name, size=(20, 30))))
    assert small.shape == (20, 30, 3)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_orientations(suffix: str, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    picture = Image.fromarray(numbered(0b1011000110))
    picture.save(f"a{suffix}", exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(f"a{suffix}") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    assert np.array_equal(read_video(f"a{suffix}")[0], expected)
    assert probe(f"a{suffix}") == (1, 24, *expected.shape[:2])


@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(16, 15), Fraction(8, 9)])
@pytest.mark.parametrize("name", ["wide.mp4", "wide.mkv", "wide.ts"])
def test_pixels_that_are_not_square(name: str, aspect: Fraction) -> None:
    def prepare(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = aspect

    write(name, 12, prepare=prepare)
    size = (64, round(96 * aspect))
    assert probe(name)[2:] == size and numbers(read_video(name)) == list(range(12))
    assert read_video(name, 1).shape == (1, *size, 3)


def test_a_wide_picture_of_mpeg2() -> None:
    """The codec stores the shape of the whole picture."""

    def prepare(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(64 * 16, 96 * 9)

    write("wide.mpg", 12, codec="mpeg2video", prepare=prepare)
    size = (64, round(64 * 16 / 9))
    assert probe("wide.mpg")[2:] == size and numbers(read_video("wide.mpg")) == list(range(12))


def test_turned_pixels_are_stretched_before_turning() -> None:
    def prepare(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        stream.set_display_rotation(90)

    write("phone.mov", 3, prepare=prepare)
    assert probe("phone.mov")[2:] == (192, 64)
    assert numbers(np.rot90(frame, -1) for frame in read_video("phone.mov")) == [0, 1, 2]


def test_a_picture_of_several_is_one_picture() -> None:
    """Phones store previews and depth behind the picture (MPO)."""
    pictures = [Image.fromarray(numbered(number)) for number in (5, 6)]
    pictures[0].save("phone.mpo", save_all=True, append_images=pictures[1:])
    Path("phone.mpo").rename("phone.jpg")
    assert probe("phone.jpg").frames == 1 and numbers(read_video("phone.jpg")) == [5]
