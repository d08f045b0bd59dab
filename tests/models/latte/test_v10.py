"""LatteT2V of Open-Sora-Plan v1.0: known by its config.json, with its own time positions and key mask."""

import json
from pathlib import Path

import numpy as np
import pytest

from opensora.engine import open_engine
from opensora.models import LatteT2V
from opensora.models.latte.config import LatteConfig
from tests import reference

CASES = reference.read_json("latte_v10/video")
CONFIG = reference.read_json("latte_v10/config")
RELEASES = reference.read_json("latte_v10/release_configs")
INPUTS = ("hidden_states", "timestep", "encoder_hidden_states", "encoder_attention_mask", "attention_mask")


def build(engine: str = "openvino", **overrides: object) -> LatteT2V:
    opened = open_engine(engine)
    weights = opened.weights(reference.load("latte_v10/weights"))
    return LatteT2V(LatteConfig.from_dict({**CONFIG, **overrides}), weights, opened)


def run(model: LatteT2V, case: str) -> np.ndarray:
    tensors = reference.load("latte_v10/video")
    inputs = [model.engine.input(tensors[f"{case}.{name}"]) if f"{case}.{name}" in tensors else None
              for name in INPUTS]  # fmt: skip
    return model.engine.output(model(*inputs))


@pytest.mark.parametrize("engine", [pytest.param("mindspore", marks=pytest.mark.slow), "openvino"])
@pytest.mark.parametrize("case", CASES)
def test_output_is_the_references(case: str, engine: str) -> None:
    model = build(engine, **CASES[case].get("config_overrides", {}))
    expected = reference.load("latte_v10/video")[f"{case}.output"]
    np.testing.assert_allclose(run(model, case), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("version", RELEASES["versions"])
def test_released_configurations_are_v10(version: str) -> None:
    settings = dict(RELEASES["versions"][version])
    scale = settings.pop("time_scale")
    config = LatteConfig.from_dict({**RELEASES["common"], **settings})
    assert (config.release, config.time_scale) == ("v1.0", scale)
    assert config.changed(video_length=65).time_scale == 13
    assert LatteConfig.from_dict(config.to_dict()) == config


def test_v11_has_its_own_rule_and_takes_a_scale() -> None:
    config = LatteConfig(video_length=17)
    assert LatteConfig.from_dict(config.to_dict()) == config and config.time_scale == 1
    scaled = LatteConfig.from_dict({**config.to_dict(), "interpolation_scale_1d": 3})
    assert scaled.time_scale == 3 and LatteConfig.from_dict(scaled.to_dict()) == scaled


def test_a_saved_model_stays_v10(tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path)
    assert "use_rope" not in json.loads((tmp_path / "config.json").read_text())
    assert LatteT2V.from_pretrained(tmp_path, engine="openvino").config == model.config


@pytest.mark.parametrize("settings", [{"use_rope": True}, {"compress_kv_factor": 2}])
def test_v10_has_neither_rope_nor_compressed_keys(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="neither rotary positions nor compressed keys"):
        LatteConfig.from_dict(CONFIG).changed(**settings)


def test_a_mask_of_another_shape_is_refused() -> None:
    model = build()
    latents, text = np.zeros((1, 4, 2, 8, 8), np.float32), np.zeros((1, 3, 24), np.float32)
    with pytest.raises(ValueError, match=r"latent_mask has the shape \(1, 16\): it must be \(1, 2, 8, 8\)"):
        model(latents, np.array([3.0]), text, latent_mask=np.ones((1, 16), np.float32))
