"""Scores of a class-conditional model of the demo's subjects."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opensora.cli import main
from opensora.demo_data.subjects import score_subjects, subject_table
from opensora.models import Latte
from opensora.models.latte_class.config import LatteClassConfig
from tests.demo_data.demo_cache import LOOKS, make_cache

NAMES = tuple(sorted(LOOKS))


def test_renderings_are_right_and_others_are_named(tmp_path: Path) -> None:
    renderer = make_cache(tmp_path)

    def generate(subject: str, seed: int) -> np.ndarray:
        shown = "tiger" if subject == "ghost" else subject
        return renderer.render(shown, "blue", 5, 64, np.random.default_rng(seed)).video

    scores, clips = score_subjects(renderer, NAMES, generate, clips=2, seed=7)
    assert len(clips) == 8 and [score.seed for score in scores] == list(range(7, 15))
    assert [score.right for score in scores] == [score.subject != "ghost" for score in scores]
    lines = subject_table(scores).splitlines()
    assert lines[0] == "subject right, %: 75.0 (6 of 8)" and "ghost (seed 9): shows tiger" in lines[1]
    with pytest.raises(ValueError, match="the class 'unicorn' is no subject"):
        score_subjects(renderer, ("unicorn",), generate)


def test_the_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that was never trained, with the autoencoder of `model`."""
    (tmp_path / "cache").mkdir()
    make_cache(tmp_path / "cache")
    config = LatteClassConfig(
        num_layers=1, num_attention_heads=2, attention_head_dim=8, num_classes=4, class_names=NAMES,
        sample_size=(4, 4), video_length=2,
    )  # fmt: skip
    Latte.initialise(config, np.random.default_rng(0)).save_pretrained("classes")
    words = (
        "evaluate-demo --demo_data cache --model_path model --class_model classes --num_frames 5 --size 32"
    )
    words += " --num_sampling_steps 2 --output scores.json --contact_sheet sheet.png"
    assert main(words.split()) == 0
    assert capsys.readouterr().out.startswith("subject right, %: ")
    content = json.loads(Path("scores.json").read_text())
    assert [clip["subject"] for clip in content["clips"]] == list(NAMES)
    with Image.open("sheet.png") as sheet:
        assert sheet.size[0] > 32
