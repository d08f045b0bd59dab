"""A data set of four animations and a model that trains in seconds, for tests of commands."""

import json
import shutil
from pathlib import Path

from opensora.cli import main
from opensora.weights.folder import DEMO
from tests.demo_data.demo_cache import make_cache
from tests.small_model import LATTE, T5, VAE


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
