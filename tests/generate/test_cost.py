"""What a run takes is counted from configurations and headers of files; time only scales with it."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from opensora.console import memory_text, operations_text, time_text
from opensora.engine import ENGINES
from opensora.engine.rates import Rates, measure_rates
from opensora.generate.cost import DISK, START, Cost, cost, training_cost
from opensora.models import Tiling
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.latte.config import LatteConfig
from opensora.models.latte.cost import forward_flops
from opensora.models.spec import ModelSpec
from opensora.models.t5.config import T5Config
from opensora.models.t5.cost import encode_flops
from opensora.pipeline.settings import Sampling, complete_sampling
from opensora.weights import ModelFolder

WHOLE = VAEPolicy(chunked=False)
RELEASE = Sampling(
    65, 512, 512, fps=24, num_sampling_steps=150, guidance_scale=7.5, sample_method="PNDM", seed=4
)


@pytest.fixture
def release(tmp_path: Path) -> ModelSpec:
    """The release's configurations, without weights."""
    folder = ModelFolder(tmp_path, tmp_path / "65x512x512", tmp_path / "vae", tmp_path / "text_encoder")
    for name, config in (
        ("65x512x512", LatteConfig()),
        ("vae", CausalVAEConfig()),
        ("text_encoder", T5Config()),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(asdict(config)))
    return ModelSpec.read(folder)


def test_the_release_as_published(release: ModelSpec) -> None:
    found = cost(release, RELEASE, WHOLE)
    assert (found.num_steps, found.guided) == (159, True)
    assert found.forward_flops / 1e12 == pytest.approx(37.4, abs=0.05)
    texts = forward_flops(LatteConfig(), (17, 64, 64)) - found.step_flops
    assert found.stage_flops["denoise"] == 2 * (159 * found.step_flops + texts)
    assert found.stage_flops["decode"] / 1e12 == pytest.approx(369.7, abs=0.05)
    assert found.stage_flops["text"] == 2 * encode_flops(T5Config(), 300)


def test_what_a_run_is_made_of(release: ModelSpec) -> None:
    one = cost(release, RELEASE, WHOLE)
    unguided = cost(release, replace(RELEASE, guidance_scale=1.0), WHOLE)
    assert unguided.stage_flops["denoise"] * 2 == one.stage_flops["denoise"]
    three = cost(release, RELEASE, WHOLE, videos=3, texts=4)
    assert three.stage_flops == {"text": 2 * one.stage_flops["text"]} | {
        stage: 3 * one.stage_flops[stage] for stage in ("denoise", "decode")
    }
    assert cost(release, RELEASE, WHOLE, stages=["decode"]).stage_flops == {
        "decode": one.stage_flops["decode"]
    }
    picture = cost(release, replace(RELEASE, num_frames=1), WHOLE)
    assert picture.step_flops == forward_flops(LatteConfig(), (1, 64, 64), temporal=False, texts=0)
    # The reference's tiles at the release's size: 1.56 times the arithmetic.
    tiled = cost(release, RELEASE, VAEPolicy(False, Tiling()))
    assert tiled.stage_flops["decode"] / one.stage_flops["decode"] == pytest.approx(1.56, abs=0.01)
    silent = cost(replace(release, text_encoder=None), RELEASE, WHOLE)
    assert silent.stage_flops["text"] == 0


@pytest.mark.parametrize(
    ("pictures", "kept", "tiling", "encoding", "transformer", "saved"),
    [
        (0, 0, None, 269, 60.7, 3.49),
        (4, 0, None, 273, 65.9, 3.39),
        (0, 28, None, 269, 45.6, 3.97),
        (4, 28, None, 273, 49.5, 3.86),
        (0, 6, Tiling(), 427, 57.5, 4.37),
        (4, 6, Tiling(), 434, 62.4, 4.26),
    ],
)
def test_encoding_in_turn_saves_most_of_a_long_clip(
    release: ModelSpec,
    pictures: int,
    kept: int,
    tiling: Tiling | None,
    encoding: float,
    transformer: float,
    saved: float,
) -> None:
    """The figures of docs/results/parallel.md: a step on each of 8 processes, 221 frames of 512x512."""
    size = replace(RELEASE, num_frames=221)
    step = training_cost(
        release, size, num_images=pictures, processes=8, num_no_recompute=kept, tiling=tiling
    )
    assert (
        step.encode_whole / 1e12 == pytest.approx(encoding, abs=0.6) and step.encode == step.encode_whole // 8
    )
    assert step.transformer / 1e12 == pytest.approx(transformer, abs=0.05)
    assert step.saved == pytest.approx(saved, abs=0.006)


def test_memory_is_ordered_and_halved_weights_count_half(session_model: Path) -> None:
    spec = ModelSpec.find(session_model)
    sampling = complete_sampling(spec)
    full = cost(spec, sampling, WHOLE)
    assert 0 < full.memory_min < full.memory_staged < full.memory_resident
    assert full.disk_bytes == sum(spec.weight_bytes.values())
    half = cost(spec, sampling, WHOLE, weights_dtype="bf16")
    assert full.memory_resident - half.memory_resident == spec.weight_bytes["denoise"] // 2
    larger = cost(spec, replace(sampling, height=1024, width=1024), WHOLE)
    assert larger.memory_min > full.memory_min and larger.memory_staged > full.memory_staged


def test_time_is_operations_over_rate() -> None:
    found = Cost(1, 1, 1, False, {"denoise": 6 * 10**12, "decode": 10**12}, int(DISK), 3, 2, 1)
    for engine in ENGINES:

        def computing(products: float, convolutions: float, engine: str = engine) -> float:
            return found.seconds(engine, Rates(products, convolutions)) - START[engine] - 1

        assert computing(2e11, 2e11) == pytest.approx(2 * computing(4e11, 4e11))
        assert computing(1e15, 1e9) > 1000 > computing(1e15, 1e15)
        assert computing(1e9, 1e15) > 6000


@pytest.mark.parametrize("engine", ENGINES)
def test_the_rates_of_this_machine(engine: str) -> None:
    assert all(1e8 < rate < 1e14 for rate in measure_rates(engine))


def test_numbers_as_people_read_them() -> None:
    assert (
        operations_text(37.4e12) == "37.4 TFLOP"
        and operations_text(5.95e15) == "5.95 PFLOP"
        and operations_text(1e9) == "1 GFLOP"
    )
    assert operations_text(2.5e6) == "2.5 MFLOP"
    assert [time_text(seconds) for seconds in (0.1, 59, 150, 9000, 86400 * 3)] == [
        "1 s",
        "59 s",
        "2.5 minutes",
        "2.5 hours",
        "3.0 days",
    ]
    assert time_text(12 * 3600) == "12 hours"
    assert memory_text(1.5 * 2**30) == "1.5 GiB" and memory_text(3 * 2**19) == "1.5 MiB"
