import json
import time
from pathlib import Path
from typing import Any

import pytest

from opensora.train.monitor import Monitor, Stopwatch, _duration
from opensora.train.options import LoopOptions


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def monitor(run: Path, first: int, last: int, interval: int = 2) -> None:
    watcher = Monitor(run, first, LoopOptions(max_train_steps=last, log_interval=interval))
    for step in range(first + 1, last + 1):
        watcher.step(step, {"loss": float(step)})
    watcher.close()


def test_a_line_every_interval_and_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monitor(tmp_path / "run", 0, 5)
    written = lines(tmp_path / "run")
    assert [(line["step"], line["loss"]) for line in written] == [(2, 1.5), (4, 3.5), (5, 5.0)]
    assert all(line["seconds_per_step"] >= 0 for line in written)
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.split("  ")[:2] for line in shown] == [
        ["step 2/5", "loss 1.5"],
        ["step 4/5", "loss 3.5"],
        ["step 5/5", "loss 5"],
    ]
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    monitor(tmp_path, 0, 8)
    monitor(tmp_path, 4, 6)
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 6]


def test_a_line_that_a_kill_cut_short_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "loss": 1.0}\n{"step": 4, "lo')
    monitor(tmp_path, 4, 6)
    assert [line["step"] for line in lines(tmp_path)] == [2, 6]


def test_values_of_a_validation_have_a_line_of_their_own(tmp_path: Path) -> None:
    watcher = Monitor(tmp_path, 0, LoopOptions())
    watcher.write(3, {"validation_psnr": 25.0})
    watcher.close()
    assert lines(tmp_path) == [{"step": 3, "validation_psnr": 25.0}]


def test_a_line_after_a_resume_averages_the_steps_before_it_too(tmp_path: Path) -> None:
    options = LoopOptions(max_train_steps=4, log_interval=4, batch_size=2, gradient_accumulation_steps=3)
    before = Monitor(tmp_path, 0, options)
    before.step(1, {"loss": 1.0, "mse_q1": 5.0, "seconds_model": 100.0})
    before.step(2, {"loss": 2.0})
    before.close()
    state = json.loads(json.dumps(before.state()))
    after = Monitor(tmp_path, 2, options, state)
    after.step(3, {"loss": 3.0, "seconds_model": 7.0})
    after.step(4, {})  # a step that was skipped
    after.close()
    (line,) = lines(tmp_path)
    assert (line["loss"], line["mse_q1"], line["seconds_model"]) == (2.0, 5.0, 7.0)
    assert line["samples_per_second"] == pytest.approx(6 / line["seconds_per_step"])


def test_share_of_the_peak(tmp_path: Path) -> None:
    watcher = Monitor(tmp_path, 0, LoopOptions(max_train_steps=1, peak_flops=1e12))
    watcher.step(1, {"flops": 3e9})
    watcher.close()
    (line,) = lines(tmp_path)
    assert line["share_of_peak"] == pytest.approx(3e-3 / line["seconds_per_step"])


def test_seconds_of_the_parts_of_a_step() -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch.part("model"):
            time.sleep(0.01)
    assert watch.read()["seconds_model"] >= 0.02 and watch.read() == {}


def test_durations() -> None:
    assert [_duration(seconds) for seconds in (0, 59.9, 61, 3599, 3600, 93784)] == [
        "0m00s",
        "0m59s",
        "1m01s",
        "59m59s",
        "1h00m",
        "26h03m",
    ]


def test_the_first_step_of_a_process_does_not_count_for_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    """It compiles: 90 s here, where the others take 2 s."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    caplog.set_level("INFO")
    watcher = Monitor(tmp_path, 0, LoopOptions(max_train_steps=104, log_interval=4))
    for step in range(1, 9):
        clock[0] += 90 if step == 1 else 2
        watcher.step(step, {})
    watcher.close()
    assert caplog.messages == ["a step takes 2.00 s once compiled: about 3.4 minutes for the other 101"]
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.split("  ")[-2:] for line in shown] == [
        ["2.00 s/step", "left 3m20s"],
        ["2.00 s/step", "left 3m12s"],
    ]
    assert [line["seconds_per_step"] for line in lines(tmp_path)] == [96 / 4, 2]
