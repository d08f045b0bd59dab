"""`opensora reconstruct` from the words of the command line to the files."""

import json
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.cli import main
from opensora.media.pixels import to_bytes, to_pixels
from opensora.media.reader import probe, read_video
from opensora.media.writer import write_video
from opensora.metrics.pixels import psnr, ssim
from opensora.models import CausalVAE, Tiling
from opensora.models.causal_vae.policy import SMALL, VAEPolicy
from opensora.reconstruct import run as command
from opensora.reconstruct.options import ReconstructOptions
from opensora.reconstruct.plan import plan
from opensora.reconstruct.run import open_autoencoder, reconstruct_frames


def clip(seed: int, frames: int = 5, height: int = 32, width: int = 32) -> np.ndarray:
    return (
        np.random.default_rng(seed)
        .integers(0, 256, (frames, height // 4, width // 4, 3), np.uint8)
        .repeat(4, 1)
        .repeat(4, 2)
    )


def run(*words: str) -> int:
    return main(["reconstruct", "--model_path", "model", *words])


def run_folder(*words: str, out: str = "out") -> int:
    return run("--real_video_dir", "real", "--generated_video_dir", out, *words)


def contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture
def vae(model: Path) -> CausalVAE:
    return CausalVAE.from_pretrained(model / "vae", engine="openvino")


@pytest.fixture
def real(model: Path) -> Path:
    """Three files of one size after cropping, one of which is a picture."""
    folder = Path("real")
    folder.mkdir()
    write_video(folder / "a.mp4", clip(0), fps=10)
    write_video(folder / "b.gif", clip(1, 4), fps=20)
    write_video(folder / "c.png", clip(2, 1, 36, 36))
    return folder


def test_frames_are_those_of_the_autoencoder(vae: CausalVAE) -> None:
    frames = clip(0)
    decoded = vae.decode(vae.encode(ms.Tensor(to_pixels(frames[None]))).mean).asnumpy()
    assert np.array_equal(reconstruct_frames(vae, frames[None]), to_bytes(decoded))
    # Four frames are filled up with a copy of the last, and what that becomes is cut off.
    filled = np.concatenate([frames[:4], frames[3:4]])
    assert np.array_equal(
        reconstruct_frames(vae, frames[None, :4])[0], reconstruct_frames(vae, filled[None])[0, :4]
    )
    pair = np.stack([frames, clip(1)])
    assert np.array_equal(reconstruct_frames(vae, pair)[1:], reconstruct_frames(vae, pair[1:]))


def test_one_file(vae: CausalVAE, capfd: pytest.CaptureFixture[str]) -> None:
    write_video("a.mp4", clip(0, 9), fps=10)
    assert (
        run("--video_path", "a.mp4", "--rec_path", "made/rec.mp4", "--num_frames", "5", "--sample_rate", "2")
        == 0
    )
    source = read_video("a.mp4")[::2]
    result = reconstruct_frames(vae, source[None])[0]
    assert probe("made/rec.mp4") == (5, 5.0, 32, 32)
    write_video("expected.mp4", result, fps=5)
    assert Path("made/rec.mp4").read_bytes() == Path("expected.mp4").read_bytes()
    figures = json.loads(Path("made/rec.mp4.json").read_text())["figures"]
    assert figures["psnr"] == pytest.approx(
        np.mean([psnr(x, y) for x, y in zip(result, source, strict=True)])
    )
    assert figures["ssim"] == pytest.approx(
        np.mean([ssim(x, y) for x, y in zip(result, source, strict=True)])
    )
    table = capfd.readouterr().out.splitlines()
    assert table[1].split() == ["a.mp4", "5", "32x32", f"{figures['psnr']:.2f}", f"{figures['ssim']:.4f}"]
    assert sorted(path.name for path in Path("made").iterdir()) == ["rec.mp4", "rec.mp4.json"]


def test_a_picture(vae: CausalVAE, real: Path) -> None:
    assert run("--video_path", "real/c.png", "--rec_path", "rec.png", "--grid") == 0
    middle = clip(2, 1, 36, 36)[:, 2:34, 2:34]
    assert np.array_equal(
        read_video("rec.png"), np.concatenate([middle, reconstruct_frames(vae, middle[None])[0]], axis=2)
    )
    assert run("--video_path", "real/c.png", "--rec_path", "rec.jpg") == 0
    assert probe("rec.jpg").frames == 1


def test_a_folder_with_broken_files(real: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (real / "broken.mp4").write_bytes(b"not a video")
    (real / "empty.webm").touch()
    (real / "small.png").write_bytes((real / "c.png").read_bytes())
    write_video(real / "small.png", clip(3, 1, 8, 8))
    assert run_folder("--output_origin", "--grid", "--fps", "30", "--num_workers", "2") == 1
    said = capfd.readouterr()
    assert "skipping broken.mp4: real/broken.mp4 cannot be read as a video" in said.err
    assert "b.gif has only 4 of 65 frames" in said.err
    summary = json.loads(Path("out/reconstruct.json").read_text())
    assert [item["file"] for item in summary["files"]] == ["a.mp4", "b.gif", "c.png"]
    assert [item["file"] for item in summary["skipped"]] == ["broken.mp4", "empty.webm", "small.png"]
    assert summary["total"]["ssim"] == pytest.approx(np.mean([item["ssim"] for item in summary["files"]]))
    assert said.out.splitlines()[-1].split()[:3] == ["all", "(3)", "10"]
    names = ["a.mp4", "b.mp4", "c.png"]
    assert sorted(contents("out")) == sorted(
        ["out/reconstruct.json", *(f"out/{name}{end}" for name in names for end in ("", ".json"))]
        + [f"out/origin/{name}" for name in names]
    )
    assert probe("out/a.mp4") == (5, 30.0, 32, 64)
    assert np.array_equal(read_video("out/origin/c.png"), clip(2, 1, 36, 36)[:, 2:34, 2:34])
    assert np.array_equal(read_video("out/c.png")[:, :, :32], read_video("out/origin/c.png"))


def test_a_folder_of_broken_files(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("real").mkdir()
    Path("real/a.mp4").touch()
    assert run_folder() == 2
    assert "none of 1 files could be reconstructed: real/a.mp4 cannot be read" in capfd.readouterr().err
    assert run("--video_path", "real/a.mp4", "--rec_path", "rec.mp4") == 2
    assert capfd.readouterr().err.startswith("opensora: real/a.mp4 cannot be read as a video")


def test_an_interrupted_run_continues(
    real: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    original, written = command.write_video, []

    def interrupted(path: Path, *values: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path.name)
        original(path, *values)

    monkeypatch.setattr(command, "write_video", interrupted)
    assert run_folder() == 130
    monkeypatch.setattr(command, "write_video", original)
    before = Path("out/a.mp4").stat().st_mtime_ns
    capfd.readouterr()
    assert run_folder() == 0
    assert "skipping 1 of 3 files, which are finished" in capfd.readouterr().err
    assert Path("out/a.mp4").stat().st_mtime_ns == before
    assert run_folder(out="whole") == 0
    assert [
        contents("out")[f"out/{name}"] == contents("whole")[f"whole/{name}"]
        for name in ("a.mp4", "b.mp4", "c.png")
    ] == [True] * 3

    # Finished: nothing is loaded any more, and the figures are still told.
    capfd.readouterr()
    monkeypatch.setattr(command, "open_autoencoder", None)
    assert run_folder() == 0
    assert capfd.readouterr().out.splitlines()[-1].startswith("all (3)")


def test_nothing_is_overwritten(real: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--video_path", "real/a.mp4", "--rec_path", "real/a.mp4") == 2
    assert (
        "real/a.mp4 exists and was made otherwise: move it away, or choose another --rec_path"
        in capfd.readouterr().err
    )
    assert run("--real_video_dir", "real", "--generated_video_dir", "real") == 2
    assert run_folder() == 0
    before = contents("out")
    for words in (["--num_frames", "4"], ["--grid"], ["--enable_tiling"], ["--fps", "3"]):
        assert run_folder(*words) == 2
        assert "out/a.mp4 exists and was made otherwise" in capfd.readouterr().err
    write_video(real / "a.mp4", clip(9))
    assert run_folder() == 2
    assert contents("out") == before
    Path("else").mkdir()
    Path("else/reconstruct.json").write_text("[]")
    assert run_folder(out="else") == 2
    assert "else/reconstruct.json exists and is not from `opensora reconstruct`" in capfd.readouterr().err
    assert list(contents("else")) == ["else/reconstruct.json"]


def test_lists_and_names_that_collide(real: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (real / "sub").mkdir()
    write_video(real / "sub" / "d.png", clip(4, 1))
    Path("list.txt").write_text("sub/d.png\nc.png\ngone.mp4\n")
    assert run_folder("--data_file_path", "list.txt") == 1
    assert {"out/sub/d.png", "out/c.png"} < set(contents("out"))
    assert "skipping gone.mp4: real/gone.mp4 does not exist" in capfd.readouterr().err
    write_video(real / "a.gif", clip(0))
    assert run_folder(out="else") == 2
    assert "a.gif and a.mp4 in real would both become else/a.mp4: rename one" in capfd.readouterr().err


def test_drawn_starts_follow_seed_and_name(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "reconstruct_frames", lambda vae, clips: clips)
    Path("real").mkdir()
    levels = np.arange(12, dtype=np.uint8)[:, None, None, None] * 20 + 10
    for name in ("a", "b", "c", "d"):
        write_video(f"real/{name}.mp4", np.broadcast_to(levels, (12, 32, 32, 3)))

    def starts(out: str, *words: str) -> list[int]:
        assert run_folder("--num_frames", "5", "--sample_rate", "2", "--output_origin", *words, out=out) == 0
        first = [read_video(f"{out}/origin/{name}.mp4")[0, 0, 0, 0] for name in ("a", "b", "c", "d")]
        return [round((int(level) - 10) / 20) for level in first]

    assert starts("fixed") == [0, 0, 0, 0]
    drawn = starts("drawn", "--dynamic_start_index")
    assert len(set(drawn)) > 1 and set(drawn) <= {0, 1, 2, 3}
    assert starts("other", "--dynamic_start_index", "--seed", "7") != drawn


def policy(model: Path, **options: Any) -> VAEPolicy:
    return plan(
        ReconstructOptions(video_path="a.mp4", rec_path="b.mp4", model_path=str(model), **options)
    ).vae_policy


def test_the_policy_follows_the_options(model: Path) -> None:
    assert policy(model) == VAEPolicy(chunked=True, small=SMALL, engine="openvino")
    assert policy(model, engine="mindspore") == VAEPolicy(chunked=True)
    assert policy(model, vae_memory="chunked") == VAEPolicy(chunked=True, engine="openvino")
    assert policy(model, vae_memory="exact") == VAEPolicy(chunked=False, engine="openvino")
    assert policy(model, vae_memory="tiled") == VAEPolicy(True, Tiling(), engine="openvino")
    tiles = policy(model, enable_tiling=True, tile_overlap_factor=0.5)
    assert tiles.tiling == Tiling(size=256, frames=65, overlap=0.5)
    chunks = policy(model, enable_time_chunk=True).tiling
    assert chunks is not None and chunks.frames == 65 and not chunks.splits((65, 4096, 4096))
    assert open_autoencoder(ReconstructOptions(), model / "vae", tiles).policy == tiles


def test_ways_to_compute(model: Path, real: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--video_path", "real/c.png", "--rec_path", "rec.png"]
    assert run(*words, "--vae_memory", "chunked") == 0
    assert (
        "1 frames of 32x32: in chunks, exact up to rounding, about 0.2 GiB of memory"
        in capfd.readouterr().err
    )
    assert run(*words, "--vae_memory", "chunked") == 0 and "skipping 1 of 1 files" in capfd.readouterr().err
    # The whole at once may differ in the last digits.
    assert run(*words, "--vae_memory", "exact") == 2
    assert "rec.png exists and was made otherwise" in capfd.readouterr().err
    for chosen in (VAEPolicy(chunked=False), VAEPolicy(True, Tiling())):
        command.log_memory(open_autoencoder(ReconstructOptions(), model / "vae", chosen), (1, 66, 32, 32, 3))
    said = capfd.readouterr().err
    assert "the whole video at once, about 0." in said and "66 frames of 32x32: in tiles, about" in said


def test_the_autoencoder_s_own_folder(real: Path) -> None:
    for number, words in enumerate(
        (["--model_path", "model/vae"], ["--ae_path", "model/vae", "--model_path", "nowhere"])
    ):
        assert main(["reconstruct", "--video_path", "real/c.png", "--rec_path", f"{number}.png", *words]) == 0
    assert (
        read_video("0.png").shape == (1, 32, 32, 3)
        and Path("0.png").read_bytes() == Path("1.png").read_bytes()
    )


FILE = ["--video_path", "a.mp4", "--rec_path", "b.mp4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name either a file, with --video_path and --rec_path, or a folder"),
        (["--video_path", "a.mp4"], "name either a file"),
        ([*FILE, "--real_video_dir", "real"], "name either a file"),
        (
            ["--video_path", "a.mp4", "--rec_path", "b.avi"],
            "rec_path b.avi cannot be written: choose a name that ends in .mp4",
        ),
        (
            ["--video_path", "a.mp4", "--rec_path", "b.png"],
            "b.png cannot hold 5 frames: choose .mp4, .gif or .webp, or --num_frames 1",
        ),
        (["--video_path", "gone.mp4", "--rec_path", "b.mp4"], "gone.mp4 does not exist"),
        (["--real_video_dir", "gone", "--generated_video_dir", "out"], "folder gone does not exist"),
        (["--crop_size", "20", *FILE], "crop_size 20 is not a multiple of 8"),
        (["--crop_size", "40", *FILE], "a.mp4 has frames of 32x32, less than 40x40: enlarge them"),
        (["--tile_overlap_factor", "1", *FILE], "tile_overlap_factor 1.0 is outside 0 to 1"),
        (["--vae_memory", "exact", "--enable_tiling", *FILE], "--vae_memory exact works without tiles"),
        (["--precision", "fp16", *FILE], "precision fp16 is not supported on a CPU"),
        (["--fps", "0", *FILE], "fps 0.0 is too small: use more than 0"),
        (["--data_file_path", "a.txt", *FILE], "data_file_path lists files of a folder"),
        (["--lpips_weights", "gone.safetensors", *FILE], "lpips_weights gone.safetensors does not"),
        (["--model_path", "gone", *FILE], "model folder gone does not exist"),
        (["--model_path", "model/text_encoder", *FILE], "model/text_encoder has no vae/config.json"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    model: Path, words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if "model/text_encoder" in words:
        (model / "text_encoder" / "config.json").unlink()
    write_video("a.mp4", clip(0))
    before = contents(".")
    assert run(*words) == 2
    output = capfd.readouterr()
    assert output.err.startswith(f"opensora: {message}") and output.err.count("\n") == 1 and output.out == ""
    assert contents(".") == before
