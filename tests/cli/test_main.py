"""The command line as a user meets it: exit codes, sentences on stderr, no MindSpore for help."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import opensora
from opensora import cli
from opensora.cli import COMMANDS, main
from opensora.weights import save_weights


def test_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert main([]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert shown.count(f"\n  {name} ") == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: opensora {name} ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["genrate"], "opensora: command 'genrate' is unknown (did you mean 'generate'?): choose one of "),
        (["generate", "x", "--sede", "1"], "opensora: option --sede is unknown (did you mean 'seed'?)"),
        (["generate", "x", "--model_path", "nowhere"], "opensora: model folder nowhere does not exist"),
        (
            ["generate", "x", "--guidance_scale", "strong"],
            "opensora: option guidance_scale is 'strong', but it must be a number",
        ),
        (["generate"], "opensora: there is no prompt"),
        (["info", "nowhere"], "opensora: nowhere is not a model folder"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    words: list[str], message: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(words) == 2
    output = capfd.readouterr()
    assert output.err.startswith(message)
    assert output.err.count("\n") == 1 and output.out == ""
    assert not list(tmp_path.iterdir())


def raising(error: BaseException) -> object:
    def dispatch(_: list[str]) -> None:
        raise error

    return dispatch


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "opensora: interrupted"),
        (PermissionError(13, "Permission denied", "a.mp4"), 2, "opensora: a.mp4: Permission denied"),
        (
            MemoryError(),
            2,
            "opensora: there is not enough memory: close other programs, or use smaller files or batches",
        ),
        (ValueError("two\n lines"), 2, "opensora: two\\n lines"),
    ],
)
def test_errors_while_running(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "_dispatch", raising(error))
    assert main([]) == code
    assert capsys.readouterr().err.startswith(message)


def test_a_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENSORA_TRACEBACK", "1")
    with pytest.raises(ValueError, match="is unknown"):
        main(["genrate"])


def test_help_and_mistakes_do_not_import_the_framework() -> None:
    script = """if True:
        import sys
        from opensora.cli import main
        assert main(["--help"]) == 0 and main(["generate", "--help"]) == 0
        assert main(["generate", "x", "--seed", "x"]) == 2
        assert main(["generate", "x", "--model_path", "/nowhere"]) == 2
        assert "mindspore" not in sys.modules
    """
    subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        check=True,
        capture_output=True,
        cwd=Path(cli.__file__).parents[2],
    )


def test_info_describes_the_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_weights(
        tmp_path / "m" / "vae",
        {"_class_name": "CausalVAEModel"},
        {"a": np.ones((10, 200)), "b": np.ones(3)},
        dtype="float16",
    )
    (tmp_path / "m" / "text_encoder").mkdir()
    (tmp_path / "m" / "text_encoder" / "config.json").write_text('{"architectures": ["T5EncoderModel"]}')
    assert main(["info", "m"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "m/text_encoder: T5EncoderModel, 0 parameters in 0 tensors, 0.0 MiB (no weights)"
    assert second == "m/vae: CausalVAEModel, 2,003 parameters in 2 tensors, 0.0 MiB (F16)"


def test_modules_in_the_working_directory_are_not_imported(tmp_path: Path) -> None:
    for name in ("numpy", "logging", "yaml", "dataclasses"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    words = [sys.executable, "-m", "opensora", "presets"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "train/demo" in done.stdout, done.stderr


def test_names_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[31m\u202eb"
    assert main(["info", name]) == 2
    assert capsys.readouterr().err.startswith(r"opensora: a\x1b[31m\u202eb is not a model folder")
    folder = tmp_path / "a\x1b[31mb\n"
    save_weights(folder, {"_class_name": "evil\x07\nname"}, {"x": np.ones(2, np.float32)})
    assert main(["info", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert r"a\x1b[31mb\n: evil\x07\nname, 2 parameters" in shown and shown.count("\n") == 1


def test_log_lines_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    cli._log_to_stderr()
    logging.getLogger("opensora.x").info("made %s", "a\x1b]0;title\x07\nb")
    assert capsys.readouterr().err == "made a\\x1b]0;title\\x07\\nb\n"


def test_an_ascii_terminal_gets_escapes(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "opensora", "info", "é象"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stderr.startswith(r"opensora: \xe9\u8c61 is not a model folder")


def test_a_closed_pipe_ends_a_command_quietly() -> None:
    """As in `opensora presets | head -1`."""
    with subprocess.Popen(
        [sys.executable, "-m", "opensora", "presets"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 0


@pytest.mark.parametrize("way", [["-m", "opensora"], ["-c", "from opensora.cli import main; main()"]])
def test_the_c_locale_reads_utf8(way: list[str]) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, *way, "l\u00f6we"], env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert "command 'l\u00f6we' is unknown" in done.stderr


def test_a_deleted_working_directory_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["generate", "a cat"]) == 2
    assert capsys.readouterr().err.startswith("opensora: the working directory was deleted: change to")


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"opensora {opensora.__version__}, python 3") and "openvino 20" in line


def test_closed_streams(tmp_path: Path) -> None:
    """As a scheduler may start a command; no file of the user gets the number of a stream."""
    script = (
        "import os, sys\n"
        "from opensora.cli import main\n"
        "code = main(['presets'])\n"
        "file = os.open('mine', os.O_WRONLY | os.O_CREAT)\n"
        "os._exit(0 if code == 0 and file > 2 else 1)\n"
    )
    command = f'{sys.executable} -c "$0" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, script], cwd=tmp_path, timeout=60).returncode == 0


def test_a_line_break_of_a_name_is_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "no\nwhere"]) == 2
    assert capfd.readouterr().err.startswith("opensora: no\\nwhere is not a model folder")
