"""The published image autoencoder has one set of names, whichever library wrote it and in which year."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from opensora.weights import WeightsError
from opensora.weights.vae_2d import open_vae_2d

LEVELS = range(4)


def latent_diffusion() -> list[str]:
    """Layers of stable diffusion's autoencoder: four levels of two blocks (encoder) or three (decoder)."""
    names = ["quant_conv", "post_quant_conv"]
    for half, blocks, shortcuts, level_name in (("encoder", 2, (1, 2), "down"), ("decoder", 3, (0, 1), "up")):
        names += [f"{half}.{name}" for name in ("conv_in", "conv_out", "norm_out")]
        for level, block in itertools.product(LEVELS, range(blocks)):
            parts = ["norm1", "conv1", "norm2", "conv2"] + ["nin_shortcut"] * (
                block == 0 and level in shortcuts
            )
            names += [f"{half}.{level_name}.{level}.block.{block}.{part}" for part in parts]
        names += [
            f"{half}.mid.block_{block}.{part}"
            for block in (1, 2)
            for part in ("norm1", "conv1", "norm2", "conv2")
        ]
        names += [f"{half}.mid.attn_1.{part}" for part in ("norm", "q", "k", "v", "proj_out")]
    names += [f"encoder.down.{level}.downsample.conv" for level in (0, 1, 2)] + [
        f"decoder.up.{level}.upsample.conv" for level in (1, 2, 3)
    ]
    return [f"{name}.{part}" for name in names for part in ("weight", "bias")]


def diffusers(attention: tuple[str, ...]) -> list[str]:
    """The same layers as the other library writes them."""
    names = ["quant_conv", "post_quant_conv"]
    for half, blocks, shortcuts, side in (("encoder", 2, (1, 2), "down"), ("decoder", 3, (2, 3), "up")):
        names += [f"{half}.{name}" for name in ("conv_in", "conv_out", "conv_norm_out")]
        for level, block in itertools.product(LEVELS, range(blocks)):
            parts = ["norm1", "conv1", "norm2", "conv2"] + ["conv_shortcut"] * (
                block == 0 and level in shortcuts
            )
            names += [f"{half}.{side}_blocks.{level}.resnets.{block}.{part}" for part in parts]
        names += [
            f"{half}.mid_block.resnets.{block}.{part}"
            for block in (0, 1)
            for part in ("norm1", "conv1", "norm2", "conv2")
        ]
        names += [f"{half}.mid_block.attentions.0.{part}" for part in attention]
        names += [f"{half}.{side}_blocks.{level}.{side}samplers.0.conv" for level in (0, 1, 2)]
    return [f"{name}.{part}" for name in names for part in ("weight", "bias")]


OLD = ("group_norm", "query", "key", "value", "proj_attn")
NEW = ("group_norm", "to_q", "to_k", "to_v", "to_out.0")


def save(path: Path, names: list[str]) -> Path:
    """Each tensor holds its own number. Diffusers writes linear layers of the attention as matrices."""
    matrices = tuple(f"{name}.weight" for name in (*OLD[1:], *NEW[1:]))
    vectors = [name for name in names if name.endswith("bias") or "norm" in name]
    shapes = {
        name: (1,) if name in vectors else (1, 1) if name.endswith(matrices) else (1, 1, 1, 1)
        for name in names
    }
    save_file({name: np.full(shape, n, np.float32) for n, (name, shape) in enumerate(shapes.items())}, path)
    return path


@pytest.mark.parametrize("attention", [OLD, NEW], ids=["old", "new"])
def test_names_of_the_other_library(tmp_path: Path, attention: tuple[str, ...]) -> None:
    names = diffusers(attention)
    vae = open_vae_2d(save(tmp_path / "diffusion_pytorch_model.safetensors", names))
    assert set(vae) == set(latent_diffusion()) and len(vae) == len(names) == 248
    number = {name: n for n, name in enumerate(names)}
    for ours, theirs in {
        "encoder.down.1.block.0.nin_shortcut.bias": "encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
        "decoder.up.3.block.2.conv2.weight": "decoder.up_blocks.0.resnets.2.conv2.weight",
        "decoder.up.1.upsample.conv.bias": "decoder.up_blocks.2.upsamplers.0.conv.bias",
        "decoder.mid.attn_1.proj_out.weight": f"decoder.mid_block.attentions.0.{attention[4]}.weight",
        "encoder.mid.attn_1.k.bias": f"encoder.mid_block.attentions.0.{attention[2]}.bias",
        "encoder.norm_out.weight": "encoder.conv_norm_out.weight",
    }.items():
        assert vae[ours].ravel() == number[theirs]
    assert vae["decoder.mid.attn_1.q.weight"].shape == (1, 1, 1, 1)


def test_names_of_its_own_code(tmp_path: Path) -> None:
    vae = open_vae_2d(
        save(
            tmp_path / "x.safetensors",
            [f"first_stage_model.{name}" for name in latent_diffusion()]
            + ["loss.logvar", "model.diffusion_model.out.bias"],
        )
    )
    assert list(vae) and set(vae) == set(latent_diffusion())
    assert [int(vae[name].ravel()[0]) for name in latent_diffusion()] == list(range(len(vae)))


def test_what_is_none(tmp_path: Path) -> None:
    save_file(
        {"quant_conv.conv.weight": np.zeros((1, 1, 1, 1, 1), np.float32)}, tmp_path / "video.safetensors"
    )
    with pytest.raises(WeightsError, match="holds no autoencoder of images"):
        open_vae_2d(tmp_path / "video.safetensors")
    save_file({"quant_conv.weight": np.zeros((1, 1, 1, 1), np.int32)}, tmp_path / "whole.safetensors")
    with pytest.raises(WeightsError, match=r"quant_conv\.weight is stored as I32"):
        open_vae_2d(tmp_path / "whole.safetensors")
