"""A data set of four animations and a model that trains in seconds, for tests of commands."""

import json
import shutil
from pathlib import Path

from opensora.cli import main
from opensora.models.causal_vae.model import CausalVAEConfig
from opensora.models.latte.model import LatteConfig
from opensora.models.t5.model import T5Config
from opensora.weights.folder import DEMO
from tests.demo_data.demo_cache import make_cache

VAE = CausalVAEConfig(
    hidden_size=16,
    hidden_size_mult=(1, 1, 1, 1),
    num_res_blocks=1,
    norm_num_groups=4,
    decoder_resnet_blocks=("ResnetBlock2D",) * 4,
)
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
T5 = T5Config(vocab_size=32128, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2)


def make_place(place: Path) -> Path:
    """Fill a folder with `data`, a data set, and `model`, config.json files and a tokenizer."""
    (place / "data").mkdir()
    make_cache(place / "data")
    for part, config in (("vae", VAE), ("5x32x32", LATTE), ("text_encoder", T5)):
        (place / "model" / part).mkdir(parents=True)
        (place / "model" / part / "config.json").write_text(json.dumps(vars(config)))
    shutil.copy(DEMO / "text_encoder" / "spiece.model", place / "model" / "text_encoder")
    return place


def words(name: str, **options: object) -> list[str]:
    """A command as the shell hands it over."""
    return [name, *(f"--{key}={value}" for key, value in options.items())]


def command(name: str, **options: object) -> None:
    """Run a command in this process."""
    assert main(words(name, **options)) == 0
