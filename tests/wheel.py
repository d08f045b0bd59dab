"""The wheel of this checkout in an environment of its own, as a user installs it."""

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


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel."""
    return install(wheel, tmp_path_factory.mktemp("installed"), sys.executable, DEPENDENCIES)


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
