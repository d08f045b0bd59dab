"""CLIP: parity with the reference on both engines, tokens, pictures and bad folders."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from opensora.models import CLIP
from opensora.models.clip.config import CLIPConfig, weight_shapes
from opensora.models.clip.model import prepare
from opensora.models.clip.tokenizer import CLIPTokenizer
from tests import reference

FOLDER = reference.FOLDER / "clip" / "model"
ENGINES = pytest.mark.parametrize("engine", ["mindspore", "openvino"])


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


@pytest.mark.usefixtures("operator_mode")
@ENGINES
def test_the_reference(engine: str) -> None:
    case, facts = reference.load("clip/outputs"), reference.read_json("clip/clip")
    model = CLIP.from_pretrained(FOLDER, engine=engine)
    found = model.encode_pixels(case["pixels"])
    np.testing.assert_allclose(found, unit(case["image_features"]), atol=2e-5)
    found = model.encode_texts(facts["texts"])
    np.testing.assert_allclose(found, unit(case["text_features"]), atol=2e-5)


def test_tokens_are_the_reference() -> None:
    facts = reference.read_json("clip/clip")
    tokenizer = CLIPTokenizer.from_folder(FOLDER, 20)
    for text, ids in zip(facts["texts"], facts["ids"], strict=True):
        assert tokenizer(text) == ids, text


def test_pictures_are_prepared_as_in_the_reference() -> None:
    """Up to the rounding of the resized levels."""
    case = reference.load("clip/outputs")
    found = prepare(case["image"].astype(np.uint8)[None], 32)
    np.testing.assert_allclose(found, case["pixels"], atol=1.01 / 255 / 0.26)
    assert prepare(np.zeros((2, 90, 50, 3), np.uint8), 32).shape == (2, 3, 32, 32)


def test_sizes_of_the_published_models() -> None:
    base = CLIPConfig.from_dict({"text_config": {}, "vision_config": {}})
    assert sum(int(np.prod(shape)) for shape in weight_shapes(base).values()) == 151_277_312
    large = CLIPConfig.from_dict(
        {
            "projection_dim": 768,
            "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
            "vision_config": {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "patch_size": 14,
            },
        }
    )
    assert sum(int(np.prod(shape)) for shape in weight_shapes(large).values()) == 427_616_512


def test_bad_folders(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(FOLDER, folder)
    (folder / "merges.txt").write_text("#version: 0.2\nq q\n")
    with pytest.raises(ValueError, match="do not fit together"):
        CLIP.from_pretrained(folder)
    (folder / "vocab.json").unlink()
    with pytest.raises(ValueError, match=r"vocab\.json is missing"):
        CLIP.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["hidden_act"] = "relu"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="hidden_act = 'relu', which is not supported"):
        CLIP.from_pretrained(folder)
