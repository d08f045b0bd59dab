"""Words and files become options; every fault is one sentence."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import yaml

from opensora.cli import main, parse_command
from opensora.cli.arguments import parse
from opensora.cli.config import packaged_presets, preset_header
from opensora.cli.published import Answers, Ignored
from opensora.options import by_group


@dataclass(frozen=True)
class Optimizer:
    """Optimizer.

    How weights move.
    """

    GROUP: ClassVar[str] = "optimizer"
    learning_rate: float = 1e-4
    """Step size."""


@dataclass(frozen=True, kw_only=True)
class Options(Optimizer):
    """Options of a test."""

    text_prompt: list[str] = field(default_factory=list)
    """Sentences."""
    sizes: list[int] = field(default_factory=lambda: [1])
    """Numbers."""
    negative_prompt: str = ""
    """A sentence."""
    seed: int | None = None
    """A number."""
    guidance_scale: float = 7.5
    """A number."""
    enable_tiling: bool = False
    """A truth value."""
    format: Literal["mp4", "gif"] = "mp4"
    """A choice."""
    learning_rate: float = 1e-5
    """Step size."""


def read(*words: str) -> Options:
    options = parse(Options, words, "opensora test", "test", "text_prompt")
    assert options is not None
    return options


def test_defaults() -> None:
    assert read() == Options()


def test_values_of_every_kind() -> None:
    options = read(
        "--seed",
        "3",
        "--guidance_scale=1e-1",
        "--format",
        "gif",
        "--learning_rate",
        "2e-5",
        "--negative_prompt",
        "a: [b]",
    )
    assert options == Options(
        seed=3, guidance_scale=0.1, format="gif", learning_rate=2e-5, negative_prompt="a: [b]"
    )
    assert read("--seed", "-1").seed == -1
    assert read("--negative_prompt=--really").negative_prompt == "--really"
    assert read("--sizes", "2", "3").sizes == [2, 3]


def test_lists_and_positional_words() -> None:
    prompts = ["null", "1", "a: [b] # c", "emoji \U0001f418 \x07", "x" * 10_000]
    assert read(*prompts).text_prompt == prompts
    assert read("--text_prompt", *prompts).text_prompt == prompts
    assert read("first", "--text_prompt", "second", "--seed", "1", "third").text_prompt == [
        "first",
        "second",
        "third",
    ]


@pytest.mark.parametrize(
    "form",
    [["--enable_tiling"], ["--enable_tiling", "True"], ["--enable_tiling=true"], ["--enable_tiling", "1"]],
)
def test_truth_values_take_both_forms(form: list[str]) -> None:
    assert read(*form, "--seed", "1") == Options(enable_tiling=True, seed=1)
    assert read(*form[:1], "a cat") == Options(enable_tiling=True, text_prompt=["a cat"])
    assert not read(form[0].partition("=")[0], "False").enable_tiling


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    config = tmp_path / "options.yaml"
    config.write_text(
        "seed: 3\nguidance_scale: 1e-3\ntext_prompt: a cat\nenable_tiling: true\n"
        "optimizer:\n  learning_rate: 0.5\n"
    )
    from_file = Options(
        text_prompt=["a cat"], seed=3, guidance_scale=1e-3, enable_tiling=True, learning_rate=0.5
    )
    assert read("--config", str(config)) == from_file
    options = read(
        "--config",
        str(config),
        "a dog",
        "--seed",
        "4",
        "--enable_tiling",
        "false",
        "--learning_rate",
        "1",
    )
    assert options == Options(text_prompt=["a dog"], seed=4, guidance_scale=1e-3, learning_rate=1.0)
    config.write_text(
        "general:\n  seed: 3\n  text_prompt: a cat\n  guidance_scale: 1e-3\n"
        "enable_tiling: true\nlearning_rate: 0.5"
    )
    assert read("--config", str(config)) == from_file
    config.write_text("")
    assert read("--config", str(config)) == Options()


@pytest.mark.parametrize("name", packaged_presets())
def test_the_command_that_opens_a_preset_gives_its_options(name: str) -> None:
    file = packaged_presets()[name]
    header = "\n".join(preset_header(file)).replace("\\\n", "")
    program, command, *words = shlex.split(header.partition("\n")[0])
    assert program == "opensora" and words[words.index("--config") + 1] == name
    options = parse_command(command, words)
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    values = {key: value for key, value in content.items() if not isinstance(value, dict)}
    for group in set(content) - set(values):
        values |= content[group]
    for option, value in values.items():
        assert getattr(options, option) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("name", packaged_presets())
def test_a_preset_tells_its_time_memory_and_result(name: str) -> None:
    header = preset_header(packaged_presets()[name])
    assert [line.split(":")[0] for line in header if line.startswith(("Time:", "Memory:", "Result:"))] == [
        "Time",
        "Memory",
        "Result",
    ]


def test_presets_are_listed_with_their_headers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    shown = capsys.readouterr().out
    for name, file in packaged_presets().items():
        assert f"{name}\n    opensora " in shown
        assert all(f"    {line}\n" in shown for line in preset_header(file))


def test_published_names_are_taken_ignored_or_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Renamed(Optimizer):
        ALIASES: ClassVar[dict[str, str]] = {"start_learning_rate": "learning_rate"}

    answers: Answers = {
        "epochs": "say how long with --max_train_steps",
        "clip_grad": Ignored("they are clipped to max_grad_norm", bool, ("true",)),
        "jit_level": Ignored("blocks are compiled"),
    }

    def parse_renamed(words: list[str]) -> Renamed | None:
        return parse(Renamed, words, "name", "test", answers=answers)

    assert parse_renamed(["--start_learning_rate=0.5"]) == Renamed(learning_rate=0.5)
    (tmp_path / "a.yaml").write_text("start_learning_rate: 0.25")
    assert parse_renamed(["--config", str(tmp_path / "a.yaml")]) == Renamed(learning_rate=0.25)
    with pytest.raises(
        ValueError, match="option --epochs is the published version's: say how long with --max_train_steps"
    ):
        parse_renamed(["--epochs=3"])

    caplog.set_level("INFO", "opensora")
    words = ["--jit_level", "O1", "--clip_grad", "--learning_rate", "0.5"]
    assert parse_renamed(words) == Renamed(learning_rate=0.5)
    lines = [
        "--jit_level has no effect: blocks are compiled",
        "--clip_grad has no effect: they are clipped to max_grad_norm",
    ]
    assert [record.getMessage() for record in caplog.records] == lines
    (tmp_path / "a.yaml").write_text("clip_grad: true\njit_level: 1")
    assert parse_renamed(["--config", str(tmp_path / "a.yaml")]) == Renamed()
    with pytest.raises(
        ValueError,
        match="option clip_grad False is the published version's: they are clipped to max_grad_norm",
    ):
        parse_renamed(["--clip_grad", "False"])


def test_of_several_files_the_later_wins(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\nguidance_scale: 2")
    (tmp_path / "b.yaml").write_text("seed: 3\nsizes: [4]")
    options = read("--config", str(tmp_path / "a.yaml"), "--sizes", "5", f"--config={tmp_path / 'b.yaml'}")
    assert options == Options(seed=3, guidance_scale=2.0, sizes=[5])


def test_a_file_comes_before_a_preset_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train").mkdir()
    Path("train/demo").write_text("seed: 3")
    assert read("--config", "train/demo").seed == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sede", "3"], "option --sede is unknown (did you mean 'seed'?); --help lists them all"),
        (["--optimizer.lr", "3"], "option --optimizer.lr is unknown"),
        (
            ["--config", "train/vae-9"],
            "preset train/vae-9 is for `opensora train-vae`, not for `opensora test`",
        ),
        (["-s", "3"], "option -s is unknown: options start with two dashes"),
        (["--seed"], "option --seed has no value"),
        (["--seed", "--format", "gif"], "option --seed has no value"),
        (["--seed", "1.5"], "option seed is '1.5', but it must be an integer"),
        (["--guidance_scale", "high"], "option guidance_scale is 'high', but it must be a number"),
        (["--format", "avi"], "option format is 'avi', but it must be one of mp4, gif"),
        (["--enable_tiling=maybe"], "option enable_tiling is 'maybe', but it must be true or false"),
        (
            ["--learning_rate", "x"],
            "option learning_rate is 'x', but it must be a number",
        ),
        (["--sizes", "2", "x"], "option sizes is ['2', 'x'], but it must be a list"),
        (
            ["--config", "nowhere.yaml"],
            "configuration file nowhere.yaml does not exist: check the path after --config",
        ),
        (
            ["--config", "train/vae-8"],
            "configuration file train/vae-8 does not exist (did you mean 'train/vae-9'?)",
        ),
    ],
)
def test_faults_in_words(words: list[str], message: str) -> None:
    with pytest.raises(ValueError) as error:
        read(*words)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sede: 3", "option sede is unknown (did you mean 'seed'?)"),
        ("optimizer: {learningrate: 3}", "option learningrate is unknown (did you mean 'learning_rate'?)"),
        ("optimizer: {seed: 3}", "option seed belongs in the section general, not in optimizer"),
        ("optimiser: {learning_rate: 3}", "option optimiser is unknown (did you mean 'optimizer'?)"),
        ("seed: [1", "is not valid YAML"),
        ("- seed", "holds a list"),
        ("seed: x", "option seed is 'x', but it must be an integer"),
    ],
)
def test_faults_in_a_file(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "options.yaml").write_text(content)
    with pytest.raises(ValueError) as error:
        read("--config", str(tmp_path / "options.yaml"))
    assert message in str(error.value)


def test_a_command_without_positional_words() -> None:
    with pytest.raises(ValueError, match="unexpected word 'word': opensora test takes only --options"):
        parse(Options, ["word"], "opensora test", "test")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Model."""

    GROUP: ClassVar[str] = "model"
    version: str | None = None
    """A folder."""
    model_path: str
    """Another folder."""


def test_help_shows_groups_the_required_options_first(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Grouped(Options, Model):
        """Options of a test."""

    assert parse(Grouped, ["--seed", "1", "--help"], "opensora test", "test", "text_prompt") is None
    shown = capsys.readouterr().out
    expected = (
        "--config",
        "\nModel:",
        "--model_path",
        "--version",
        "\nOptimizer:",
        "--learning_rate",
        "Step size.",
        "\nGeneral:",
        "--text_prompt A B ...",
        "--seed",
        "--enable_tiling {true,false}",
    )
    places = [shown.index(part) for part in expected]
    assert places == sorted(places)


def test_values_by_group() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Grouped(Optimizer, Model):
        """Options of a test."""

    sections = {"model": {"model_path": "a", "version": None}, "optimizer": {"learning_rate": 1e-4}}
    assert by_group(Grouped(model_path="a")) == sections


def test_saved_options_are_read_again(tmp_path: Path) -> None:
    words = ["--model_path", "m", "--video_data", "list.txt", "--betas", "0.5", "0.9", "--seed", "2"]
    options = parse_command("train", words)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(by_group(options)))
    assert parse_command("train", ["--config", str(tmp_path / "config.yaml")]) == options


def test_a_missing_option() -> None:
    with pytest.raises(ValueError, match="option model_path is required: write --model_path VALUE"):
        parse(Model, [], "opensora test", "test")
