"""Small random weights of the networks, as files that a user would name."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.models.test_i3d import random_weights
from tests.models.test_lpips import NARROW, by_formula


@pytest.fixture(scope="session")
def lpips_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file(by_formula(NARROW), path)
    return path


@pytest.fixture(scope="session")
def i3d_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("i3d") / "i3d.safetensors"
    save_file(random_weights(np.random.default_rng(0)), path)
    return path
