import numpy as np
import pytest
from PIL import Image

from opensora.files import read_sidecar, write_json
from opensora.media.names import safe_name
from opensora.media.pixels import to_bytes, to_pixels
from opensora.media.reader import probe, read_video
from opensora.media.sheets import contact_sheet, video_sheet
from opensora.media.writer import write_folder, write_video


def gradient(length: int = 12, height: int = 32, width: int = 48) -> np.ndarray:
    """Frame t has the grey level 20 t + 10 in all places, so that a frame read back tells its number."""
    return np.broadcast_to(
        (np.arange(length, dtype=np.uint8) * 20 + 10)[:, None, None, None], (length, height, width, 3)
    ).copy()


def numbers(frames: np.ndarray) -> list[int]:
    return [round((int(level) - 10) / 20) for level in frames[:, 0, 0, 0]]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "gradient.mp4"
    write_video(path, gradient(), fps=24)
    return path


def test_mp4_keeps_size_rate_and_pixels(video):
    info = probe(video)
    assert (info.frames, info.fps, info.height, info.width) == (12, 24.0, 32, 48)
    assert np.abs(read_video(video).astype(int) - gradient()).max() <= 2


def test_mp4_is_what_browsers_play(video):
    import av

    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    content = video.read_bytes()
    assert content.find(b"moov") < content.find(b"mdat")


def test_mp4_bytes_are_the_same_every_time(video, tmp_path):
    write_video(tmp_path / "again.mp4", gradient(), fps=24)
    assert (tmp_path / "again.mp4").read_bytes() == video.read_bytes()


@pytest.mark.parametrize("colour", [(135, 206, 235), (210, 35, 40), (255, 220, 50), (255, 255, 255)])
def test_mp4_colours_survive(tmp_path, colour):
    frames = np.full((3, 16, 16, 3), colour, np.uint8)
    write_video(tmp_path / "flat.mp4", frames)
    assert np.abs(read_video(tmp_path / "flat.mp4").astype(int) - frames).max() <= 2


def test_odd_sizes_are_padded_with_their_edge(tmp_path):
    write_video(tmp_path / "odd.mp4", gradient(3, 17, 31))
    assert probe(tmp_path / "odd.mp4")[2:] == (18, 32)
    assert numbers(read_video(tmp_path / "odd.mp4")[:, -1:, -1:]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("start", "rate", "length"), [(0, 1, 12), (0, 3, 4), (1, 1, 11), (5, 2, 3), (11, 1, 1), (7, 4, 2)]
)
def test_reading_starts_and_skips_exactly(video, start, rate, length):
    assert numbers(read_video(video, length, rate, start)) == list(range(start, 12, rate))[:length]


def test_reading_without_a_number_reads_to_the_end(video):
    assert numbers(read_video(video, sample_rate=5, start=1)) == [1, 6, 11]


def test_seeking_past_key_frames_is_exact(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    write_video(tmp_path / "long.mp4", frames, fps=23.976)
    whole = read_video(tmp_path / "long.mp4")
    assert len(whole) == 300
    for start in (1, 100, 249, 250, 251, 299):
        assert (read_video(tmp_path / "long.mp4", 1, start=start)[0] == whole[start]).all()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_are_read_back(tmp_path, suffix):
    path = tmp_path / f"loop{suffix}"
    write_video(path, gradient(), fps=10)
    assert probe(path) == (12, 10.0, 32, 48)
    assert numbers(read_video(path, 4, sample_rate=2, start=3)) == [3, 5, 7, 9]


def test_one_picture_is_exact_in_png_and_transparency_is_white(tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (1, 9, 7, 3), np.uint8)
    write_video(tmp_path / "still.png", frame)
    assert (read_video(tmp_path / "still.png") == frame).all()
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_video(tmp_path / "clear.png", 1) == 255).all()


@pytest.mark.parametrize("name", ["gradient.mp4", "loop.gif"])
def test_too_few_frames_is_an_error_with_both_numbers(video, tmp_path, name):
    path = video if name.endswith("mp4") else tmp_path / name
    if path != video:
        write_video(path, gradient())
    with pytest.raises(
        ValueError, match=rf"{name} is too short: 21 frames are needed \(from frame 0, every 5\), it has 12"
    ):
        read_video(path, 5, 5)
    with pytest.raises(ValueError, match="too short"):
        read_video(path, start=12)


@pytest.mark.parametrize("name", ["broken.mp4", "broken.gif", "broken.png"])
def test_damaged_and_missing_files_are_named(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} does not exist"):
        read_video(tmp_path / name)
    (tmp_path / name).write_bytes(b"not a picture")
    for function in (read_video, probe):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a"):
            function(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp"])
def test_damaged_bytes_are_an_error_that_names_the_file_or_none(tmp_path, name):
    rng = np.random.default_rng(0)
    path = tmp_path / name
    write_video(path, gradient(3))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    failures = 0
    for number in range(60):
        damaged = whole.copy() if number % 3 else whole[: rng.integers(1, len(whole))]
        if number % 3:
            reach = len(whole) if number % 3 == 1 else 200
            damaged[rng.integers(0, min(reach, len(whole)), 10)] = rng.integers(0, 256, 10)
        path.write_bytes(damaged.tobytes())
        for function in (read_video, probe):
            try:
                function(path)
            except ValueError as error:
                failures += 1
                assert name in str(error)
    assert failures > 10


def test_a_video_whose_codec_is_unknown_is_named(video, tmp_path):
    (tmp_path / "odd.mp4").write_bytes(video.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(ValueError, match=r"odd\.mp4 cannot be read as a video: its codec is unknown"):
        read_video(tmp_path / "odd.mp4")


def test_truncated_video_is_named(video, tmp_path):
    (tmp_path / "half.mp4").write_bytes(video.read_bytes()[:700])
    with pytest.raises(ValueError, match=r"half\.mp4"):
        read_video(tmp_path / "half.mp4", 12)


@pytest.mark.parametrize(
    ("name", "length", "message"), [("a.avi", 1, "ends in .mp4"), ("a.png", 2, "cannot hold 2 frames")]
)
def test_unwritable_formats_are_explained(tmp_path, name, length, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, gradient(length))


def test_wrong_arrays_are_explained(tmp_path):
    for frames in (gradient().astype(np.float32), gradient()[0], gradient(0)):
        with pytest.raises(ValueError, match="frames must be uint8"):
            write_video(tmp_path / "a.mp4", frames)


def test_a_rate_of_nothing_is_refused(tmp_path):
    for suffix in (".mp4", ".gif", ".webp"):
        with pytest.raises(ValueError, match="fps 0 is not a frame rate"):
            write_video(tmp_path / f"a{suffix}", gradient(), 0)


def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be written"):
        write_video(path, np.zeros((1, 2, 40000, 3), np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"] and path.read_bytes() == b"old"


def test_missing_folder_is_named(tmp_path):
    for suffix in (".mp4", ".gif", ".png"):
        with pytest.raises(ValueError, match="cannot be written"):
            write_video(tmp_path / "nowhere" / f"a{suffix}", gradient(1))


def test_video_sheet_enlarges_small_frames_by_a_whole_factor():
    video = gradient(2, 100, 64)
    sheet = video_sheet(video)
    assert sheet.shape == (200, 256, 3)
    assert (sheet[::2, :128:2] == video[0]).all() and (sheet[1::2, 129::2] == video[1]).all()
    assert video_sheet(gradient(1, 300, 64)).shape == (300, 64, 3)


def test_contact_sheet_fills_rows_then_white():
    sheet = contact_sheet(gradient(5, 2, 3), columns=3)
    assert sheet.shape == (4, 9, 3)
    assert sheet[::2, ::3, 0].tolist() == [[10, 30, 50], [70, 90, 255]]
    assert contact_sheet(gradient(5, 2, 3)).shape == (4, 9, 3)
    assert contact_sheet(gradient(2, 2, 3), columns=8).shape == (2, 6, 3)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("an elephant on a sky blue background", "0007-an_elephant_on_a_sky_blue_background"),
        ("../../etc/passwd", "0007-etc_passwd"),
        ("C:\\temp\\con", "0007-C_temp_con"),
        ("con", "0007-con"),
        ("", "0007"),
        (" ... ?!", "0007"),
        ("\x00a\nb\ud800", "0007-a_b"),
        ("象は空色の背景に", "0007-象は空色の背景に"),
    ],
)
def test_safe_names(prompt, name):
    assert safe_name(prompt, 7) == name


@pytest.mark.parametrize("letter", ["a", "é", "象", "한"])
def test_long_prompts_give_short_names_that_a_file_system_takes(tmp_path, letter):
    name = safe_name(letter * 10_000, 12345)
    assert len(name.encode()) <= 126
    write_video(tmp_path / f"{name}.png", gradient(1))


def test_json_is_readable_and_leaves_no_temporary_file(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, 2]})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_sidecar(tmp_path / "a.json") == {"é": [1, 2]}


@pytest.mark.parametrize("content", [None, b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_json_of_somebody_else_is_empty(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    assert read_sidecar(tmp_path / "a.json") == {}


def test_pixels_and_bytes():
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(2, 1, 8, 16, 3)
    pixels = to_pixels(frames)
    assert (
        pixels.shape == (2, 3, 1, 8, 16)
        and pixels.dtype == np.float32
        and (pixels.min(), pixels.max()) == (-1, 1)
    )
    # Cut off below: a level that is missed by rounding only becomes the one beneath.
    assert set(np.unique(to_bytes(pixels).astype(int) - frames)) <= {-1, 0}
    assert to_bytes(np.array([-2, -1, 0.999, 1, 2], np.float32).reshape(1, 1, 1, 1, 5)).ravel().tolist() == [
        0,
        0,
        254,
        255,
        255,
    ]


@pytest.mark.parametrize("suffix", [".mov", ".mkv", ".webm"])
def test_other_containers_are_close_and_repeat(tmp_path, suffix):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}{suffix}", gradient(5, 31, 48), fps=8)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert probe(tmp_path / f"a{suffix}") == (5, 8.0, 32, 48)
    difference = read_video(tmp_path / f"a{suffix}")[:, :31].astype(int) - gradient(5, 31, 48)
    assert np.abs(difference).mean() < 2


def test_a_folder_of_pictures_is_new(tmp_path):
    write_folder(tmp_path / "frames", gradient(3))
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == [f"0000{n}.png" for n in range(3)]
    assert (read_video(tmp_path / "frames" / "00002.png")[0] == gradient(3)[2]).all()
    with pytest.raises(ValueError, match="frames cannot be written: Directory not empty"):
        write_folder(tmp_path / "frames", gradient(2))
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]
