"""Counts of operations: those that are known of the release, and what they must be made of."""

import subprocess
import sys
from dataclasses import replace
from math import prod
from typing import Any

import pytest

from opensora.models.causal_vae import cost as vae_cost
from opensora.models.causal_vae.blocks import BLOCKS
from opensora.models.causal_vae.chunked import CHUNKED
from opensora.models.causal_vae.config import CausalVAEConfig, layer
from opensora.models.causal_vae.layers import LAYER_KINDS
from opensora.models.flops import linear
from opensora.models.latte import cost as latte_cost
from opensora.models.latte.config import LatteConfig
from opensora.models.t5 import cost as t5_cost
from opensora.models.t5.config import T5Config

TERA = 1e12
XL = LatteConfig()


@pytest.mark.parametrize(("frames", "expected"), [(17, 37.4), (56, 123.5), (129, 285.8)])
def test_forward_of_the_release_as_its_original_computes_it(frames: int, expected: float) -> None:
    assert latte_cost.forward_flops(XL, (frames, 64, 64), texts=frames) / TERA == pytest.approx(
        expected, abs=0.05
    )


def test_autoencoder_of_the_release() -> None:
    assert vae_cost.encode_flops(CausalVAEConfig(), (65, 512, 512)) / TERA == pytest.approx(79.7, abs=0.05)
    assert vae_cost.decode_flops(CausalVAEConfig(), (17, 64, 64)) / TERA == pytest.approx(369.7, abs=0.05)


def test_text_encoder_of_the_release() -> None:
    """Two operations for every weight and token, and what the scores add; the embedding is read, not
    multiplied.
    """
    weights = 24 * (4 * 4096 * 4096 + 3 * 4096 * 10240)
    assert t5_cost.encode_flops(T5Config(), 1) == 2 * weights + 24 * 4 * 4096
    assert t5_cost.encode_flops(T5Config(), 300) == 2 * 300 * weights + 24 * 4 * 300 * 300 * 4096


def test_texts_images_and_batches_count_for_themselves() -> None:
    size, tokens = (5, 8, 8), 5 * 16
    kept = latte_cost.forward_flops(XL, size, texts=0)
    one = latte_cost.forward_flops(XL, size)
    assert one - kept == 2 * 300 * (1152 * (4096 + 1152) + 28 * 2 * 1152**2)
    assert latte_cost.forward_flops(XL, size, texts=5) - one == 4 * 2 * 300 * 28 * 2 * 1152**2
    assert latte_cost.forward_flops(XL, size, batch=3) == 3 * one
    assert one - latte_cost.forward_flops(XL, size, temporal=False) == 28 * (
        2 * tokens * 12 * 1152**2 + 4 * tokens * 5 * 1152
    )
    # An image passes the spatial blocks only, with a text of its own.
    image = latte_cost.forward_flops(XL, (1, 8, 8), temporal=False) - linear(1, 256 + 7 * 1152, 1152)
    assert latte_cost.forward_flops(XL, size, num_images=2) == one + 2 * image


def test_a_rank_has_its_frames_and_in_temporal_blocks_its_patches() -> None:
    size = (5, 8, 8)  # 3 frames and 1 image on the first of two ranks, and 8 of 16 patches
    for more in ({}, {"num_images": 2}):
        alone, shared = (latte_cost.forward_flops(XL, size, ranks=ranks, **more) for ranks in (1, 2))
        own = latte_cost.forward_flops(XL, (3, 8, 8), temporal=False, num_images=len(more))
        joined = (alone - latte_cost.forward_flops(XL, size, temporal=False, **more)) // 2
        assert shared == own + joined


@pytest.mark.parametrize("more", [{}, {"num_images": 2}, {"batch": 3, "ranks": 2}, {"temporal": False}])
def test_a_step_is_four_forwards_and_less_by_what_is_kept(more: dict[str, Any]) -> None:
    """A layer that is kept saves what it adds to a forward, but for the text's keys and values, which are not
    in its blocks.
    """
    size, fewer = (5, 8, 8), replace(XL, num_layers=27)
    forward = latte_cost.forward_flops(XL, size, **more)
    assert latte_cost.step_flops(XL, size, **more) == 4 * forward
    kept = (
        forward
        - latte_cost.forward_flops(fewer, size, **more)
        - more.get("batch", 1) * (1 + more.get("num_images", 0)) * 600 * 2 * 1152**2
    )
    assert latte_cost.step_flops(XL, size, **more, num_no_recompute=1) == 4 * forward - kept
    assert latte_cost.step_flops(XL, size, **more, num_no_recompute=28) == latte_cost.step_flops(
        XL, size, **more, num_no_recompute=99
    )
    assert (
        latte_cost.step_flops(XL, size, **more, num_no_recompute=28) == 4 * forward - 28 * kept > 3 * forward
    )


def test_compressed_keys_cost_less() -> None:
    """The second half of the layers has a quarter of the keys in space and half of them in time."""
    full, compressed = LatteConfig(num_layers=2), LatteConfig(num_layers=2, compress_kv_factor=2)
    saved = latte_cost.forward_flops(full, (4, 8, 8)) - latte_cost.forward_flops(compressed, (4, 8, 8))
    tokens, width = 64, 1152
    assert saved == 2 * 2 * tokens * width**2 * (3 / 4 + 1 / 2) + 4 * tokens * width * (16 * 3 / 4 + 4 / 2)


def test_convolutions_cost_their_weights_at_every_position() -> None:
    """Of the blocks that have convolutions and nothing else to multiply; with several frames."""
    for name, kind in LAYER_KINDS.items():
        if kind.form == "attention":
            continue
        channels = 64 if kind.resize((3, 4, 4)) == (3, 4, 4) and kind.form != "norm" else 32
        weights = sum(prod(shape) for shape in kind.weight_shapes(32, channels).values() if len(shape) > 1)
        assert vae_cost.layer_flops(layer(name, "", 32, channels), (3, 4, 5)) == 2 * 60 * weights, name


def test_every_kind_of_layer_has_its_functions() -> None:
    assert {kind.block for kind in LAYER_KINDS.values()} == set(BLOCKS)
    assert {kind.chunked for kind in LAYER_KINDS.values()} == set(CHUNKED)


def test_counting_does_not_load_the_framework() -> None:
    code = "import sys, opensora.models.spec; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
