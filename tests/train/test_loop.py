import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora.train.checkpoint import latest_checkpoint, load_checkpoint
from opensora.train.loop import STOPPED_BY_SIGNAL, train
from opensora.train.options import LoopOptions
from opensora.train.prefetch import Prefetch
from tests.train.toy import Toy

ROOT = Path(__file__).parents[2]


def options(run: Path, steps: int, **changes: Any) -> LoopOptions:
    return LoopOptions(
        output_dir=str(run),
        **{"max_train_steps": steps, "checkpointing_steps": 4, "log_interval": 1, **changes},
    )


def losses(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def last_step(run: Path) -> int:
    folder = latest_checkpoint(run)
    assert folder is not None
    return int(load_checkpoint(folder)[1]["step"])


def assert_same(run: Path, other: Path, task: Toy, second: Toy) -> None:
    np.testing.assert_array_equal(task.w, second.w)
    np.testing.assert_array_equal(task.momentum, second.momentum)
    assert losses(run) == losses(other)


def test_a_run_in_two_parts_is_the_run_in_one(tmp_path: Path) -> None:
    whole, first, second = Toy(), Toy(), Toy()
    assert train(whole, options(tmp_path / "whole", 11)) == 0
    assert train(first, options(tmp_path / "parts", 6)) == 0
    assert train(second, options(tmp_path / "parts", 11)) == 0
    assert second.steps == [7, 8, 9, 10, 11]
    assert_same(tmp_path / "whole", tmp_path / "parts", whole, second)


def test_a_crash_costs_the_steps_since_the_last_checkpoint_and_no_more(tmp_path: Path) -> None:
    class Crashing(Toy):
        def step(self, step: int, batch: np.ndarray) -> dict[str, float]:
            if step == 10:
                raise RuntimeError("power cut")
            return super().step(step, batch)

    whole, again = Toy(), Toy()
    train(whole, options(tmp_path / "whole", 12))
    with pytest.raises(RuntimeError, match="power cut"):
        train(Crashing(), options(tmp_path / "crashed", 12))
    assert last_step(tmp_path / "crashed") == 8
    assert train(again, options(tmp_path / "crashed", 12)) == 0
    assert_same(tmp_path / "whole", tmp_path / "crashed", whole, again)


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    train(Toy(), options(tmp_path, 3))
    again = Toy()
    assert train(again, options(tmp_path, 3)) == 0 and again.steps == []


def test_checkpoints_and_validations_come_at_their_steps(tmp_path: Path) -> None:
    train(Toy(), options(tmp_path, 10, validation_steps=3, ckpt_max_keep=0))
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"3.txt", "6.txt", "9.txt", "10.txt"}
    steps = {path.name for path in (tmp_path / "checkpoints").glob("step-*")}
    assert steps == {"step-00000004", "step-00000008", "step-00000010"}


class Signalled(Toy):
    """Sends itself a signal during one step."""

    def __init__(self, at: int, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.at, self.number = at, number

    def step(self, step: int, batch: np.ndarray) -> dict[str, float]:
        if step == self.at:
            os.kill(os.getpid(), self.number)
        return super().step(step, batch)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_run_after_its_step(
    tmp_path: Path, number: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = signal.getsignal(number)
    whole, stopped, rest = Toy(), Signalled(6, number), Toy()
    train(whole, options(tmp_path / "whole", 9))
    assert train(stopped, options(tmp_path / "stopped", 9)) == STOPPED_BY_SIGNAL == 75
    assert stopped.steps == [1, 2, 3, 4, 5, 6] and last_step(tmp_path / "stopped") == 6
    assert signal.getsignal(number) is before
    assert "stopping after this step, with a checkpoint" in capfd.readouterr().err
    assert f"saved step 6 in {tmp_path / 'stopped'}/checkpoints; the same command continues" in caplog.text
    assert train(rest, options(tmp_path / "stopped", 9)) == 0
    assert_same(tmp_path / "whole", tmp_path / "stopped", whole, rest)


def test_a_signal_in_the_last_step_finishes_the_run(tmp_path: Path) -> None:
    assert train(Signalled(5), options(tmp_path, 5)) == 0
    assert last_step(tmp_path) == 5


def test_a_hangup_that_nohup_ignores_stops_nothing(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert train(Signalled(3, signal.SIGHUP), options(tmp_path, 5)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_gone_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines on it end in EIO; /dev/full fails alike."""
    with open("/dev/full", "w") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        assert train(Toy(), options(tmp_path, 3)) == 0
        monkeypatch.undo()
        with suppress(OSError):
            gone.close()


def test_a_second_interrupt_is_not_held_back(tmp_path: Path) -> None:
    class Impatient(Signalled):
        def step(self, step: int, batch: np.ndarray) -> dict[str, float]:
            terms = super().step(step, batch)
            if step == self.at:
                os.kill(os.getpid(), signal.SIGINT)
            return terms

    with pytest.raises(KeyboardInterrupt):
        train(Impatient(6, signal.SIGINT), options(tmp_path, 9))
    assert last_step(tmp_path) == 4


class Broken(Toy):
    """Has gradients that are not finite in some steps, and does not move then."""

    def __init__(self, at: set[int]) -> None:
        super().__init__()
        self.at = at

    def step(self, step: int, batch: np.ndarray) -> dict[str, float]:
        return {"loss": 1.0, "grad_norm": float("nan")} if step in self.at else super().step(step, batch)


def test_a_step_that_is_not_finite_is_left_out_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = Broken({3, 4, 7})
    assert train(task, options(tmp_path, 9, max_skipped_steps=3)) == 0
    assert task.steps == [1, 2, 5, 6, 8, 9]
    assert [step for step, _ in losses(tmp_path)] == task.steps
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["skipped_steps"]) for line in written if "skipped_steps" in line] == [
        (3, 1),
        (4, 2),
        (7, 3),
    ]
    assert "step 4: grad_norm is nan with the samples sample 4; the update was skipped" in caplog.text


@pytest.mark.parametrize("stop", [False, True], ids=["at once", "over a resume"])
def test_too_many_steps_in_a_row_that_are_not_finite_end_the_run(tmp_path: Path, stop: bool) -> None:
    if stop:
        train(Broken({6, 7, 8, 9}), options(tmp_path, 7, max_skipped_steps=3))
    with pytest.raises(
        ValueError, match="step 8: grad_norm is nan with the samples sample 8; 3 steps in a row were skipped"
    ):
        train(Broken({6, 7, 8, 9}), options(tmp_path, 12, max_skipped_steps=3))
    assert last_step(tmp_path) == (7 if stop else 4)


def test_a_refused_resume_changes_nothing(tmp_path: Path) -> None:
    class Wider(Toy):
        @property
        def config(self) -> dict[str, int]:
            return {"width": 4}

    train(Toy(), options(tmp_path, 3))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert {"config.yaml", "config.json", "history.jsonl", "metrics.jsonl"} <= before.keys()
    assert json.loads(before["config.json"]) == {"width": 3}
    with pytest.raises(ValueError, match=r"cannot continue with these options .*width was 3 and is 4"):
        train(Wider(), options(tmp_path, 6))
    state = tmp_path / "checkpoints" / "step-00000003" / "state.json"
    state.write_bytes(state.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"state\.json is missing or was changed"):
        train(Toy(), options(tmp_path, 6, seed=2))
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_a_new_run_continues_the_checkpoint_of_another(tmp_path: Path) -> None:
    whole, branch = Toy(), Toy()
    train(whole, options(tmp_path / "whole", 11, ckpt_max_keep=0))
    other = tmp_path / "whole" / "checkpoints" / "step-00000004"
    settings = {"resume_from_checkpoint": str(other)}
    assert train(branch, options(tmp_path / "branch", 8, **settings)) == 0 and branch.steps == [5, 6, 7, 8]
    branch = Toy()
    assert train(branch, options(tmp_path / "branch", 11, **settings)) == 0 and branch.steps == [9, 10, 11]
    np.testing.assert_array_equal(branch.w, whole.w)


def test_latest_is_a_new_run_where_there_is_no_checkpoint(tmp_path: Path) -> None:
    """As the published scripts of v1.0 have it."""
    assert train(Toy(), options(tmp_path / "run", 2, resume_from_checkpoint="latest")) == 0


def test_one_training_at_a_time_in_a_folder(tmp_path: Path) -> None:
    class Second(Toy):
        def step(self, step: int, batch: np.ndarray) -> dict[str, float]:
            with pytest.raises(ValueError, match="another process is writing to"):
                train(Toy(), options(tmp_path, 5))
            return super().step(step, batch)

    assert train(Second(), options(tmp_path, 2)) == 0 and last_step(tmp_path) == 2
    assert train(Toy(), options(tmp_path, 3)) == 0


@pytest.mark.slow
def test_a_process_that_is_asked_to_stop_saves_and_says_75(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.train.toy", str(tmp_path / "run"), "100000"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("step 3/"):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert last_step(tmp_path / "run") == len(losses(tmp_path / "run")) >= 3


def test_batches_arrive_by_step_whatever_thread_is_first() -> None:
    task, made, lock = Toy(), [], threading.Lock()

    def batch(step: int) -> np.ndarray:
        result = task.batch(step)
        with lock:
            made.append(step)
        return result

    with Prefetch(batch, first=6, last=20, ahead=3) as batches:
        for step in range(6, 21):
            np.testing.assert_array_equal(batches.take(step), Toy().batch(step))
            assert max(made) <= step + 3
    assert sorted(made) == list(range(6, 21))


def test_an_error_in_a_batch_arrives_at_its_step() -> None:
    class Broken(Toy):
        def batch(self, step: int) -> np.ndarray:
            if step == 3:
                raise ValueError("clip 3 cannot be read")
            return super().batch(step)

    with Prefetch(Broken().batch, first=1, last=9, ahead=4) as batches:
        batches.take(1), batches.take(2)
        with pytest.raises(ValueError, match="clip 3 cannot be read"):
            batches.take(3)


@pytest.mark.parametrize(
    "name", ["max_train_steps", "checkpointing_steps", "log_interval", "dataloader_prefetch_size"]
)
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} 0 is too small: use 1 or more"):
        LoopOptions(**{name: 0})
