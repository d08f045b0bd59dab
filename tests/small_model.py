"""A model in the release's layout that is small enough to be compiled in every test run."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from opensora.models import CausalVAE, LatteT2V, T5Encoder
from opensora.models.causal_vae.model import CausalVAEConfig
from opensora.models.latte.model import LatteConfig
from opensora.models.t5.model import T5Config
from opensora.runtime import mindspore
from opensora.weights.folder import DEMO

ms = mindspore()

LATTE = LatteConfig(
    num_layers=1,
    num_attention_heads=2,
    attention_head_dim=8,
    cross_attention_dim=16,
    caption_channels=8,
    sample_size=(4, 4),
    video_length=2,
    model_max_length=12,
)
VAE = CausalVAEConfig(
    hidden_size=16,
    hidden_size_mult=(1, 1, 1, 1),
    num_res_blocks=1,
    norm_num_groups=4,
    decoder_resnet_blocks=("ResnetBlock2D",) * 4,
)
T5 = T5Config(vocab_size=32128, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2)
DEFAULTS = "num_sampling_steps: 3\nsample_method: DPM++2M\nguidance_scale: 4.0\nseed: 7\nfps: 12\n"


def random_latte(rng: np.random.Generator) -> LatteT2V:
    """Fresh weights predict zero: here every weight counts."""
    latte = LatteT2V.initialise(LATTE, rng)
    latte.weights = {
        name: ms.Tensor(rng.normal(0, 0.2, value.shape).astype(np.float32))
        for name, value in latte.weights.items()
    }
    return latte


def make_model(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    random_latte(rng).save_pretrained(folder / "5x32x32")
    CausalVAE.initialise(VAE, rng).save_pretrained(folder / "vae")
    T5Encoder.initialise(T5, rng).save_pretrained(folder / "text_encoder")
    shutil.copy(DEMO / "text_encoder" / "spiece.model", folder / "text_encoder")
    (folder / "generate.yaml").write_text(DEFAULTS)
    return folder


@pytest.fixture(scope="session")
def session_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("release") / "model")


@pytest.fixture
def model(session_model: Path, tmp_path: Path) -> Path:
    """A copy for one test, as ./model in its own folder."""
    return Path(shutil.copytree(session_model, tmp_path / "model"))
