"""The wheel, installed into an environment outside the checkout: it has all files, types, and generates."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.wheel import ROOT, install, run

PYTHON_313 = (ROOT / ".venv-3.13" / "bin" / "python", "python3.13")
"""Made by `make python313`; or one on the path that has the dependencies."""
pytestmark = pytest.mark.slow

PROGRAM = """
from typing import Any
import numpy as np
from opensora import Cancelled, Pipeline, Video, __version__
from opensora.diffusion import SAMPLERS, Sampler
from opensora.models import CausalVAE, LatteT2V, T5Encoder

pipe: Pipeline = Pipeline.from_pretrained("demo")
video: Video = pipe("a cat", seed=0, steps=2)
videos: list[Video] = pipe(["a cat", "a dog"], seed=[0, 1], num_videos_per_prompt=1)
frames: np.ndarray[Any, Any] = video.frames
video.save("a.mp4", sidecar=True)
version: str = __version__

def watch(step: int, total: int, latents: np.ndarray[Any, Any], preview: Any) -> None:
    pipe.cancel()

try:
    pipe("a cat", callback=watch)
except Cancelled as error:
    latents = error.latents
"""


def generate(python: Path) -> None:
    words = ["a tiger on a green background", "--save_img_path", "out", "--num_sampling_steps", "2"]
    done = run(python, "-m", "opensora", "generate", *words)
    assert done.returncode == 0, done.stderr
    assert Path("out/0000-a_tiger_on_a_green_background.mp4").is_file()


def test_the_wheel_generates_and_has_types(installed: Path) -> None:
    facts = "import opensora; print(opensora.__file__, opensora.__version__)"
    where, version = run(installed, "-c", facts).stdout.split()
    assert Path(where).is_relative_to(installed.parent.parent) and version[0].isdigit()
    generate(installed)
    Path("program.py").write_text(PROGRAM)
    words = [
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        "cache",
        "--python-executable",
        str(installed),
        "program.py",
    ]
    checked = run(Path(sys.executable), *words)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_python_3_13_generates_without_mindspore(wheel: Path, tmp_path: Path) -> None:
    facts = "import av, json, numpy, openvino, sys; print(json.dumps([sys.executable, numpy.__file__]))"
    for candidate in PYTHON_313:
        found = shutil.which(candidate)
        answer = None if found is None else run(Path(found), "-c", facts)
        if found is not None and answer is not None and answer.returncode == 0:
            break
    else:
        pytest.skip("there is no Python 3.13 with the package's dependencies: run `make python313`")
    python = install(wheel, tmp_path / "environment", found, Path(json.loads(answer.stdout)[1]).parent.parent)
    generate(python)
    program = (
        "import numpy, sys; from opensora import Pipeline; "
        "Pipeline.from_pretrained('demo')('a tiger', steps=1, num_frames=1); "
        "print(numpy.__version__[0], 'mindspore' in sys.modules)"
    )
    assert run(python, "-c", program).stdout.split() == ["2", "False"]
    refused = run(python, "-m", "opensora", "train", "--model_path", "demo", "--video_data", "none.txt")
    assert refused.returncode == 2 and "it has wheels for Python 3.11 and 3.12" in refused.stderr
