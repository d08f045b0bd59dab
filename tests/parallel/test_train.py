"""Training by two processes against training by one, through the command line; `make parallel` runs more."""

from pathlib import Path

import pytest

from opensora.cli import main
from tests.parallel import launch
from tests.parallel.runs import assert_same, words

pytestmark = pytest.mark.slow


def test_two_processes_share_frames_and_encoding(place: Path) -> None:
    """Clips of five latent frames and three images. Two ranks encode in turn, and five is odd."""
    clips = {
        "num_frames": 17,
        "max_image_size": 32,
        "use_image_num": 3,
        "use_img_from_vid": True,
        "batch_size": 1,
    }
    data = {"video_data": place / "videos.txt", **clips}
    assert main(words(place, "alone", 5, **data)) == 0
    job = launch.run(
        2, ["-m", "opensora", *words(place, "frames", 5, sp_size=2, **data)], place / "frames-logs"
    )
    assert job.code == 0, job
    assert_same(place / "frames", place / "alone", 5)
    assert "step 5/5" in job.terminal and "step 5/5" in job.logs[1]
