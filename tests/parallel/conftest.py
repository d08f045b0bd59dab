from pathlib import Path

import numpy as np
import pytest

from opensora.data.cache import write_latents
from opensora.models.latte_config import LatteConfig
from opensora.models.t5_config import T5Config
from opensora.weights import save_weights
from opensora.weights.folder import DEMO

LATTE = LatteConfig(
    num_layers=1, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16, caption_channels=8, sample_size=(4, 4),
    video_length=5, model_max_length=12,
)  # fmt: skip
T5 = T5Config(vocab_size=32128, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2)
CAPTIONS = ["a cat", "a dog face on a red background", "a cow", "a blue bird", "two apples", "rain"]
FRAMES = 5


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with latents of clips of five latent frames, and the configuration of a small model."""
    place = tmp_path_factory.mktemp("parallel")
    for part, config in (("vae", {}), ("17x32x32", vars(LATTE)), ("text_encoder", vars(T5))):
        folder = place / "model" / part
        save_weights(folder, dict(config), {})
        next(folder.glob("*.safetensors")).unlink()
    (place / "model" / "text_encoder" / "spiece.model").write_bytes((DEMO / "text_encoder" / "spiece.model").read_bytes())
    rng = np.random.default_rng(0)
    moments = rng.standard_normal((len(CAPTIONS), 8, FRAMES, 4, 4), np.float32)
    moments[:, :4] *= 5.0
    write_latents(place / "latents", CAPTIONS, [moments])
    return place
