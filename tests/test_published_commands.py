"""Command lines, scripts, flags and values of the published version work."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest

from opensora import cli
from opensora.cli.published import ANSWERS, Ignored
from opensora.media.reader import probe
from opensora.media.writer import write_video
from opensora.weights.folder import DEMO
from tests.data.material import grey, write_set
from tests.published_commands import FLAGS, LINES, V10_VALUES, VALUES
from tests.train.small import LATTE, T5, VAE

ROOT = Path(__file__).parent.parent


@pytest.fixture
def launchers(tmp_path: Path) -> Path:
    """A folder for PATH whose `python` and `msrun` only write down their arguments, one a line."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python", "msrun"):
        (folder / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path / "arguments"}\n')
        (folder / name).chmod(0o755)
    return folder


def run_file(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run one of the files as `python` does, in this process. Returns the exit code."""
    monkeypatch.setattr(sys, "argv", [str(ROOT / words[0]), *words[1:]])
    monkeypatch.setattr(sys, "path", ["the file's folder", *sys.path])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(sys.argv[0], run_name="__main__")
    assert sys.path[0] == str(ROOT)
    return int(end.value.code or 0)


@pytest.mark.parametrize("line", LINES)
def test_the_command_line_is_taken(line: str, launchers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        **os.environ,
        "PATH": f"{launchers}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(launchers.parent),
    }
    subprocess.run(["bash", "-c", line], cwd=ROOT, env=environment, check=True)
    words = (launchers.parent / "arguments").read_text().splitlines()
    while words[0].startswith("--") or words[0] == "python":  # of msrun
        words.pop(0)
    found = []
    monkeypatch.setattr(cli, "main", lambda: found.append(cli.parse_command(sys.argv[1], sys.argv[2:])))
    if words[:2] == ["-m", "opensora"]:
        found.append(cli.parse_command(words[2], words[3:]))
    else:
        run_file(words, monkeypatch)
    assert len(found) == 1 and is_dataclass(found[0])


@pytest.mark.parametrize("path", sorted(ROOT.glob("scripts/*/*.sh")), ids=lambda path: path.name)
def test_scripts_stop_at_errors_and_pass_arguments_on(path: Path) -> None:
    text = path.read_text()
    assert "\nset -euo pipefail\n" in text and text.rstrip().endswith('"$@"')
    assert any(path.name in line for line in LINES)


def test_files_only_call_a_command() -> None:
    paths = {word for line in LINES for word in line.split() if word.endswith(".py")} | {
        "examples/rec_video_vae.py"
    }
    for path in paths:
        assert len((ROOT / path).read_text().splitlines()) <= 10


@pytest.mark.parametrize(
    ("name", "flag"), [(name, flag) for name, flags in FLAGS.items() for flag in ("config", *flags.split())]
)
def test_every_flag_is_an_option_or_has_its_answer(name: str, flag: str) -> None:
    options = cli.command_module(name).OPTIONS
    known = {item.name for item in fields(options)} | {"config", *getattr(options, "ALIASES", {})}
    assert flag in known or flag in ANSWERS.get(name, {})
    if flag not in known and not isinstance(ANSWERS.get(name, {})[flag], Ignored):
        with pytest.raises(ValueError, match=f"option --{flag} is the published version's: .+"):
            cli.parse_command(name, [f"--{flag}", "1"])


@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_is_shadowed_by_an_option(name: str) -> None:
    options = cli.command_module(name).OPTIONS
    known = {item.name for item in fields(options)} | set(getattr(options, "ALIASES", {}))
    assert not known & set(ANSWERS[name])


@pytest.mark.parametrize(("name", "values"), [*VALUES.items(), *V10_VALUES.items()])
def test_values_are_taken(name: str, values: str) -> None:
    assert is_dataclass(cli.parse_command(name, shlex.split(values)))


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        (
            "generate",
            "--ae stabilityai/sd-vae-ft-mse",
            "the autoencoder is described by model_path/vae/config.json",
        ),
        ("generate", "--global_bf16 True", "use --precision bf16"),
        ("train", "--clip_grad False", "0 disables clipping"),
        ("train", "--ae stabilityai/sd-vae-ft-mse", "in the folder that --ae_path names"),
        ("train", "--data_path list.json", "opensora prepare-data FOLDER"),
        ("train", "--mixed_precision bf16", "use --precision bf16"),
        ("train-class", "--extras 2", "use --train_classcondition true"),
        ("train", "--model LatteT2V-D64-XL/122", "config.json in model_path/version"),
        ("train-vae", "--scale_lr", "set --learning_rate itself"),
        ("embed-text", "--captions x", "pass it as --prompt_path"),
        ("interpolate", "--niters 2 --input a.mp4", "use --factor 2, 4 or 8"),
        ("upscale", "--SR x4 --input_dir a.mp4", "use --factor 2 or --factor 4"),
    ],
)
def test_what_would_change_the_result_is_answered(name: str, words: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"is the published version's: .*{re.escape(message)}"):
        cli.parse_command(name, words.split())


def test_the_guide_explains_every_flag() -> None:
    guide = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
    missing = {
        flag for flags in FLAGS.values() for flag in flags.split() if not re.search(f"`--{flag}[` ]", guide)
    }
    assert not missing
    for line in LINES:
        assert next(Path(word).name for word in line.split() if word.endswith((".py", ".sh"))) in guide


def published_line(file: str) -> list[str]:
    """The words of the published command line for a file, from the file on."""
    words = next(words for words in map(shlex.split, LINES) if file in words)
    return words[words.index(file) :]


@pytest.mark.slow
def test_sampling_and_reconstruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The published command lines, with options appended for a small model and small videos."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "prompt_list_65.txt").write_text("an elephant on a sky blue background\n")
    small = (
        f"--model_path=demo --text_encoder_name={DEMO / 'text_encoder'} --version=17x64x64 "
        "--num_frames=5 --height=32 --width=32"
    )
    words = [*published_line("opensora/sample/sample_t2v.py"), *small.split(), "--num_sampling_steps=2"]
    assert run_file(words, monkeypatch) == 0
    (video,) = (tmp_path / "sample_videos" / "prompt_list_65").glob("*.mp4")
    assert probe(video).frames == 5
    assert "--ae has no effect: " in capfd.readouterr().err

    write_video(tmp_path / "test.mp4", grey(9))
    small = "--model_path=demo --device=CPU --num_frames=5 --resolution=32 --crop_size=32"
    assert run_file([*published_line("examples/rec_imvi_vae.py"), *small.split()], monkeypatch) == 0
    assert probe(tmp_path / "rec.mp4").frames == 5


@pytest.mark.slow
def test_training_on_embedded_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert, embed, train: the published command lines in order, on a small model."""
    from opensora.models import CausalVAE, LatteT2V, T5Encoder

    rng = np.random.default_rng(0)
    release, text_encoder = Path("LanguageBind/Open-Sora-Plan-v1.1.0"), Path("DeepFloyd/t5-v1_1-xxl")
    for version in ("5x32x32", "9x32x32"):
        LatteT2V.initialise(LATTE, rng).save_pretrained(release / version)
    CausalVAE.initialise(VAE, rng).save_pretrained(release / "vae")
    T5Encoder.initialise(T5, rng).save_pretrained(text_encoder)
    shutil.copy(DEMO / "text_encoder" / "spiece.model", text_encoder)
    for kind in ("video", "image"):
        write_set(tmp_path, 3, f"{kind}s")
        lists = tmp_path / "scripts" / "train_data" / f"{kind}_data.txt"
        lists.parent.mkdir(parents=True, exist_ok=True)
        lists.write_text(f"{tmp_path / kind}s, all of them, text, {kind}s.json\n")

    convert = published_line("tools/model_conversion/convert_latte.py")
    convert[convert.index("--src") + 1] = str(release / "5x32x32")
    assert run_file(convert, monkeypatch) == 0
    embed = published_line("opensora/sample/sample_text_embed.py")
    assert (
        run_file(
            [*embed, "--data_file_path=videos.json", "--output_path=text", "--model_max_length=12"],
            monkeypatch,
        )
        == 0
    )
    small = "--num_frames=5 --max_image_size=32 --batch_size=1 --max_train_steps=2 --output_dir=run"
    words = [*published_line("opensora/train/train_t2v.py"), *small.split(), "--text_embed_cache=True"]
    assert run_file(words, monkeypatch) == 0
    assert (tmp_path / "run" / "checkpoints" / "step-00000002" / "ema.safetensors").is_file()
