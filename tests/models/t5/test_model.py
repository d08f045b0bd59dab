import itertools
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from opensora.engine import ENGINES
from opensora.engine.mindspore import set_jit
from opensora.models.t5.blocks import position_buckets
from opensora.models.t5.model import (
    EMBEDDING,
    TIED_EMBEDDING,
    T5Config,
    T5Encoder,
    weight_shapes,
)
from opensora.weights import TensorSource, WeightsError
from tests import reference
from tests.models import published

FOLDER = reference.FOLDER / "t5"
TINY = T5Config(vocab_size=40, d_model=8, d_kv=4, d_ff=12, num_layers=3, num_heads=2)


@pytest.fixture
def encoder(tmp_path: Path) -> T5Encoder:
    return T5Encoder.from_pretrained(release(tmp_path, reference.load("t5/weights")))


def release(folder: Path, weights: dict[str, np.ndarray]) -> Path:
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text((FOLDER / "config.json").read_text())
    return folder


def cases() -> dict[str, Any]:
    return {name: ms.Tensor(value) for name, value in reference.load("t5/cases").items()}


def mean_of_squares(output: Any) -> Any:
    return (output * output).mean()


def assert_close_to_reference(encoder: T5Encoder) -> None:
    case = cases()
    masked = encoder(case["input_ids"], case["attention_mask"]).asnumpy()
    np.testing.assert_allclose(masked, case["output"].asnumpy(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(
        encoder(case["input_ids"]).asnumpy(), case["output_nomask"].asnumpy(), rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_output_is_the_reference(tmp_path: Path, engine: str) -> None:
    folder = release(tmp_path, reference.load("t5/weights"))
    assert_close_to_reference(T5Encoder.from_pretrained(folder, engine=engine))


@pytest.mark.parametrize("loaded", [T5Encoder.from_pretrained, T5Encoder.streamed])
def test_texts_one_by_one_on_openvino_are_the_reference(tmp_path: Path, loaded: Any) -> None:
    encoder = loaded(release(tmp_path, reference.load("t5/weights")), engine="openvino")
    case = reference.load("t5/cases")
    embeds = encoder.each(case["input_ids"], case["attention_mask"])
    np.testing.assert_allclose(embeds, case["output"], rtol=0, atol=2e-5)


def test_openvino_has_no_gradients(tmp_path: Path) -> None:
    encoder = T5Encoder.from_pretrained(release(tmp_path, reference.load("t5/weights")), engine="openvino")
    with pytest.raises(ValueError, match="engine='mindspore'"):
        encoder.value_and_grad(mean_of_squares, cases()["input_ids"])


@pytest.mark.usefixtures("operator_mode")
def test_output_is_the_reference_operator_by_operator(encoder: T5Encoder) -> None:
    assert_close_to_reference(encoder)


def test_padding_does_not_change_the_tokens(encoder: T5Encoder) -> None:
    case = cases()
    short = encoder(case["input_ids"][2:, :3]).asnumpy()
    padded = encoder(case["input_ids"], case["attention_mask"]).asnumpy()
    np.testing.assert_allclose(padded[2:, :3], short, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kept", [(EMBEDDING,), (TIED_EMBEDDING,), (EMBEDDING, TIED_EMBEDDING)])
def test_embedding_under_either_name(tmp_path: Path, kept: tuple[str, ...]) -> None:
    weights = reference.load("t5/weights")
    embedding = weights.pop(EMBEDDING)
    del weights[TIED_EMBEDDING]
    extra = {
        "decoder.final_layer_norm.weight": np.ones(32, np.float32),
        "lm_head.weight": np.ones((96, 32), np.float32),
    }
    loaded = T5Encoder.from_pretrained(
        release(tmp_path, {**weights, **extra, **dict.fromkeys(kept, embedding)})
    )
    assert set(loaded.weights) == {*weights, EMBEDDING}
    np.testing.assert_array_equal(loaded.weights[EMBEDDING].asnumpy(), embedding)


class Watched(TensorSource):
    """Counts reads, and the bytes of arrays that were read and are still alive."""

    def __init__(self, source: TensorSource) -> None:
        super().__init__(source._where)
        self.reads: Counter[str] = Counter()
        self.alive = self.peak = 0

    def __getitem__(self, name: str) -> np.ndarray:
        value = super().__getitem__(name)
        self.reads[name] += 1
        self.alive += value.nbytes
        self.peak = max(self.peak, self.alive)
        weakref.finalize(value, self._gone, value.nbytes)
        return value

    def _gone(self, size: int) -> None:
        self.alive -= size


def test_layer_by_layer_is_the_same_to_the_bit(encoder: T5Encoder, tmp_path: Path) -> None:
    case = reference.load("t5/cases")
    ids, mask = case["input_ids"], case["attention_mask"]
    streamed = T5Encoder.streamed(tmp_path)
    watched = streamed.weights.arrays = Watched(streamed.weights.arrays)
    embeds = streamed.each(ids, mask)
    np.testing.assert_array_equal(embeds, encoder.each(ids, mask))
    rows = [encoder(ms.Tensor(ids[i : i + 1]), ms.Tensor(mask[i : i + 1])).asnumpy()[0] for i in range(3)]
    np.testing.assert_array_equal(embeds, rows)
    np.testing.assert_allclose(embeds, case["output"], rtol=0, atol=2e-5)

    assert EMBEDDING not in watched.reads
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    assert watched.reads == Counter({name: 1 for name in watched if name != EMBEDDING}) + Counter({bias: 1})


def test_layer_by_layer_from_shards_as_pytorch_writes_them() -> None:
    folder = published.RELEASE / "text_encoder"
    loaded = T5Encoder.from_pretrained(folder)
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(0, loaded.config.vocab_size, (2, 5)).astype(np.int32), np.ones((2, 5), np.int32)
    np.testing.assert_array_equal(T5Encoder.streamed(folder).each(ids, mask), loaded.each(ids, mask))


def test_no_more_than_two_layers_are_alive(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    deep = T5Encoder.initialise(replace(TINY, num_layers=8), rng)
    deep.save_pretrained(tmp_path, dtype="bfloat16")
    streamed = T5Encoder.streamed(tmp_path)
    watched = streamed.weights.arrays = Watched(streamed.weights.arrays)
    streamed.each(rng.integers(0, 40, (2, 5)).astype(np.int32), np.ones((2, 5), np.int32))
    layer = sum(
        value.asnumpy().nbytes for name, value in deep.weights.items() if name.startswith("encoder.block.1.")
    )
    # The framework holds the arguments of its last call while the next layer is read.
    assert layer < watched.peak < 2.5 * layer


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    weights = reference.load("t5/weights")
    del weights[EMBEDDING], weights[TIED_EMBEDDING], weights["encoder.block.1.layer.0.layer_norm.weight"]
    with pytest.raises(
        WeightsError, match=r"2 missing: shared\.weight, encoder\.block\.1\.layer\.0\.layer_norm\.weight"
    ):
        T5Encoder.from_pretrained(release(tmp_path, weights))


def test_save_pretrained_can_be_loaded(encoder: T5Encoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path / "saved")
    loaded = T5Encoder.from_pretrained(tmp_path / "saved")
    assert loaded.config == encoder.config
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    assert set(stored) == set(encoder.weights)
    for name, value in encoder.weights.items():
        np.testing.assert_array_equal(stored[name], value.asnumpy())
    assert_close_to_reference(loaded)


def test_another_feed_forward_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'relu', which is not supported"):
        T5Config.from_dict({"feed_forward_proj": "relu", "model_type": "t5"})


def test_every_distance_falls_into_its_bucket() -> None:
    length = 300
    buckets = position_buckets(length)
    assert buckets.dtype == np.int32
    for query, key in itertools.product((0, 150, length - 1), range(length)):
        assert buckets[query, key] == bucket_by_integers(key - query), (query, key)


def test_buckets_at_the_powers_of_two() -> None:
    # The distances where an inexact logarithm chooses wrongly, and the last ones of the buckets before.
    before = position_buckets(300)[
        299, [299 - distance for distance in (7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 299)]
    ]
    assert before.tolist() == [7, 8, 9, 10, 11, 12, 13, 14, 15, 15, 15]


def bucket_by_integers(offset: int) -> int:
    """32 buckets up to distance 128 without logarithms: bucket 8 + k starts where distance^2 >= 64 * 2^k,
    since 2 log2(d / 8) >= k.
    """
    distance = abs(offset)
    bucket = distance if distance < 8 else 8 + sum(distance**2 >= 64 * 2**k for k in range(1, 8))
    return bucket + (16 if offset > 0 else 0)


@pytest.mark.parametrize("jit", [True, False])
def test_gradients_equal_those_of_the_whole_function(encoder: T5Encoder, jit: bool) -> None:
    case = cases()
    names = list(encoder.weights)

    def whole(*tensors: Any) -> Any:
        return mean_of_squares(
            T5Encoder(encoder.config, dict(zip(names, tensors, strict=True)))(
                case["input_ids"], case["attention_mask"]
            )
        )

    try:
        set_jit(jit)
        loss, gradients = encoder.value_and_grad(
            mean_of_squares, input_ids=case["input_ids"], attention_mask=case["attention_mask"]
        )
        set_jit(False)
        expected_loss, expected = ms.value_and_grad(whole, tuple(range(len(names))))(
            *encoder.weights.values()
        )
    finally:
        set_jit(True)
    assert sorted(gradients) == sorted(names)
    np.testing.assert_allclose(loss.asnumpy(), expected_loss.asnumpy(), rtol=1e-5)
    for name, value in zip(names, expected, strict=True):
        largest = np.abs(value.asnumpy()).max()
        assert largest > 0
        np.testing.assert_allclose(
            gradients[name].asnumpy(), value.asnumpy(), rtol=0, atol=1e-4 * largest, err_msg=name
        )


def test_gradient_along_a_direction_is_the_slope_of_the_loss() -> None:
    rng = np.random.default_rng(1)
    encoder = T5Encoder.initialise(TINY, rng)
    ids = ms.Tensor(rng.integers(0, TINY.vocab_size, (2, 6)).astype(np.int32))
    mask = ms.Tensor(np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], np.int32))
    target = ms.Tensor(rng.normal(size=(2, 6, 8)).astype(np.float32))

    def loss_of(output: Any) -> Any:
        return ((output - target) ** 2).mean()

    _, gradients = encoder.value_and_grad(loss_of, ids, mask)
    for suffix in (
        "shared.weight",
        "relative_attention_bias.weight",
        "block.1.layer.0.SelfAttention.q.weight",
        "final_layer_norm.weight",
    ):
        name = next(name for name in encoder.weights if name.endswith(suffix))
        before = encoder.weights[name].asnumpy()
        gradient = gradients[name].asnumpy()
        step = 1e-2 * gradient / np.linalg.norm(gradient)
        losses = []
        for sign in (1, -1):
            moved = T5Encoder(TINY, {**encoder.weights, name: ms.Tensor(before + sign * step)})
            losses.append(float(loss_of(moved(ids, mask)).asnumpy()))
        assert (losses[0] - losses[1]) / 2 == pytest.approx(float((gradient * step).sum()), rel=2e-2), name


def test_unused_rows_of_the_embedding_have_no_gradient(encoder: T5Encoder) -> None:
    case = cases()
    output, tape = encoder.forward_with_tape(case["input_ids"])
    gradients, _ = tape.gradients([(output, ms.ops.ones_like(output))])
    used = np.unique(case["input_ids"].asnumpy())
    rows = np.abs(gradients[EMBEDDING].asnumpy()).max(axis=1)
    assert rows[used].min() > 0
    assert np.delete(rows, used).max() == 0


def test_fresh_weights_keep_the_scale_of_t5() -> None:
    config = T5Config(vocab_size=500, d_model=64, d_kv=16, d_ff=96, num_layers=1, num_heads=8)
    weights = {
        name: value.asnumpy()
        for name, value in T5Encoder.initialise(config, np.random.default_rng(0)).weights.items()
    }
    assert {name: value.shape for name, value in weights.items()} == weight_shapes(config)
    layer = "encoder.block.0.layer."
    deviations = {
        EMBEDDING: 1.0,
        layer + "0.SelfAttention.q.weight": 1 / np.sqrt(64 * 16),
        layer + "0.SelfAttention.k.weight": 1 / 8,
        layer + "0.SelfAttention.v.weight": 1 / 8,
        layer + "0.SelfAttention.o.weight": 1 / np.sqrt(128),
        layer + "0.SelfAttention.relative_attention_bias.weight": 1 / 8,
        layer + "1.DenseReluDense.wi_0.weight": 1 / 8,
        layer + "1.DenseReluDense.wi_1.weight": 1 / 8,
        layer + "1.DenseReluDense.wo.weight": 1 / np.sqrt(96),
    }
    for name, deviation in deviations.items():
        assert weights[name].std() == pytest.approx(deviation, rel=0.1), name
    assert (weights["encoder.final_layer_norm.weight"] == 1).all()


def test_one_compilation_serves_all_layers(encoder: T5Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from opensora.models.t5 import model as t5

    seen = []

    def record(weights: Any, x: Any, *rest: Any) -> Any:
        seen.append((sorted(weights), x.shape))
        return x

    monkeypatch.setattr(t5.LAYER, "_compiled", record)
    encoder(cases()["input_ids"])
    assert len(seen) == encoder.config.num_layers
    assert all(item == seen[0] for item in seen)
