"""A task small enough to compare runs bit by bit, and a process that trains it until it is told to stop."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from opensora.train.loop import train
from opensora.train.options import LoopOptions
from opensora.train.summary import TaskSummary
from opensora.weights import Arrays


class Toy:
    """Momentum descent of w towards batches drawn from the step's own generator."""

    def __init__(self, pause: float = 0.0) -> None:
        self.w, self.momentum = np.full(3, 10.0), np.zeros(3)
        self.pause = pause
        self.steps: list[int] = []

    @property
    def config(self) -> dict[str, int]:
        return {"width": len(self.w)}

    def summary(self) -> TaskSummary:
        return TaskSummary(parameters=3, samples=40, memory=36, checkpoint=24)

    def next_commands(self, run: Path) -> list[str]:
        return [f"opensora toy --src {run}"]

    def batch(self, step: int) -> np.ndarray:
        rng = np.random.default_rng([0, step])
        time.sleep(rng.uniform(0, 0.005))  # batches are ready in another order than they are used
        return rng.normal(step, 1, 3)

    def samples(self, step: int) -> list[str]:
        return [f"sample {step}"]

    def step(self, step: int, batch: np.ndarray) -> dict[str, float]:
        time.sleep(self.pause)
        self.steps.append(step)
        self.momentum = 0.9 * self.momentum + self.w - batch
        self.w = self.w - 0.1 * self.momentum
        return {"loss": float(np.square(self.w - batch).sum()), "batch": float(batch.sum())}

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{step}.txt").write_text(str(self.w))
        return {"validation": float(self.w.sum())}

    def state_files(self) -> Mapping[str, Arrays]:
        return {"model": {"w": self.w}, "optimizer": {"momentum": self.momentum}}

    def write_shard(self, folder: Path) -> None:
        pass  # one process holds everything

    def load_state_files(self, files: Mapping[str, Arrays]) -> None:
        self.w, self.momentum = files["model"]["w"], files["optimizer"]["momentum"]


if __name__ == "__main__":
    options = LoopOptions(
        output_dir=sys.argv[1], max_train_steps=int(sys.argv[2]), checkpointing_steps=100000, log_interval=1
    )
    sys.exit(train(Toy(pause=0.01), options))
