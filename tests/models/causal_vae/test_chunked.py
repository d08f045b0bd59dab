"""In chunks or as a whole: the same numbers, in every layout, for every number of frames, from memory and
from a file.
"""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from opensora.engine import ENGINES, open_engine
from opensora.models.causal_vae import chunked as causal_vae_chunked
from opensora.models.causal_vae.chunked import chunk_frames, run_chunked
from opensora.models.causal_vae.config import decoder_layers, encoder_layers
from opensora.models.causal_vae.cost import chunked_bytes, decode_bytes, whole_bytes
from opensora.models.causal_vae.frames import Workspace
from opensora.models.causal_vae.model import CausalVAE, CausalVAEConfig
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.causal_vae.tiling import UNBOUNDED, Tiling
from tests import reference

# The release's layout, whose last level narrows, and that of v1.0, the reference class's defaults.
RELEASE = CausalVAEConfig(hidden_size=32, hidden_size_mult=(1, 2, 1, 1), num_res_blocks=1)
DEFAULT = CausalVAEConfig.from_dict(reference.read_json("vae_v10/config"))


def random_vae(config: CausalVAEConfig, engine: str = "mindspore") -> CausalVAE:
    """Fresh weights leave whole branches out: here every weight counts."""
    vae, rng = CausalVAE.initialise(config, np.random.default_rng(0)), np.random.default_rng(1)
    arrays = {
        name: value.asnumpy() + rng.normal(0, 0.05, value.shape).astype(np.float32)
        for name, value in vae.weights.items()
    }
    opened = open_engine(engine)
    return CausalVAE(config, opened.weights(arrays), opened)


def assert_equal(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-4 * np.abs(expected).max()


def whole_and_chunked(vae: CausalVAE, frames: int, batch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(moments, decoded video), as a whole and in chunks."""
    video = ms.Tensor(np.random.default_rng(2).uniform(-1, 1, (batch, 3, frames, 16, 16)).astype(np.float32))
    latents = np.random.default_rng(3).standard_normal(vae.latent_shape(video.shape)).astype(np.float32)
    results = []
    for vae.policy in (VAEPolicy(chunked=False), VAEPolicy(chunked=True)):
        results.append((vae.encode(video).moments.asnumpy(), vae.decode(ms.Tensor(latents)).asnumpy()))
    return results


@pytest.mark.slow
@pytest.mark.usefixtures("operator_mode")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("config", [RELEASE, DEFAULT], ids=["release", "default"])
@pytest.mark.parametrize(
    ("frames", "batch", "chunk_bytes"),
    [(1, 2, 2**24), (2, 1, 2**24), (6, 2, 2**24), (9, 1, 2**15), (9, 1, 1)],
)
def test_chunks_are_the_whole(
    config: CausalVAEConfig,
    frames: int,
    batch: int,
    chunk_bytes: int,
    engine: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(causal_vae_chunked, "CHUNK_BYTES", chunk_bytes)
    (moments, decoded), (moments_in_chunks, decoded_in_chunks) = whole_and_chunked(
        random_vae(config, engine), frames, batch
    )
    assert_equal(moments_in_chunks, moments)
    assert_equal(decoded_in_chunks, decoded)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", [pytest.param("video", marks=pytest.mark.slow), "image"])
def test_chunks_are_the_reference(case: str, engine: str) -> None:
    opened = open_engine(engine)
    config = CausalVAEConfig.from_dict(reference.read_json("vae/config"))
    vae = CausalVAE(config, opened.weights(reference.load("vae/weights")), opened)
    vae.policy = VAEPolicy(chunked=True)
    tensors = reference.load("vae/full")
    assert_equal(
        vae.encode(ms.Tensor(tensors[f"{case}.input"])).moments.asnumpy(), tensors[f"{case}.moments"]
    )
    assert_equal(vae.decode(ms.Tensor(tensors[f"{case}.z"])).asnumpy(), tensors[f"{case}.decoded"])


def test_beyond_the_budget_a_file_gives_the_same_bytes(tmp_path: Path) -> None:
    vae = random_vae(RELEASE)
    latents = np.random.default_rng(3).standard_normal((1, 4, 3, 2, 2)).astype(np.float32)
    results = []
    for budget in (None, 50_000, 0):
        with Workspace(budget, tmp_path) as workspace:
            results.append(
                run_chunked(decoder_layers(RELEASE), vae.engine, vae.weights, latents, 32, workspace)
            )
        assert workspace.peak <= (2**62 if budget is None else budget) and bool(workspace.spilled) == (
            budget is not None
        )
        assert not workspace.used and not list(tmp_path.iterdir())
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


@pytest.mark.parametrize("config", [RELEASE, DEFAULT], ids=["release", "default"])
@pytest.mark.parametrize("decode", [True, False])
def test_the_estimate_bounds_what_is_stored(config: CausalVAEConfig, decode: bool) -> None:
    vae = random_vae(config)
    layers = decoder_layers(config) if decode else encoder_layers(config)
    shape = (1, 4, 2, 2, 2) if decode else (1, 3, 5, 16, 16)
    with Workspace() as workspace:
        run_chunked(layers, vae.engine, vae.weights, np.zeros(shape, np.float32), 32, workspace)
    stored, _ = chunked_bytes(config, (shape[2], shape[3], shape[4]), decode=decode)
    assert stored / 4 < workspace.peak <= stored


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    vae = random_vae(RELEASE)
    del vae.weights["decoder.up.0.block.1.conv2.conv.bias"]
    with pytest.raises(KeyError), Workspace(0, tmp_path) as workspace:
        run_chunked(
            decoder_layers(RELEASE),
            vae.engine,
            vae.weights,
            np.zeros((1, 4, 1, 1, 1), np.float32),
            32,
            workspace,
        )
    assert workspace.spilled and not list(tmp_path.iterdir())


def test_chunks_are_few_and_full() -> None:
    assert chunk_frames(9, 2**20) == 9 and chunk_frames(1, 2**30) == 1
    # At most four frames fit; nine are three times three.
    assert [chunk_frames(frames, 2**22) for frames in (1, 5, 6, 9, 17, 33, 65)] == [1, 3, 3, 3, 3, 3, 4]


def test_the_choice() -> None:
    choose = VAEPolicy.choose
    assert choose("CPU").chunked and choose("Ascend", "chunked").chunked and choose("CPU", "tiled").chunked
    assert not choose("Ascend").chunked and not choose("CPU", "exact").chunked
    assert choose("CPU", "tiled") == choose("CPU", enable_tiling=True) == VAEPolicy(True, Tiling())
    assert choose("CPU", enable_time_chunk=True, overlap=0.5).tiling == Tiling(UNBOUNDED, 65, 0.5)


@pytest.mark.parametrize(
    ("engine", "size", "in_chunks"),
    [
        ("openvino", (9, 128, 128), False),
        ("openvino", (65, 512, 512), True),
        ("mindspore", (1, 64, 64), True),
    ],
)
def test_openvino_computes_small_videos_of_the_release_whole(
    engine: str, size: tuple[int, int, int], in_chunks: bool
) -> None:
    policy = VAEPolicy.choose("CPU", engine=engine)
    for decode in (True, False):
        activations = whole_bytes(CausalVAEConfig(), size, decode=decode, engine=policy.engine)
        assert policy.in_chunks(activations) == in_chunks


def test_the_estimate_of_the_release() -> None:
    release = CausalVAEConfig()
    stored, working = chunked_bytes(release, (17, 16, 16))
    assert stored + working < 0.2 * whole_bytes(release, (65, 128, 128), engine="mindspore")
    # Both grow with the batch; what the chunks take does not grow with the frames.
    assert (
        chunked_bytes(release, (17, 16, 16), batch=2)[0] == 2 * stored
        and chunked_bytes(release, (56, 16, 16))[1] == working
    )


def test_a_long_video_takes_little_more_memory_than_a_short_one() -> None:
    policy = VAEPolicy.choose("CPU", engine="openvino")
    short, long = (decode_bytes(CausalVAEConfig(), (frames, 32, 32), policy) for frames in (5, 17))
    assert long < 1.5 * short


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="vae_memory 'half' is unknown: choose one of auto, exact, chunked"):
        VAEPolicy.choose("CPU", "half")
