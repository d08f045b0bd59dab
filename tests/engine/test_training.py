"""Gradients of OpenVINO's graphs: of every function of `F` that is trained, and of tapes."""

from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.engine import EngineError, choose_training_engine, training
from opensora.engine.block import Block
from opensora.engine.mindspore import Tape, set_jit
from opensora.engine.openvino import OpenVINO, capabilities
from opensora.nn import F
from opensora.nn.window import UNPADDED, ConvWindow


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def tensors(*arrays: np.ndarray) -> tuple[ms.Tensor, ...]:
    return tuple(map(ms.Tensor, arrays))


def function(name: str) -> Any:
    """A function of `F`, in the form of the engine that runs when it is called."""
    return lambda *inputs: getattr(F, name)(*inputs)


WHOLE = np.array([[3, 0, 3], [1, 1, 2]], np.int32)
CASES: dict[str, tuple[Any, tuple[np.ndarray, ...]]] = {
    "arithmetic": (
        lambda x, y: (2.0 - x) * y + 3.0 * x / 4.0 - (y - 1.0) * x + (-x),
        (array(3, 4), array(1, 4)),
    ),
    "product": (function("product"), (array(5, 3), array(4, 3))),
    "linear": (
        lambda x, w, b: F.linear({"a.weight": w, "a.bias": b}, "a", x),
        (array(2, 3, 4), array(5, 4), array(5)),
    ),
    "silu": (function("silu"), (array(3, 4),)),
    "gelu": (function("gelu"), (3 * array(3, 4),)),
    "relu": (function("relu"), (array(3, 4),)),
    "leaky": (lambda x: F.leaky_relu(x, 0.2), (array(2, 3, 4, 4),)),
    "prelu": (function("prelu"), (array(2, 3, 4, 4), array(3))),
    "exp": (function("exp"), (array(3, 4),)),
    "log": (lambda x: F.log(x * x + 0.1), (array(3, 4),)),
    "abs": (function("abs"), (array(3, 4),)),
    "maximum": (lambda x, y: F.maximum(x, 0.5) * F.maximum(x, y), (array(3, 4), array(3, 1))),
    "where": (lambda x, y: F.where(x > 0.3, x * y, F.where(y < 0.0, 2.0 * x, y)), (array(3, 4), array(3, 1))),
    "sigmoid": (function("sigmoid"), (array(1),)),
    "clamp": (lambda x: F.clamp(x, -0.5, 0.5), (array(3, 4),)),
    "modulate": (function("modulate"), (array(2, 3, 4, 5), array(2, 1, 1, 5), array(2, 1, 1, 5, seed=1))),
    "gate": (function("add_gated"), (array(2, 3, 4, 5), array(2, 1, 1, 5), array(2, 3, 4, 5, seed=1))),
    "layer_norm": (function("layer_norm"), (array(2, 3, 8),)),
    "rms_norm": (function("rms_norm"), (array(2, 3, 8), array(8))),
    "attention": (
        function("attention"),
        (array(2, 3, 5, 4), array(2, 3, 6, 4), array(2, 3, 6, 4, seed=1), array(2, 3, 5, 6)),
    ),
    "heads": (lambda x: F.merge_heads(F.split_heads(x, 2) * 2.0), (array(2, 3, 8),)),
    "permute": (lambda x: F.permute(x, (1, 0, 2)), (array(2, 3, 4),)),
    "transpose": (lambda x: F.transpose(x, (2, 0, 1)), (array(2, 3, 4),)),
    "gather": (lambda table, rows: F.gather(table, rows, 0), (array(4, 5), WHOLE)),
    "reduce": (
        lambda x: F.reshape(F.sum(x, (0, 2)), (1, 3)) + F.mean(F.mean(x, 0), 1, True),
        (array(2, 3, 4),),
    ),
    "joined": (lambda x, y: F.concat((x, y, x), 1) * 2.0, (array(2, 3), array(2, 2))),
    "stack": (lambda x, y: F.stack((x, y), 1), (array(2, 3), array(2, 3, seed=1))),
    "chunk": (lambda x: F.chunk(x, 2, 1)[1] * F.chunk(x, 2, 1)[0], (array(2, 4, 3),)),
    "chunk of which one is used": (lambda x: F.chunk(x, 2, 1)[1] * 2.0, (array(2, 4, 3),)),
    "slices": (lambda x: x[:, 1:] * x[:, :-1] + x[0, 2], (array(2, 4, 3),)),
    "steps": (lambda x: x[1::3] * 2.0, (array(8, 3),)),
    "tile": (lambda x: F.tile(x, (2, 1, 3)), (array(2, 3, 1),)),
    "broadcast": (lambda x: F.broadcast_to(x, (4, 2, 3)), (array(2, 1),)),
    "conv2d": (function("conv2d"), (array(2, 3, 6, 5), array(4, 3, 3, 3), array(4))),
    "conv2d of every second pixel": (
        lambda x, w, b: F.conv2d(x, w, b, ConvWindow((0, 1, 0, 1), 2)),
        (array(2, 3, 6, 8), array(4, 3, 3, 3), array(4)),
    ),
    "pointwise": (
        lambda x, w, b: F.causal_conv3d(x, w, b, 2, UNPADDED),
        (array(6, 3, 4, 4), array(4, 3, 1, 1, 1), array(4)),
    ),
    "causal_conv3d": (
        lambda x, w, b: F.causal_conv3d(x, w, b, 2),
        (array(6, 3, 4, 5), array(4, 3, 3, 3, 3), array(4)),
    ),
    "causal_conv3d of one frame": (
        lambda x, w, b: F.causal_conv3d(x, w, b, 1),
        (array(1, 3, 4, 5), array(4, 3, 3, 3, 3), array(4)),
    ),
    "causal_conv3d of every second frame": (
        lambda x, w, b: F.causal_conv3d(x, w, b, 1, ConvWindow(time_stride=2)),
        (array(5, 3, 4, 5), array(4, 3, 3, 3, 3), array(4)),
    ),
    "causal_conv3d of every second pixel": (
        lambda x, w, b: F.causal_conv3d(x, w, b, 1, ConvWindow((0, 1, 0, 1), 2)),
        (array(5, 3, 4, 6), array(4, 3, 1, 3, 3), array(4)),
    ),
    "upsampling_conv": (
        lambda x, w, b: F.upsampling_conv(x, w, b, 2),
        (array(6, 3, 4, 5), array(4, 3, 1, 3, 3), array(4)),
    ),
    "time_upsampling_conv": (
        lambda x, w, b: F.time_upsampling_conv(x, w, b, 2),
        (array(6, 3, 4, 5), array(4, 3, 3, 3, 3), array(4)),
    ),
    "group_norm": (
        lambda x, w, b: F.group_norm(x, w, b, 2, 2),
        (array(6, 4, 3, 5), array(4), array(4, seed=1)),
    ),
    "group_norm of every frame": (
        lambda x, w, b: F.group_norm(x, w, b, 3, 2),
        (array(3, 4, 3, 5), array(4), array(4, seed=1)),
    ),
    "double_pixels": (function("double_pixels"), (array(2, 3, 2, 4),)),
    "video": (lambda x: F.from_frames(F.double_pixels(F.to_frames(x)), 2), (array(2, 3, 3, 2, 2),)),
    "time_tap": (lambda x: F.time_tap(F.repeat_first_frame(x, 2, 2), 2, 1, 3, 2), (array(10, 3, 2, 2),)),
    "sqrt": (lambda x: F.sqrt(x * x + 1.0), (array(3, 4),)),
    "stopped": (lambda x, y: F.stop_gradient(x) * x + y, (array(2, 3), array(2, 3, seed=1))),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_mindspores(name: str) -> None:
    """Computed again and saved; the output's gradient is random."""
    compute, arrays = CASES[name]
    graph = training.GraphBlock(Block(lambda w, *inputs: compute(*inputs)))
    inputs = tensors(*arrays)
    set_jit(False)
    try:
        eager = Block(lambda w, *inputs: compute(*inputs))
        output = eager({}, *inputs)
        by_output = ms.Tensor(array(*output.shape, seed=7))
        _, expected = eager.gradient({}, inputs, by_output)
    finally:
        set_jit(True)
    found, pullback = graph.with_saved_activations({}, *inputs)
    np.testing.assert_allclose(found.asnumpy(), output.asnumpy(), rtol=1e-4, atol=1e-5)
    for _, by_inputs in (graph.gradient({}, inputs, by_output), pullback(by_output)):
        for value, by_input, wanted in zip(inputs, by_inputs, expected, strict=True):
            if value.dtype == ms.float32 and by_input is None:
                assert not wanted.asnumpy().any()
            elif value.dtype == ms.float32:
                np.testing.assert_allclose(by_input.asnumpy(), wanted.asnumpy(), rtol=1e-3, atol=2e-5)


def affine(w: Any, x: Any) -> Any:
    return x * w["scale"] + w["shift"]


def pair(w: Any, x: Any, factor: float) -> Any:
    return x * w["scale"], x * factor


Affine, Pair = Block(affine), Block(pair)


def test_a_tape_of_graphs_is_that_of_mindspore() -> None:
    """A weight that two blocks share, outputs that are used twice or not at all, a wanted input."""
    weights = dict(zip(("a.scale", "a.shift"), tensors(array(4), array(4, seed=1)), strict=True))
    (x,), results = tensors(array(3, 4)), []
    engine = training.TrainingOpenVINO()
    for tape in (Tape(weights), engine.tape(weights), engine.tape(weights, {"a"})):
        first, _ = tape(Pair, "a", x, 2.0)
        y = tape(Affine, "a", tape(Affine, "a", first))
        by_weight, [by_x] = tape.gradients([(y, ms.Tensor(array(3, 4, seed=5)))], [x])
        results.append([y, by_x, by_weight["a.scale"], by_weight["a.shift"]])
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            np.testing.assert_allclose(found.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-6)


def rounded(values: np.ndarray) -> np.ndarray:
    """To the nearest number with the 8 leading bits of bfloat16."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


Product = Block(lambda w, x: F.product(x + w["shift"], w["matrix"]) + w["more"])


def test_products_and_their_gradients_in_bfloat16() -> None:
    """Factors and results of products are rounded, and what lies between is not."""
    if "BF16" not in capabilities():
        with pytest.raises(ValueError, match="precision 'bf16' needs a processor that computes with it"):
            choose_training_engine("openvino", "bf16")
        return
    arrays = {"a.shift": array(64), "a.matrix": array(24, 64), "a.more": array(24)}
    x, by_output = array(16, 64), array(16, 24)
    tape = choose_training_engine("openvino", "bf16").tape({key: ms.Tensor(arrays[key]) for key in arrays})
    y = tape(Product, "a", ms.Tensor(x))
    by_weight, _ = tape.gradients([(y, ms.Tensor(by_output))])
    shifted, more = rounded(x + arrays["a.shift"]), arrays["a.more"]
    for found, product in (
        (y.asnumpy() - more, shifted @ rounded(arrays["a.matrix"]).T),
        (by_weight["a.matrix"].asnumpy(), rounded(by_output).T @ shifted),
    ):
        np.testing.assert_allclose(found, rounded(product), rtol=2**-7, atol=1e-5)
        np.testing.assert_allclose(np.mean(found - rounded(product)), 0, atol=1e-3)
    np.testing.assert_allclose(by_weight["a.more"].asnumpy(), by_output.sum(0), rtol=1e-5, atol=1e-5)


def test_a_gradient_that_passes_a_block_unchanged() -> None:
    """The library confuses the memory of a parameter that is a result."""
    graph = training.GraphBlock(Block(lambda w, x, y: x + y))
    for seed in range(3):
        inputs, [by_output] = tensors(array(2, 3), array(2, 3, seed=1)), tensors(array(2, 3, seed=seed))
        for by_input in graph.gradient({}, inputs, by_output)[1]:
            np.testing.assert_array_equal(by_input.asnumpy(), by_output.asnumpy())


def test_a_block_that_openvino_refuses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise EngineError("no such operator")

    monkeypatch.setattr(training, "Graph", refuse)
    graph, (x, scale, shift) = training.GraphBlock(Affine), tensors(array(2, 3), array(3), array(3, seed=1))
    weights = {"scale": scale, "shift": shift}
    expected = x.asnumpy() * scale.asnumpy() + shift.asnumpy()
    np.testing.assert_allclose(graph(weights, x.asnumpy()).asnumpy(), expected, rtol=1e-6)
    assert graph.gradient(weights, (x,), x)[1][0] is not None
    assert caplog.messages == ["no such operator: MindSpore computes instead"]


def test_which_engine_trains(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert choose_training_engine("mindspore").name == "mindspore"
    assert choose_training_engine().name == "openvino"

    def broken(self: Any, precision: str = "fp32") -> None:
        raise EngineError("OpenVINO cannot be loaded")

    monkeypatch.setattr(OpenVINO, "__init__", broken)
    assert choose_training_engine().name == "mindspore"
    assert len(caplog.messages) == 1
    monkeypatch.setattr("opensora.engine.on_cpu", lambda: False)
    with pytest.raises(ValueError, match="engine openvino computes on a CPU"):
        choose_training_engine("openvino")
