"""One training step against the reference's: loss terms, gradients, norm, and the update of AdamW."""

from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.diffusion import GaussianDiffusion
from opensora.engine import ENGINES, Engine, choose_training_engine
from opensora.engine.openvino import capabilities
from opensora.models.latte.model import LatteConfig, LatteT2V
from opensora.train.optim import AdamW
from opensora.train.options import OptimizerOptions
from opensora.train.t2v import Batch, step_gradients, train_step
from tests import reference

OPTIONS = OptimizerOptions(learning_rate=2e-5, lr_warmup_steps=0, group_strategy="all")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return reference.load("diffusion/train_step")


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return choose_training_engine(request.param)


@pytest.fixture(scope="module")
def step(tensors: dict[str, np.ndarray], engine: Engine) -> Any:
    """(terms, gradients, norm, how far each weight moved)."""
    config = LatteConfig.from_dict(reference.read_json("latte/config"))
    weights = {name: ms.Tensor(value) for name, value in reference.load("latte/weights").items()}
    model = LatteT2V(config, weights, engine)
    before = {name: value.asnumpy().copy() for name, value in model.weights.items()}
    terms, gradients, norm = train_step(model, batch_of(tensors), AdamW(OPTIONS))
    moved = {name: value.asnumpy() - before[name] for name, value in model.weights.items()}
    return terms, gradients, norm, moved, before


def batch_of(tensors: dict[str, np.ndarray]) -> Batch:
    return Batch(
        latents=tensors["x_start"],
        timestep=tensors["t"],
        noise=tensors["noise"],
        text_embeds=tensors["encoder_hidden_states"],
        text_mask=tensors["encoder_attention_mask"],
        latent_mask=tensors["attention_mask"],
        num_images=2,
    )


def test_weights_of_samples(step: Any, tensors: dict[str, np.ndarray], engine: Engine) -> None:
    """Weighted gradients are the weighted mean of the samples' own."""
    terms, _, _, _, before = step
    model = LatteT2V(
        LatteConfig.from_dict(reference.read_json("latte/config")),
        {name: ms.Tensor(value) for name, value in before.items()},
        engine,
    )
    name = "proj_out.weight"
    count = len(tensors["t"])
    weight = np.arange(1, count + 1, dtype=np.float32)
    weighted, gradients, _ = step_gradients(model, Batch(**batch_of(tensors), weight=weight))
    alone = [
        step_gradients(model, Batch(**batch_of(tensors), weight=count * row))[1][name].asnumpy()
        for row in np.eye(count, dtype=np.float32)
    ]
    np.testing.assert_allclose(weighted["loss"].asnumpy(), weight * terms["loss"].asnumpy(), rtol=1e-5)
    expected = np.tensordot(weight, alone, 1) / count
    np.testing.assert_allclose(
        gradients[name].asnumpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


def test_a_loss_of_ones_own(step: Any, tensors: dict[str, np.ndarray], engine: Engine) -> None:
    """The diffusion loss as such a function gives the same step; one without a value a sample is refused."""
    model = LatteT2V(
        LatteConfig.from_dict(reference.read_json("latte/config")),
        {name: ms.Tensor(value) for name, value in step[4].items()},
        engine,
    )
    weight = np.arange(1, len(tensors["t"]) + 1, dtype=np.float32)
    batch = Batch(**batch_of(tensors), weight=weight)

    def doubled(output: Any, latents: Any, noise: Any, timestep: Any, mask: Any) -> Any:
        return 2 * GaussianDiffusion().loss(output, latents, timestep, noise, mask)[0]

    expected, gradients, by_text = step_gradients(model, batch, 4.0)
    found, own, own_by_text = step_gradients(model, batch, 2.0, loss=doubled)
    np.testing.assert_allclose(found["loss"].asnumpy(), 2 * expected["loss"].asnumpy(), rtol=1e-6)
    np.testing.assert_array_equal(found["mse"].asnumpy(), expected["mse"].asnumpy())
    pairs = [(own[name], gradients[name]) for name in gradients] + [(own_by_text, by_text)]
    largest = max(float(np.abs(two.asnumpy()).max()) for _, two in pairs)
    for one, two in pairs:
        np.testing.assert_allclose(one.asnumpy(), two.asnumpy(), rtol=0, atol=1e-6 * largest)

    for found, wrong in ((r"\(\)", lambda *inputs: doubled(*inputs).mean()), ("ndarray", lambda *_: weight)):
        with pytest.raises(ValueError, match=f"returned {found}: return a tensor with a value for each"):
            step_gradients(model, batch, loss=wrong)


@pytest.mark.parametrize("layers", [1, 99])
def test_layers_that_keep_what_they_compute_change_no_number(
    step: Any, tensors: dict[str, np.ndarray], engine: Engine, layers: int
) -> None:
    """Of some layers or of all; the mask and the text's gradient included."""
    _, _, _, _, before = step
    model = LatteT2V(
        LatteConfig.from_dict(reference.read_json("latte/config")),
        {name: ms.Tensor(value) for name, value in before.items()},
        engine,
    )
    terms, gradients, by_text = step_gradients(model, batch_of(tensors))
    again, kept, kept_by_text = step_gradients(model, batch_of(tensors), num_no_recompute=layers)
    np.testing.assert_array_equal(again["loss"].asnumpy(), terms["loss"].asnumpy())
    assert sorted(kept) == sorted(gradients)
    for name, value in {**gradients, "text": by_text}.items():
        if name.endswith("to_k.bias"):
            continue  # no gradient, only rounding
        other = kept_by_text if name == "text" else kept[name]
        np.testing.assert_allclose(
            other.asnumpy(), value.asnumpy(), rtol=0, atol=2e-6 * np.abs(value.asnumpy()).max(), err_msg=name
        )


def named(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    assert len(found) == 16
    return found


def test_loss_terms(step: Any, tensors: dict[str, np.ndarray]) -> None:
    for name, value in step[0].items():
        np.testing.assert_allclose(value.asnumpy(), tensors[name], rtol=1e-5, err_msg=name)


def test_gradients_and_their_norm(step: Any, tensors: dict[str, np.ndarray]) -> None:
    _, gradients, norm, _, _ = step
    assert norm == pytest.approx(float(tensors["grad_norm"]), rel=1e-5)
    for name, expected in named(tensors, "grad.").items():
        np.testing.assert_allclose(
            gradients[name].asnumpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=name
        )


def test_a_step_with_products_in_bfloat16(tensors: dict[str, np.ndarray]) -> None:
    """The reference's loss and gradients but for rounding, which is not that of float32."""
    if "BF16" not in capabilities():
        with pytest.raises(ValueError, match="needs a processor that computes with it"):
            choose_training_engine("openvino", "bf16")
        return
    weights = {name: ms.Tensor(value) for name, value in reference.load("latte/weights").items()}
    config = LatteConfig.from_dict(reference.read_json("latte/config"))
    model = LatteT2V(config, weights, choose_training_engine("openvino", "bf16"))
    terms, gradients, norm = train_step(model, batch_of(tensors), AdamW(OPTIONS))
    np.testing.assert_allclose(terms["loss"].asnumpy(), tensors["loss"], rtol=5e-3)
    assert norm == pytest.approx(float(tensors["grad_norm"]), rel=5e-3)
    differences = []
    for name, expected in named(tensors, "grad.").items():
        found = gradients[name].asnumpy()
        assert found.dtype == np.float32
        differences.append(float(np.linalg.norm(found - expected) / np.linalg.norm(expected)))
    assert 1e-4 < max(differences) < 0.03


def test_where_the_optimizer_moves_the_weights(step: Any, tensors: dict[str, np.ndarray]) -> None:
    _, _, _, moved, before = step
    for name, expected in named(tensors, "after_step.").items():
        np.testing.assert_allclose(moved[name], expected - before[name], rtol=0, atol=2e-6, err_msg=name)


def test_every_weight_that_the_forward_reads_has_a_gradient(step: Any) -> None:
    _, gradients, _, _, before = step
    assert set(before) - set(gradients) == {"caption_projection.y_embedding"} & set(before)
    assert all(
        isinstance(value, ms.Tensor) and value.shape == before[name].shape
        for name, value in gradients.items()
    )
