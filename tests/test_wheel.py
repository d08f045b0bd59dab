"""The wheel, installed into an environment outside the checkout: it has all files, types, and generates."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
DEPENDENCIES = Path(np.__file__).parent.parent
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the package, so that nothing is left in the checkout."""
    place = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "opensora", place / "opensora", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=place, check=True, capture_output=True)
    (built,) = (place / "dist").glob("*.whl")
    return built


def install(wheel: Path, folder: Path, python: str, dependencies: Path) -> Path:
    """A new environment with the wheel's files, which borrows the packages of another. Returns its Python."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = (folder / "lib").glob("python3.*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)  # all that installing a wheel of Python files is
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    return folder / "bin" / "python"


def run(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A program in a process that sees nothing of the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([str(python), *words], capture_output=True, text=True, env=environment)


def generate(python: Path) -> None:
    words = ["a tiger on a green background", "--save_img_path", "out", "--num_sampling_steps", "2"]
    done = run(python, "-m", "opensora", "generate", *words)
    assert done.returncode == 0, done.stderr
    assert Path("out/0000-a_tiger_on_a_green_background.mp4").is_file()


def test_the_wheel_generates_and_has_types(wheel: Path, tmp_path: Path) -> None:
    python = install(wheel, tmp_path / "environment", sys.executable, DEPENDENCIES)
    where = run(
        python, "-c", "import opensora; print(opensora.__file__, opensora.__version__)"
    ).stdout.split()
    assert Path(where[0]).is_relative_to(tmp_path) and where[1][0].isdigit()
    generate(python)
    Path("program.py").write_text(PROGRAM)
    words = [
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        "cache",
        "--python-executable",
        str(python),
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
