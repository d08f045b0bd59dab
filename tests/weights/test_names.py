"""Names of the published MindSpore version and of trainers, on the real release's lists of keys."""

import pytest

from opensora.weights.names import mindspore_name, release_name
from tests import reference

LATTE = reference.read_json("extras/latte_xl122_keys")
VAE = {name for name in reference.read_json("extras/causalvae_v11_keys") if not name.startswith("loss.")}
T5 = {
    "shared.weight",
    "encoder.embed_tokens.weight",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
}


@pytest.mark.parametrize("known", [set(LATTE), VAE, T5], ids=["LatteT2V", "CausalVAE", "T5"])
@pytest.mark.parametrize("wrapper", ["", "network.", "module.", "network.autoencoder."])
def test_every_name_finds_its_way_back(known: set[str], wrapper: str) -> None:
    theirs = {wrapper + mindspore_name(name) for name in known}
    assert {release_name(name, known) for name in theirs} == known and len(theirs) == len(known)


@pytest.mark.parametrize(
    ("stored", "released"),
    [
        ("encoder.down.0.block.0.norm1.gamma", "encoder.down.0.block.0.norm1.weight"),
        ("autoencoder.decoder.norm_out.beta", "decoder.norm_out.bias"),
        (
            "network.blocks.27.temp_block.attn1.to_out.0.weight",
            "temporal_transformer_blocks.27.attn1.to_out.0.weight",
        ),
        ("blocks.3.spatial_block.scale_shift_table", "transformer_blocks.3.scale_shift_table"),
        ("shared.embedding_table", "shared.weight"),
        ("model.something.else", "model.something.else"),
        ("blocks.28.temp_block.attn1.to_q.weight", "blocks.28.temp_block.attn1.to_q.weight"),
    ],
)
def test_single_names(stored: str, released: str) -> None:
    assert release_name(stored, {*LATTE, *VAE, *T5}) == released
