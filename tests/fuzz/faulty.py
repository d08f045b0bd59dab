"""Readers with the faults that the fuzzer must survive and tell."""

import os
import time
from pathlib import Path

import numpy as np

from tests.fuzz.readers import Reader


def _make(folder: Path) -> None:
    (folder / "a.txt").write_text("x")


READERS = {
    "die": Reader(_make, lambda folder: os._exit(9)),
    "fine": Reader(_make, lambda folder: None),
    "hang": Reader(_make, lambda folder: time.sleep(1000)),
    "memory": Reader(_make, lambda folder: np.ones(3 * 2**30, np.uint8)),
}
