"""Worker processes give the same samples as none, and their end is never a hang."""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from opensora.data.loader import Loader
from opensora.data.options import ClipOptions, DataOptions
from opensora.data.samples import SampleSource, Stream
from opensora.data.setup import make_source
from opensora.weights.folder import DEMO
from tests.data.material import write_set
from tests.data.test_samples import same


@dataclass(frozen=True)
class Trouble:
    """A data set whose items do what the test needs, in a worker."""

    action: str
    encoded: ClassVar[bool] = False

    def __len__(self) -> int:
        return 4

    def name(self, index: int) -> str:
        return f"item {index}"

    def captions(self, index: int) -> tuple[tuple[str], int]:
        return ("a caption",), 0

    def visual(self, index: int, rng: np.random.Generator) -> np.ndarray:
        if self.action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action == "exit":
            os._exit(7)
        elif self.action == "sleep":
            time.sleep(60)
        raise AssertionError


@dataclass(frozen=True)
class Report(SampleSource):
    """Says what a worker has imported."""

    def draw(self, number: int) -> dict[str, object]:
        return {"paths": [number], "rejected": [], "modules": sorted(sys.modules), "process": os.getpid()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    data_list = write_set(tmp_path_factory.mktemp("workers"), 12, broken=(5,))
    options = DataOptions(video_data=str(data_list), num_frames=5, max_image_size=16, model_max_length=8)
    return make_source(options, 3, DEMO / "text_encoder")


def trouble(action: str) -> SampleSource:
    return SampleSource(Stream(Trouble(action), None), None, ClipOptions(), 0.0, 0)


def test_samples_do_not_depend_on_the_number_of_workers(source, tmp_path):
    expected = [source.draw(number) for number in range(14)]
    reports = set()
    for workers in (0, 1, 2):
        quarantine = tmp_path / f"quarantine-{workers}.jsonl"
        with Loader(source, workers, quarantine) as loader:
            assert len(loader) == 12
            assert same(loader.samples(range(14)), expected)
            assert same(loader.sample(3), expected[3])
            batch, paths = loader.batch([2, 3])
            assert batch["pixels"].shape == (2, 3, 5, 16, 16) and paths == [
                *expected[2]["paths"],
                *expected[3]["paths"],
            ]
        reports.add(quarantine.read_text())
    (report,) = reports
    (line,) = report.splitlines()  # once, though it was drawn twice
    assert json.loads(line)["path"].endswith("clip, 5.mp4") and json.loads(line)["reason"]
    with Loader(source, 0, quarantine) as loader:  # a run that continues
        loader.samples(range(14))
    assert quarantine.read_text() == report


def test_threads_share_the_workers(source):
    expected = [source.draw(number) for number in range(8)]
    results: dict[int, object] = {}
    with Loader(source, 2) as loader:
        threads = [
            threading.Thread(target=lambda n=n: results.update({n: loader.samples([2 * n, 2 * n + 1])}))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(same(results[n], expected[2 * n : 2 * n + 2]) for n in range(4))


def test_workers_do_not_import_the_framework_and_end_with_the_loader():
    with Loader(Report(None, None, ClipOptions(), 0.0, 0), 1) as loader:
        sample = loader.sample(0)
    assert "mindspore" not in sample["modules"] and "opensora.data.samples" in sample["modules"]
    assert sample["process"] != os.getpid() and not Path(f"/proc/{sample['process']}").exists()


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("die", r"was killed by SIGKILL \(a system does this when memory runs out\)"),
        ("exit", "ended with code 7"),
    ],
)
def test_a_worker_that_dies_is_reported_with_its_reason(action, reason):
    with (
        Loader(trouble(action), 1) as loader,
        pytest.raises(ChildProcessError, match=f"data worker 0 {reason} at sample 9"),
    ):
        loader.sample(9)


def test_a_busy_worker_does_not_hold_the_end_up():
    begun = time.monotonic()
    with Loader(trouble("sleep"), 1) as loader:

        def wait_for_it() -> None:
            with pytest.raises(ChildProcessError):
                loader.sample(0)

        thread = threading.Thread(target=wait_for_it)
        thread.start()
        time.sleep(0.1)
    thread.join(10)
    assert not thread.is_alive() and time.monotonic() - begun < 30


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_stops_above_the_rate(tmp_path, workers):
    data_list = write_set(tmp_path, 8, broken=(0, 1, 2, 3))
    options = DataOptions(video_data=str(data_list), num_frames=5, max_image_size=16, model_max_length=8)
    source = make_source(options, 0, DEMO / "text_encoder")
    with (
        Loader(source, workers, tmp_path / "run" / "quarantine.jsonl", max_bad_rate=0.02) as loader,
        pytest.raises(
            ValueError,
            match=r"3 of \d+ samples .*, more than max_bad_rate 0.02 allows .*quarantine\.jsonl lists all",
        ),
    ):
        loader.samples(range(8))
    assert (tmp_path / "run" / "quarantine.jsonl").is_file()
    with Loader(source, workers, max_bad_rate=0.9) as loader:
        assert len(loader.samples(range(8))) == 8


def test_a_workers_own_error_is_told(tmp_path):
    data_list = write_set(tmp_path, 1, broken=(0,))
    options = DataOptions(video_data=str(data_list), num_frames=5, max_image_size=16, model_max_length=8)
    with (
        Loader(make_source(options, 0, DEMO / "text_encoder"), 1) as loader,
        pytest.raises(ValueError, match="16 samples in a row"),
    ):
        loader.sample(0)
