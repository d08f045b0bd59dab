from pathlib import Path

import numpy as np
import pytest

from opensora.data.caches.cache import encoder_digest
from tests.data.material import latent_cache, write_set
from tests.small_model import make_model

CAPTIONS = ["a cat", "a dog face on a red background", "a cow", "a blue bird", "two apples", "rain"]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model, and as data videos of twenty frames and latents of five."""
    place = tmp_path_factory.mktemp("parallel")
    make_model(place / "model")
    rng = np.random.default_rng(0)
    moments = rng.standard_normal((len(CAPTIONS), 8, 5, 4, 4), np.float32)
    moments[:, :4] *= 5.0
    latent_cache(place / "latents", CAPTIONS, moments, encoder_digest(place / "model" / "vae"))
    write_set(place, 3, length=20)
    return place
