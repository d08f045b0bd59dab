from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.engine import ENGINES, open_engine
from opensora.engine.mindspore import set_jit
from opensora.models.causal_vae.model import CausalVAE, CausalVAEConfig
from opensora.models.causal_vae.tiling import Tiling, tiled, time_chunks
from opensora.models.geometry import Strides
from tests import reference

STRIDES = CausalVAEConfig().strides
CASES = reference.read_json("vae/tiled")


@pytest.fixture(scope="module", params=ENGINES)
def vae(request: pytest.FixtureRequest) -> Iterator[CausalVAE]:
    """The reference VAE, on MindSpore operator by operator: the tiles have many shapes, and compiling each
    would take minutes.
    """
    set_jit(False)
    engine = open_engine(request.param)
    weights = engine.weights(reference.load("vae/weights"))
    yield CausalVAE(CausalVAEConfig.from_dict(reference.read_json("vae/config")), weights, engine)
    set_jit(True)


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return reference.load("vae/tiled")


def tiling(case: str) -> Tiling:
    names = ("tile_sample_min_size", "tile_sample_min_size_t", "tile_overlap_factor")
    return Tiling(*(CASES[case][name] for name in names))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_tiled_encoding_is_the_reference(vae: CausalVAE, tensors: dict[str, np.ndarray], case: str) -> None:
    vae.tiling = tiling(case)
    moments = vae.encode(ms.Tensor(tensors[f"{case}.input"])).moments
    np.testing.assert_allclose(moments.asnumpy(), tensors[f"{case}.moments"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_tiled_decoding_is_the_reference(vae: CausalVAE, tensors: dict[str, np.ndarray], case: str) -> None:
    # From the reference's own latents: t_only's GroupNorms see so few pixels that rounding of the latents
    # grows a hundredfold.
    vae.tiling = tiling(case)
    decoded = vae.decode(ms.Tensor(np.ascontiguousarray(tensors[f"{case}.moments"][:, :4])))
    np.testing.assert_allclose(decoded.asnumpy(), tensors[f"{case}.decoded"], rtol=1e-4, atol=1e-4)


def test_what_fits_one_tile_is_not_tiled() -> None:
    tiles = Tiling(size=32, frames=9)
    assert not tiles.splits((9, 32, 32))
    assert tiles.splits((10, 32, 32)) and tiles.splits((1, 32, 40)) and tiles.splits((1, 40, 32))
    assert tiles.in_latents(STRIDES) == Tiling(size=4, frames=3)
    assert tiles.in_latents(Strides(2, 4)) == Tiling(size=8, frames=5)


@pytest.mark.parametrize(
    ("length", "frames", "spans"),
    [
        (1, 5, [(0, 1)]),
        (4, 5, [(0, 4)]),
        (5, 5, [(0, 5)]),
        (6, 5, [(0, 5), (4, 6)]),
        (9, 5, [(0, 5), (4, 9)]),
        (14, 5, [(0, 5), (4, 9), (8, 13), (12, 14)]),
        (65, 65, [(0, 65)]),
        (129, 65, [(0, 65), (64, 129)]),
        (6, 3, [(0, 3), (2, 5), (4, 6)]),
    ],
)
def test_chunks_share_one_frame(length: int, frames: int, spans: list[tuple[int, int]]) -> None:
    assert time_chunks(length, frames) == spans


def test_a_dimension_equal_to_the_tile_gets_a_second_small_tile() -> None:
    seen = []

    def network(tile: np.ndarray) -> np.ndarray:
        seen.append(tile.shape[3:])
        return tile

    tiles = Tiling(size=32, frames=9)
    tiled(network, np.zeros((1, 1, 1, 32, 40), np.float32), tiles, tiles)
    assert seen == [(32, 32), (32, 16), (8, 32), (8, 16)]
    assert [size[1:] for size in tiles.tiles((1, 32, 40))] == seen


def nearest_down(tile: np.ndarray) -> np.ndarray:
    return tile[:, :, ::4, ::8, ::8].copy()


def nearest_up(latents: np.ndarray) -> np.ndarray:
    value = latents.repeat(8, 3).repeat(8, 4)
    return np.concatenate([value[:, :, :1], value[:, :, 1:].repeat(4, 2)], 2)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_tiles_of_a_local_network_join_without_a_seam(overlap: float) -> None:
    clip = np.random.default_rng(0).standard_normal((1, 2, 17, 48, 72)).astype(np.float32)
    pixels = Tiling(size=32, frames=5, overlap=overlap)
    latents = tiled(nearest_down, clip, pixels, pixels.in_latents(STRIDES))
    np.testing.assert_allclose(latents, clip[:, :, ::4, ::8, ::8], rtol=1e-5, atol=1e-6)
    decoded = tiled(nearest_up, latents, pixels.in_latents(STRIDES), pixels)
    np.testing.assert_allclose(decoded, nearest_up(latents), rtol=1e-5, atol=1e-6)


def test_fourteen_frames_in_chunks_of_five_give_four_latents() -> None:
    clip = np.arange(14, dtype=np.float32).reshape(1, 1, 14, 1, 1) * np.ones((1, 1, 1, 8, 8), np.float32)
    tiles = Tiling(size=8, frames=5, overlap=0.0)
    latents = tiled(nearest_down, clip, tiles, tiles.in_latents(STRIDES))
    assert latents.shape == (1, 1, 4, 1, 1) and latents.ravel().tolist() == [0, 4, 8, 12]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "tile size 0 is too small"),
        ({"frames": 1}, "tile frames 1 are too few"),
        ({"overlap": 1.0}, r"tile overlap 1.0 is not in \[0, 1\)"),
        ({"overlap": -0.5}, r"tile overlap -0.5 is not in \[0, 1\)"),
        ({"size": 1}, "tiles of 1 with overlap 0.25 have no step"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tiling(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 100}, "tile size 100 is not a multiple of the autoencoder's stride 8"),
        ({"frames": 3}, "tile frames 3 .* at least 5"),
        ({"frames": 64}, "tile frames 64 is not a multiple of 4 plus one"),
    ],
)
def test_tiles_that_the_strides_do_not_divide_are_refused(options: dict[str, Any], message: str) -> None:
    vae = CausalVAE(CausalVAEConfig(), {})
    with pytest.raises(ValueError, match=message):
        vae.tiling = Tiling(**options)
    assert vae.tiling is None
