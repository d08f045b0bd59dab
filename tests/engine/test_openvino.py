"""The OpenVINO engine by itself: graphs, weights, precision, telemetry, and what happens when it fails."""

import gc
import os
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora.engine import EngineError, choose_engine, open_engine, openvino, reserve
from opensora.engine.block import Block
from opensora.engine.graph import Node
from opensora.engine.openvino import OpenVINO
from opensora.nn import F, forms_mindspore, forms_openvino
from opensora.runtime import UnsupportedVersion

X = np.arange(12, dtype=np.float32).reshape(3, 4)


@Block
def scaled(w: Any, x: Any, factor: float) -> Any:
    return F.product(x, w["weight"]) * factor


def network(run: Any, x: Any, factor: float) -> Any:
    return run(scaled, "a", x, factor), (run(scaled, "b", x, factor),)


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"{name}.weight": rng.standard_normal((5, 4), np.float32) for name in "ab"}


@pytest.mark.parametrize("engine", ["mindspore", "openvino"])
def test_a_network_and_its_blocks(engine: str) -> None:
    opened, arrays = open_engine(engine), weights()
    own = opened.weights(arrays)
    first, (second,) = opened.run(network, own, X, 2.0)
    np.testing.assert_allclose(first.asnumpy(), 2 * X @ arrays["a.weight"].T, rtol=1e-5)
    np.testing.assert_allclose(second.asnumpy(), 2 * X @ arrays["b.weight"].T, rtol=1e-5)
    kept = opened.on_demand(arrays)
    np.testing.assert_allclose(opened.run(network, kept, X, 2.0)[0].asnumpy(), first.asnumpy(), rtol=1e-6)
    block = {"weight": own["b.weight"]}
    np.testing.assert_allclose(opened.call(scaled, block, X, 2.0).asnumpy(), second.asnumpy(), rtol=1e-6)
    bound = opened.bind(scaled.function, block)
    np.testing.assert_allclose(bound(X, 2.0).asnumpy(), second.asnumpy(), rtol=1e-6)


def test_other_shapes_constants_and_weights_are_other_programs() -> None:
    engine, arrays, others = OpenVINO(), weights(), {name: -value for name, value in weights().items()}
    first = engine.run(network, arrays, X, 2.0)[0]
    np.testing.assert_array_equal(engine.run(network, others, X, 2.0)[0], -first)
    np.testing.assert_allclose(engine.run(network, arrays, X, 4.0)[0], 2 * first, rtol=1e-6)
    np.testing.assert_allclose(engine.run(network, arrays, X[:1], 2.0)[0], first[:1], rtol=1e-5)
    np.testing.assert_array_equal(engine.run(network, arrays, X, 2.0)[0], first)


def test_both_engines_have_the_same_functions() -> None:
    def functions(module: Any) -> set[str]:
        return {
            name
            for name, value in vars(module).items()
            if callable(value) and not name.startswith("_") and name[0].islower()
        }

    helpers = {"constant", "openvino", "opset", "as_video", "concat_frames", "mindspore"}
    wanted = functions(forms_mindspore) - helpers
    assert wanted <= functions(forms_openvino)


@pytest.mark.parametrize(
    "index",
    [1, -1, slice(1, None), (slice(None), 2), (slice(None), slice(0, None, 2)), (0, 3), slice(None)],
)
def test_parts_of_a_tensor(index: Any) -> None:
    def part(run: Any, x: Any) -> Any:
        return x[index]

    np.testing.assert_array_equal(OpenVINO().run(part, {}, X), X[index])


def test_arithmetic_of_tensors_and_numbers() -> None:
    def mixed(run: Any, x: Any) -> Any:
        return (1.0 - x) / (2.0 + x * x) - -x, (x != 3).astype(F.float32)

    first, second = OpenVINO().run(mixed, {}, X)
    np.testing.assert_allclose(first, (1 - X) / (2 + X * X) + X, rtol=1e-6)
    np.testing.assert_array_equal(second, (X != 3).astype(np.float32))


def test_precisions() -> None:
    with pytest.raises(ValueError, match="choose fp32 or bf16"):
        OpenVINO("fp16")


# --- in reserve ---


class Refusing:
    def get_property(self, *_: Any) -> list[str]:
        return []

    def compile_model(self, *_: Any) -> Any:
        raise RuntimeError("no kernel\nfor this")


def test_a_graph_that_is_refused_is_computed_by_mindspore(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = OpenVINO().run(network, weights(), X, 2.0)[0]
    monkeypatch.setattr(openvino, "_core", Refusing)
    engine, arrays = choose_engine("auto"), weights()
    assert engine.name == "openvino"
    own = engine.weights(arrays)
    for _ in range(2):
        np.testing.assert_allclose(engine.run(network, own, X, 2.0)[0].asnumpy(), expected, rtol=1e-5)
    block = {"weight": own["a.weight"]}
    np.testing.assert_allclose(engine.call(scaled, block, X, 2.0).asnumpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(engine.bind(scaled.function, block)(X, 2.0).asnumpy(), expected, rtol=1e-5)
    kept = engine.on_demand(arrays)
    np.testing.assert_allclose(engine.run(network, kept, X, 2.0)[0].asnumpy(), expected, rtol=1e-5)
    assert engine.name == "mindspore"
    assert len(caplog.messages) == 1 and caplog.messages[0].endswith("MindSpore computes instead")
    assert "\n" not in caplog.messages[0] and "no kernel for this" in caplog.messages[0]


def test_a_layer_in_chunks_that_is_refused_is_computed_by_mindspore(monkeypatch: pytest.MonkeyPatch) -> None:
    block = {"weight": weights()["a.weight"]}
    expected = OpenVINO().call(scaled, block, X, 2.0)
    monkeypatch.setattr(openvino, "_core", Refusing)
    bound = choose_engine("openvino").bind(scaled.function, block)
    np.testing.assert_allclose(bound(X, 2.0).asnumpy(), expected, rtol=1e-5)


def test_without_a_reserve_the_refusal_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "_core", Refusing)
    monkeypatch.setattr(reserve, "find_spec", lambda name: None)  # as with Python 3.13
    engine = choose_engine("auto")
    with pytest.raises(UnsupportedVersion, match=r"no kernel[\s\S]*MindSpore, the reserve, is not installed"):
        engine.run(network, engine.weights(weights()), X, 2.0)


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def missing() -> Any:
        raise EngineError("OpenVINO cannot be loaded (ModuleNotFoundError: No module named 'openvino')")

    monkeypatch.setattr(openvino, "_core", missing)
    engine = choose_engine("openvino")
    assert engine.name == "mindspore" and len(caplog.messages) == 1
    with pytest.raises(EngineError, match="cannot be loaded"):
        open_engine("openvino")


# --- what is imported ---

SAMPLE = """
import sys
from opensora import Pipeline
pipe = Pipeline.from_pretrained("demo", engine="openvino")
video = pipe("an elephant", seed=0, steps=1, num_frames=1, height=64, width=64)
assert video.frames.shape == (1, 64, 64, 3) and video.metadata["engine"] == "openvino"
print([name for name in sys.modules if name.split(".")[0] in ("mindspore", "openvino_telemetry", "torch")])
print("openvino.tools.ovc" in sys.modules)
import openvino.tools.ovc  # which whoever wants it can still import
"""


def test_sampling_imports_neither_mindspore_nor_telemetry(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", SAMPLE],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert result.stdout.splitlines()[:2] == ["[]", "False"], result.stderr


MISSING = """
import sys
sys.modules["openvino"] = None
from opensora.cli import main
sys.exit(main(["generate", "a cat", "--num_sampling_steps", "1", "--force_images", "--num_frames", "1"]))
"""


@pytest.mark.slow
def test_without_the_library_the_picture_comes(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", MISSING], capture_output=True, text=True, cwd=tmp_path, timeout=600
    )
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "sample_videos").glob("*.png"))


def test_a_node_knows_its_shape() -> None:
    seen: list[Any] = []

    def look(run: Any, x: Any) -> Any:
        assert isinstance(x, Node)
        seen.append((x.shape, x.ndim, x.dtype == F.float32))
        return x

    OpenVINO().run(look, {}, X)
    assert seen == [((3, 4), 2, True)]


def kernels() -> int:
    """Bytes of generated machine code. Regions that touch are one, so their number would not tell."""
    spans = [line.split()[:2] for line in Path("/proc/self/maps").read_text().splitlines()]
    ends = [span.split("-") for span, access in spans if access == "rwxp"]
    return sum(int(end, 16) - int(start, 16) for start, end in ends)


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() != "x86_64",
    reason="other systems do not tell, other processors have other kernels",
)
def test_kernels_go_with_their_graphs() -> None:
    before = None
    for channels in (8, 16, 24, 32, 40):
        run = openvino.convolve_once(channels, 2, 8, "fp32")
        held = kernels()
        del run
        gc.collect()
        assert kernels() < held
        before = before or kernels()
    assert kernels() == before and openvino.KERNEL_CACHE not in os.environ


@pytest.mark.parametrize(("limit", "threads"), [("", 3), ("2", 2), ("8", 3), ("0", 3), ("all", 3)])
def test_a_graph_uses_the_cores_of_the_process_at_most_omp_num_threads(
    limit: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 5}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert openvino._settings("fp32")["INFERENCE_NUM_THREADS"] == threads


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not tell")
def test_a_graph_on_one_thread_may_run_on_every_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    multiply = openvino.multiply_once(512, "fp32")
    thread, allowed, done = threading.get_native_id(), os.sched_getaffinity(0), threading.Event()

    def watch() -> list[set[int]]:
        seen = [os.sched_getaffinity(thread)]
        while not done.wait(0.0005):
            seen.append(os.sched_getaffinity(thread))
        return seen

    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(watch)
        for _ in range(20):
            multiply()
        done.set()
    assert all(cores == allowed for cores in watched.result())
