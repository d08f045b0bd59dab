"""Counts of operations: those that are known of the release, and what they must be made of."""

import subprocess
import sys
from dataclasses import replace
from math import prod
from typing import Any

import pytest

from opensora.models import flops
from opensora.models.causal_vae.blocks import KINDS
from opensora.models.causal_vae.config import KINDS as NAMES
from opensora.models.causal_vae.config import CausalVAEConfig, Layer
from opensora.models.latte.config import LatteConfig
from opensora.models.t5.config import T5Config

TERA = 1e12
XL = LatteConfig()


@pytest.mark.parametrize(("frames", "expected"), [(17, 37.4), (56, 123.5), (129, 285.8)])
def test_forward_of_the_release_as_its_original_computes_it(frames: int, expected: float) -> None:
    assert flops.latte_forward(XL, (frames, 64, 64), texts=frames) / TERA == pytest.approx(expected, abs=0.05)


def test_autoencoder_of_the_release() -> None:
    assert flops.vae_encode(CausalVAEConfig(), (65, 512, 512)) / TERA == pytest.approx(79.7, abs=0.05)
    assert flops.vae_decode(CausalVAEConfig(), (17, 64, 64)) / TERA == pytest.approx(369.7, abs=0.05)


def test_text_encoder_of_the_release() -> None:
    """Two operations for every weight and token, and what the scores add; the embedding is read, not multiplied."""
    weights = 24 * (4 * 4096 * 4096 + 3 * 4096 * 10240)
    assert flops.t5_encode(T5Config(), 1) == 2 * weights + 24 * 4 * 4096
    assert flops.t5_encode(T5Config(), 300) == 2 * 300 * weights + 24 * 4 * 300 * 300 * 4096


def test_texts_images_and_batches_count_for_themselves() -> None:
    size, tokens = (5, 8, 8), 5 * 16
    kept = flops.latte_forward(XL, size, texts=0)
    one = flops.latte_forward(XL, size)
    assert one - kept == 2 * 300 * (1152 * (4096 + 1152) + 28 * 2 * 1152**2)
    assert flops.latte_forward(XL, size, texts=5) - one == 4 * 2 * 300 * 28 * 2 * 1152**2
    assert flops.latte_forward(XL, size, batch=3) == 3 * one
    assert one - flops.latte_forward(XL, size, temporal=False) == 28 * (
        2 * tokens * 12 * 1152**2 + 4 * tokens * 5 * 1152
    )
    # An image passes the spatial blocks only, with a text of its own.
    image = flops.latte_forward(XL, (1, 8, 8), temporal=False) - flops.linear(1, 256 + 7 * 1152, 1152)
    assert flops.latte_forward(XL, size, num_images=2) == one + 2 * image


def test_a_rank_has_its_frames_and_in_temporal_blocks_its_patches() -> None:
    size = (5, 8, 8)  # 3 frames and 1 image on the first of two ranks, and 8 of 16 patches
    for more in ({}, {"num_images": 2}):
        alone, shared = (flops.latte_forward(XL, size, ranks=ranks, **more) for ranks in (1, 2))
        own = flops.latte_forward(XL, (3, 8, 8), temporal=False, num_images=len(more))
        joined = (alone - flops.latte_forward(XL, size, temporal=False, **more)) // 2
        assert shared == own + joined


@pytest.mark.parametrize("more", [{}, {"num_images": 2}, {"batch": 3, "ranks": 2}, {"temporal": False}])
def test_a_step_is_four_forwards_and_less_by_what_is_kept(more: dict[str, Any]) -> None:
    """A layer that is kept saves what it adds to a forward, but for the text's keys and values, which are not in its blocks."""
    size, fewer = (5, 8, 8), replace(XL, num_layers=27)
    forward = flops.latte_forward(XL, size, **more)
    assert flops.latte_step(XL, size, **more) == 4 * forward
    layer = (
        forward
        - flops.latte_forward(fewer, size, **more)
        - more.get("batch", 1) * (1 + more.get("num_images", 0)) * 600 * 2 * 1152**2
    )
    assert flops.latte_step(XL, size, **more, num_no_recompute=1) == 4 * forward - layer
    assert flops.latte_step(XL, size, **more, num_no_recompute=28) == flops.latte_step(
        XL, size, **more, num_no_recompute=99
    )
    assert flops.latte_step(XL, size, **more, num_no_recompute=28) == 4 * forward - 28 * layer > 3 * forward


def test_compressed_keys_cost_less() -> None:
    """The second half of the layers has a quarter of the keys in space and half of them in time."""
    full, compressed = LatteConfig(num_layers=2), LatteConfig(num_layers=2, compress_kv_factor=2)
    saved = flops.latte_forward(full, (4, 8, 8)) - flops.latte_forward(compressed, (4, 8, 8))
    tokens, width = 64, 1152
    assert saved == 2 * 2 * tokens * width**2 * (3 / 4 + 1 / 2) + 4 * tokens * width * (16 * 3 / 4 + 4 / 2)


def test_convolutions_cost_their_weights_at_every_position() -> None:
    """Of the blocks that have convolutions and nothing else to multiply; with several frames."""
    for kind, block in KINDS.items():
        if kind.startswith("Attn"):
            continue
        channels = 32 if "sample" in kind or kind == "norm_silu" else 64
        weights = sum(prod(shape) for shape in block.shapes(32, channels).values() if len(shape) > 1)
        assert flops._layer(Layer(kind, "", 32, channels), (3, 4, 5)) == 2 * 60 * weights, kind


def test_every_kind_of_block_is_known_on_both_sides() -> None:
    assert set(NAMES) == set(KINDS)
    assert set(flops.KERNELS) < set(NAMES)


def test_counting_does_not_load_the_framework() -> None:
    code = "import sys, opensora.models.flops; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
