"""Helpers for the tests of `opensora upscale` and `opensora interpolate`."""

from pathlib import Path

import numpy as np
import pytest

from opensora.cli import main


def moving(length: int, seed: int = 0, step: int = 4, height: int = 64, width: int = 96) -> np.ndarray:
    """A smooth picture that moves to the right by `step` pixels a frame: uint8 (T, H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((height, width), np.float64)
    phase = rng.uniform(0, 6, (3, 1, 1, 1))
    waves = rng.uniform(0.05, 0.25, (2, 3, 1, 1, 1))
    t = step * np.arange(length)[:, None, None]
    texture = np.sin(waves[0] * (x - t) + phase) * np.cos(waves[1] * y + phase)  # (3, T, H, W)
    return (128 + 100 * texture).astype(np.uint8).transpose(1, 2, 3, 0)


def make_once(target: Path, *words: object) -> None:
    """Run a command that makes `target`, and again: the second run leaves it as it is."""
    command = [str(word) for word in words]
    assert main(command) == 0
    written = target.stat().st_mtime_ns
    assert main(command) == 0 and target.stat().st_mtime_ns == written


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one sentence with which a command refuses its words, with exit code 2."""
    assert main([str(word) for word in words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("opensora: ")]
    assert len(lines) == 1
    return lines[0]
