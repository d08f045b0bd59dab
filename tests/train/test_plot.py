import json
import sys
from pathlib import Path

import pytest

from opensora.cli import main
from opensora.train.plot import read_curves


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    for run, shift in (("a", 0.0), ("b", 1.0)):
        lines = [{"step": step, "loss": step + shift} for step in range(1, 4)] + [
            {"step": 3, "validation_mse": shift}
        ]
        (tmp_path / run).mkdir()
        (tmp_path / run / "metrics.jsonl").write_text(
            "".join(f"{json.dumps(line)}\n" for line in lines) + '{"step": 4, "lo'
        )
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def test_curves_of_a_run_that_is_writing(runs: list[str]) -> None:
    assert read_curves(runs[1]) == {"loss": ([1, 2, 3], [2.0, 3.0, 4.0]), "validation_mse": ([3], [1.0])}


def test_runs_become_a_picture(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "pictures" / "curves.png"
    assert main(["plot", *runs, "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert output.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no run to draw: name run folders"),
        (["nowhere"], "nowhere has no metrics.jsonl: name the folder of a run"),
        (["a", "--metrics", "los"], "no run has the metric los: choose from loss, validation_mse"),
        (["a", "--output", "curves.txt"], "output curves.txt has an unknown suffix"),
    ],
)
def test_what_cannot_be_drawn_is_told(
    runs: list[str],
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [runs[0] if word == "a" else word for word in words]
    assert main(["plot", *words]) == 2
    assert message in capsys.readouterr().err


def test_without_matplotlib_the_remedy_is_told(
    runs: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["plot", runs[0]]) == 2
    assert "drawing needs matplotlib: pip install 'opensora[plot]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["", "[3]\n7\nnull\n", '{"loss": 1}\n{"step": "x", "loss": 2}\n', '{"step": 1}\n']
)
def test_a_log_without_a_metric_is_named(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.jsonl").write_text(content)
    assert main(["plot", str(tmp_path), "--output", str(tmp_path / "a.png")]) == 2
    assert f"{tmp_path} has not logged a step yet" in capsys.readouterr().err
