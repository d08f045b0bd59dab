"""Published files and checkpoints load as they are, and go through convert without a change of any bit."""

import json
import logging
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from opensora.models import CausalVAE, LatteT2V, T5Encoder
from opensora.models.convert import Conversion, convert
from opensora.models.formats import find_format
from opensora.runtime import mindspore
from opensora.train.checkpoint import save_checkpoint
from opensora.weights import TensorFile, WeightsError, open_file
from tests.models.published import LATTE_VALUES, RELEASE, T5_VALUES, VAE_VALUES, assert_same

ms = mindspore()
VALUES = {"5x32x32": LATTE_VALUES, "vae": VAE_VALUES, "text_encoder": T5_VALUES}
FILE = "diffusion_pytorch_model.safetensors"


def arrays(model: LatteT2V | CausalVAE | T5Encoder) -> dict[str, np.ndarray]:
    return {name: value.asnumpy() for name, value in model.weights.items()}


def all_of(path: Path) -> dict[str, np.ndarray]:
    file = open_file(path)
    return {name: file.read(name) for name in file.entries}


def test_the_release_loads_as_published(caplog: pytest.LogCaptureFixture) -> None:
    """Shards of safetensors, float16 with weights of the loss, and bfloat16 .bin shards of a whole T5 with a
    tied embedding.
    """
    with caplog.at_level(logging.INFO, "opensora"):
        assert_same(arrays(LatteT2V.from_pretrained(RELEASE / "5x32x32")), LATTE_VALUES)
        assert not caplog.text
        assert_same(arrays(CausalVAE.from_pretrained(RELEASE / "vae")), VAE_VALUES)
        assert "ignored 2 tensors that the model does not use (loss.discriminator" in caplog.text
        assert_same(arrays(T5Encoder.from_pretrained(RELEASE / "text_encoder")), T5_VALUES)
        assert (
            "decoder.block.0.layer.0.SelfAttention.q.weight, encoder.embed_tokens.weight, lm_head.weight"
            in caplog.text
        )


@pytest.mark.parametrize("suffix", [".pt", ".ckpt"])
def test_the_first_stage_of_training_starts_from_latte(tmp_path: Path, suffix: str) -> None:
    """t2v.pt has the weights under "ema" and a table of positions beside; t2v.ckpt was made of it."""
    source = RELEASE / "t2v.pt"
    if suffix == ".ckpt":
        source = tmp_path / "t2v.ckpt"
        tensors = [
            {"name": name, "data": ms.Tensor(value)} for name, value in all_of(RELEASE / "t2v.pt").items()
        ]
        ms.save_checkpoint(tensors, str(source))
    model = LatteT2V.from_pretrained(RELEASE / "5x32x32")
    model.weights = {}
    model.load_weights(source)
    assert_same(arrays(model), LATTE_VALUES)
    convert(source, tmp_path / "latte", Conversion(model_config=str(RELEASE / "5x32x32")))
    assert_same(arrays(LatteT2V.from_pretrained(tmp_path / "latte")), LATTE_VALUES)


@pytest.mark.parametrize("part", ["5x32x32", "vae", "text_encoder"])
def test_there_and_back_is_exact(tmp_path: Path, part: str) -> None:
    """Release to MindSpore's .ckpt, whose names the framework's own converters use, and back to files of
    PyTorch's layout.
    """
    convert(RELEASE / part, tmp_path / "x.ckpt", Conversion())
    there = ms.load_checkpoint(str(tmp_path / "x.ckpt"))
    assert any(name.endswith((".gamma", ".embedding_table", "attn1.to_q.weight")) for name in there)
    config = Conversion(model_config=str(RELEASE / part))
    convert(tmp_path / "x.ckpt", tmp_path / "back", config)
    convert(RELEASE / part, tmp_path / "straight", Conversion("pytorch"))
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    back, straight = (load_file(tmp_path / way / f"{stem}.safetensors") for way in ("back", "straight"))
    assert_same(back, straight)
    assert_same(
        {name: back[name] for name in back if not name.startswith("loss.")},
        {"5x32x32": LATTE_VALUES, "vae": VAE_VALUES, "text_encoder": T5_VALUES}[part],
    )
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == json.loads(
        (RELEASE / part / "config.json").read_text()
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_whole_model_in_another_type(tmp_path: Path, dtype: str) -> None:
    release = Path(shutil.copytree(RELEASE, tmp_path / "release"))
    (release / "text_encoder" / "spiece.model").write_bytes(b"pieces")
    convert(release, tmp_path / "small", Conversion(dtype=dtype))
    assert_same(arrays(LatteT2V.from_pretrained(tmp_path / "small" / "5x32x32")), LATTE_VALUES)
    assert (tmp_path / "small" / "text_encoder" / "spiece.model").read_bytes() == b"pieces"
    stored = TensorFile(tmp_path / "small" / "vae" / FILE).entries
    assert set(stored) == set(
        TensorFile(RELEASE / "vae" / FILE).entries
    )  # the loss too: the reference loads it strictly
    assert {entry.dtype for name, entry in stored.items() if "num_batches" not in name} == {
        "F16" if dtype == "float16" else "BF16"
    }


def test_names_of_the_published_mindspore_version(tmp_path: Path) -> None:
    """Its training wraps the network, groups the layers by pairs, and keeps tables of positions and its own
    state in the file.
    """
    names = {name: f"network.{name}" for name in LATTE_VALUES}
    for i in range(2):
        for ours, theirs in (
            ("transformer_blocks", "spatial_block"),
            ("temporal_transformer_blocks", "temp_block"),
        ):
            names |= {
                n: f"network.blocks.{i}.{theirs}.{n.removeprefix(f'{ours}.{i}.')}"
                for n in names
                if n.startswith(f"{ours}.{i}.")
            }
    del names["caption_projection.y_embedding"]
    tensors = [{"name": names[name], "data": ms.Tensor(LATTE_VALUES[name])} for name in names]
    tensors += [
        {"name": name, "data": ms.Tensor(np.zeros((1, 2, 4), np.float32))}
        for name in ("network.temp_pos_embed", "adam_m.x")
    ]
    ms.save_checkpoint(tensors, str(tmp_path / "trained.ckpt"), append_dict={"epoch_num": 3})
    model = LatteT2V.from_pretrained(RELEASE / "5x32x32")
    model.load_weights(tmp_path / "trained.ckpt")
    unused = {"caption_projection.y_embedding": np.zeros((120, 4), np.float32)}
    assert_same(arrays(model), LATTE_VALUES | unused)


def test_a_run_becomes_parts_of_a_model_folder(tmp_path: Path) -> None:
    """The moving averages of the newest complete checkpoint, into the folders whose config.json says what
    they are.
    """
    for part in ("5x32x32", "vae", "text_encoder"):
        (tmp_path / "model" / part).mkdir(parents=True)
        shutil.copy(RELEASE / part / "config.json", tmp_path / "model" / part)
    halved = {name: value / 2 for name, value in LATTE_VALUES.items()}
    groups = {"model": halved, "ema": LATTE_VALUES, "text_encoder": {}, "text_encoder_ema": T5_VALUES}
    save_checkpoint(tmp_path / "run", 1, groups | {"ema": halved}, {})
    save_checkpoint(tmp_path / "run", 2, groups, {})
    convert(tmp_path / "run", tmp_path / "model", Conversion())
    assert_same(load_file(tmp_path / "model" / "5x32x32" / FILE), LATTE_VALUES)
    assert_same(load_file(tmp_path / "model" / "text_encoder" / "model.safetensors"), T5_VALUES)
    with pytest.raises(WeightsError, match=r"model\.safetensors exists: choose another --target"):
        convert(tmp_path / "run", tmp_path / "model", Conversion())

    save_checkpoint(tmp_path / "vae-run", 1, {"model": VAE_VALUES}, {})
    convert(tmp_path / "vae-run" / "checkpoints" / "step-00000001", tmp_path / "model", Conversion())
    assert_same(load_file(tmp_path / "model" / "vae" / FILE), VAE_VALUES)

    model = LatteT2V.from_pretrained(RELEASE / "5x32x32")
    for source, expected in (("run", LATTE_VALUES), ("run/checkpoints/step-00000001", halved)):
        model.load_weights(tmp_path / source)
        assert_same(arrays(model), expected)


def test_kinds_are_told_by_their_names(tmp_path: Path) -> None:
    assert [find_format(RELEASE / part) for part in ("5x32x32", "vae", "text_encoder", "t2v.pt")] == [
        "transformer",
        "vae",
        "text_encoder",
        "transformer",
    ]
    for name, kind in (
        ("lin0.model.1.weight", "lpips"),
        ("features.0.weight", "lpips"),
        ("first_stage_model.quant_conv.weight", "vae_2d"),
    ):
        save_file({name: np.zeros((1, 1, 1, 1), np.float32)}, tmp_path / "x.safetensors")
        assert find_format(tmp_path / "x.safetensors") == kind
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(
        WeightsError, match=r"none of the known models \(LatteT2V, class-conditional Latte, CausalVAE, "
    ):
        find_format(tmp_path / "x.safetensors")


def test_heads_of_lpips(tmp_path: Path) -> None:
    heads = {f"lin{k}.model.1.weight": np.full((1, 4, 1, 1), k, np.float32) for k in range(5)}
    ms.save_checkpoint(
        [{"name": name, "data": ms.Tensor(value)} for name, value in heads.items()],
        str(tmp_path / "lpips_vgg-426bf45c.ckpt"),
    )
    convert(tmp_path / "lpips_vgg-426bf45c.ckpt", tmp_path / "pretrained", Conversion())
    assert_same(load_file(tmp_path / "pretrained" / "lpips_vgg-426bf45c.safetensors"), heads)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("5x32x32", "num_layers", "two"),
        ("5x32x32", "sample_size", 4),
        ("5x32x32", "sample_size", [4, "4"]),
        ("5x32x32", "use_rope", 1),
        ("5x32x32", "norm_eps", None),
        ("vae", "hidden_size_mult", 2),
        ("vae", "q_conv", ["CausalConv3d"]),
        ("text_encoder", "d_ff", 6.0),
    ],
)
def test_a_configuration_of_other_types(tmp_path: Path, part: str, key: str, value: object) -> None:
    config = json.loads((RELEASE / part / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ValueError, match=rf"config\.json says {key}\S* = .*, where .* belongs"):
        convert(RELEASE / part, tmp_path / "out", Conversion(model_config=str(tmp_path)))


@pytest.mark.parametrize("target", ["x.safetensors", "x.ckpt"])
def test_one_tensor_at_a_time(tmp_path: Path, target: str) -> None:
    weights = {f"features.{n}.weight": np.full((2**16,), n, np.float32) for n in range(32)}  # 32 x 256 KiB
    save_file(weights, tmp_path / "vgg.safetensors")
    del weights
    tracemalloc.start()
    try:
        convert(tmp_path / "vgg.safetensors", tmp_path / target, Conversion())
        assert tracemalloc.get_traced_memory()[1] < 5 * 2**18
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("source", "target", "how", "fault"),
    [
        ("t2v.pt", "x.ckpt", Conversion("pytorch"), r"x\.ckpt has another ending"),
        ("t2v.pt", "x.safetensors", Conversion("mindspore"), "has another ending"),
        ("t2v.pt", "x.ckpt", Conversion(dtype="float16"), r"--dtype float16 cannot be written as \.ckpt"),
        ("t2v.pt", "x", Conversion(), r"or name the folder of its config\.json with --model_config"),
        ("", "x.ckpt", Conversion(), r"holds several parts, 5x32x32, text_encoder, vae: name a folder"),
        ("vae", "x", Conversion(model_config=str(RELEASE / "5x32x32")), "are not those of the model"),
    ],
)
def test_what_cannot_be_converted(
    tmp_path: Path, source: str, target: str, how: Conversion, fault: str
) -> None:
    with pytest.raises(WeightsError, match=fault):
        convert(RELEASE / source, tmp_path / target, how)
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize(
    ("dtype", "size"), [("F8_E4M3", 1), ("F8_E5M2", 1), ("U16", 2), ("U32", 4), ("C64", 8)]
)
@pytest.mark.parametrize("target", ["x.safetensors", "x.ckpt"])
def test_storage_types_that_cannot_be_read_are_named(
    tmp_path: Path, dtype: str, size: int, target: str
) -> None:
    header = {"lin0.model.1.weight": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * size]}}
    encoded = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(2 * size))
    with pytest.raises(
        WeightsError, match=rf"lin0\.model\.1\.weight is stored as {dtype}, which cannot be read"
    ):
        convert(tmp_path / "a.safetensors", tmp_path / target, Conversion())
    assert not (tmp_path / target).exists()
