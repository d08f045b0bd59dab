"""What a run tells before its first step and after its last, and a dry run."""

import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from opensora.cli import main
from opensora.parallel.mesh import Mesh
from opensora.train import summary
from opensora.train.loop import train
from opensora.train.options import LoopOptions
from opensora.train.summary import TaskSummary, log_summary
from opensora.train.t2v.options import TrainOptions
from opensora.train.vae.options import TrainVAEOptions
from opensora.train.vae.setup import train_vae
from tests.train.toy import Toy

GIB = 2**30
TASK = TaskSummary(parameters=61_000_000, samples=4000, memory=3 * GIB, checkpoint=2 * GIB)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 4 GiB of memory, 1 GiB of it taken by this process, and 20 GiB of disk."""

    class Usage(NamedTuple):
        free: int = 20 * GIB

    monkeypatch.setattr(summary, "used_memory", lambda: GIB)
    monkeypatch.setattr(summary, "free_memory", lambda: 3 * GIB)
    monkeypatch.setattr(summary, "free_swap", lambda: 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage())


def told(
    caplog: pytest.LogCaptureFixture, task: TaskSummary = TASK, first: int = 0, **changes: Any
) -> list[str]:
    """The lines about a run of `task`; those of warnings begin with an exclamation mark."""
    caplog.clear()
    options = TrainOptions(model_path="", vae_latent_folder="", **{"max_train_steps": 1000, **changes})
    with caplog.at_level(logging.INFO, "opensora"):
        log_summary(task, options, first, Mesh(), [Path("model/17x64x64")])
    return [
        ("! " if record.levelno == logging.WARNING else "") + record.getMessage() for record in caplog.records
    ]


def test_a_new_run(caplog: pytest.LogCaptureFixture) -> None:
    assert told(caplog) == [
        "training 61,000,000 parameters: 1,000 steps of 4 samples; an epoch of 4,000 samples is 1,000 steps, "
        "the run 1 epochs",
        "starting from random weights of seed 3407",
        "! the weights in model/17x64x64 are not loaded: --pretrained starts from them",
        "at least 4.0 GiB of memory, 1.0 GiB of it is taken; 3.0 GiB are free",
        "a checkpoint takes 2.0 GiB of disk, the run up to 4.0 GiB; 20.0 GiB are free",
    ]


def test_where_it_starts(caplog: pytest.LogCaptureFixture) -> None:
    assert told(caplog, pretrained="runs/a")[1] == "starting from the weights of runs/a"
    resumed = told(caplog, first=7)
    assert len(resumed) == 3 and not any("starting" in line for line in resumed)
    assert told(caplog, first=1000)[-1] == (
        "the run has all of its 1000 steps: raise --max_train_steps to continue"
    )


def test_samples_that_never_end_have_no_epoch(caplog: pytest.LogCaptureFixture) -> None:
    line = told(caplog, TASK._replace(samples=None), batch_size=1)[0]
    assert line == "training 61,000,000 parameters: 1,000 steps of 1 sample"


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({"checkpointing_steps": 100}, 4),  # the three that are kept, and the one being written
        ({"checkpointing_steps": 300, "ckpt_max_keep": 0}, 4),
        ({"checkpointing_steps": 100, "ckpt_max_keep": 1, "ckpt_keep_every": 200}, 7),
        ({"checkpointing_steps": 400, "ckpt_max_keep": 9}, 3),
    ],
)
def test_checkpoints_on_the_disk(
    caplog: pytest.LogCaptureFixture, changes: dict[str, Any], most: int
) -> None:
    assert f"the run up to {2.0 * most} GiB" in told(caplog, **changes)[4]


def test_too_little_memory_or_disk_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    lines = told(caplog, TASK._replace(memory=4 * GIB, checkpoint=6 * GIB), checkpointing_steps=1)
    assert lines[4] == (
        "! this is more memory than there is: use a smaller --batch_size, or close other programs"
    )
    assert lines[6].startswith("! this is more than the disk of ") and "--ckpt_max_keep" in lines[6]


def test_a_dry_run_reads_a_batch_and_writes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Reading(Toy):
        def batch(self, step: int) -> Any:
            read.append(step)
            return super().batch(step)

    read: list[int] = []
    settings = LoopOptions(output_dir=str(tmp_path / "run"), max_train_steps=5, dry_run=True)
    with caplog.at_level(logging.INFO, "opensora"):
        task = Reading()
        assert train(task, settings) == 0
    assert (read, task.steps) == ([1], []) and not list(tmp_path.iterdir())
    assert caplog.messages[-1] == "dry run: the first batch was read; nothing was trained or written"

    assert train(Toy(), LoopOptions(output_dir=str(tmp_path / "run"), max_train_steps=2)) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert train(Reading(), settings) == 0 and read == [1, 3]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_a_finished_run_names_the_next_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "opensora"):
        train(Toy(), LoopOptions(output_dir=str(tmp_path), max_train_steps=5))
    assert caplog.messages[-1] == f"next: opensora toy --src {tmp_path}"
    assert any("s once compiled: about 1 s for the other 2" in line for line in caplog.messages)


@pytest.mark.parametrize("command", ["train", "train-vae"])
@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("--report_to wandb", "metrics.jsonl and as TensorBoard events"),
        ("--report_to=tensorboard", "`wandb sync RUN/tensorboard`"),
        ("--with_tracking", "metrics.jsonl and as TensorBoard events"),
        ("--gradient_checkpointing", "every block recomputes its forward"),
        ("--num_train_epochs 3", "set --max_train_steps"),
        ("--num_epochs 3", "set --max_train_steps"),
        ("--lora_rank 16", "all weights are trained, without adapters"),
        ("--use_lora", "all weights are trained, without adapters"),
        ("--rank 4", "all weights are trained, without adapters"),
        ("--mixed_precision bf16", "--precision bf16"),
        ("--bf16", "--precision bf16"),
        ("--fp16 true", "--precision bf16 or fp16"),
        ("--resume", "continues by itself"),
        ("--warmup_ratio 0.1", "--lr_warmup_steps"),
        ("--use_8bit_adam", "--optim muon"),
        ("--allow_tf32", "has no effect"),
        ("--instance_prompt x", "opensora prepare-data"),
        ("--dataset_name x", "opensora prepare-data"),
        ("--push_to_hub", "nothing is uploaded"),
    ],
)
def test_options_of_other_trainers_are_answered(
    command: str, words: str, answer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    name, *values = words.split()
    main([command, name, *values])
    error = capfd.readouterr().err
    assert answer in error and "--help lists them all" not in error


def test_other_names_of_options() -> None:
    from opensora.cli import parse_command

    words = "--vae_latent_folder a --pretrained_model_name_or_path m --per_device_train_batch_size 3"
    options = parse_command(
        "train", [*words.split(), "--save_every", "7", "--num_workers=2", "--grad_accum=2"]
    )
    assert (options.model_path, options.batch_size, options.checkpointing_steps) == ("m", 3, 7)
    assert (options.dataloader_num_workers, options.gradient_accumulation_steps) == (2, 2)


def test_the_packaged_autoencoder_has_a_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "opensora")
    frames = [np.zeros((5, 32, 32, 3), np.uint8)] * 2
    given = {"model_config": "demo", "output_dir": str(tmp_path / "run"), "dry_run": True, "batch_size": 1}
    settings = {"video_num_frames": 5, "resolution": 32, "num_validation_clips": 1}
    assert train_vae(TrainVAEOptions(**given, **settings), data=frames) == 0
    assert "--load_from_checkpoint starts from them" in caplog.text
    caplog.clear()
    assert train_vae(TrainVAEOptions(**given, **settings, load_from_checkpoint="demo"), data=frames) == 0
    assert "starting from the weights of" in caplog.text and not (tmp_path / "run").exists()
