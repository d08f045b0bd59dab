"""`opensora evaluate-demo` with an autoencoder that is not trained: bad input, report, files, exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest

from opensora.cli import main
from tests.data.demo_cache import make_cache

TINY = {"hidden_size": 32, "hidden_size_mult": (1, 1, 1, 1), "num_res_blocks": 1, "resolution": 32}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clips_per_pair", "-1"], "opensora: clips_per_pair -1 is too small"),
        (["--output", "nowhere/figures.json"], "opensora: output nowhere/figures.json cannot be written"),
        (["--contact_sheet", "sheet.mp4"], "opensora: contact_sheet sheet.mp4 cannot be written: name a .png file"),
        (["--demo_data", "nowhere"], "opensora: nowhere holds no demo data set: make it first with `opensora prepare-data demo nowhere`"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(words: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate-demo", *words]) == 2
    output = capfd.readouterr()
    assert output.err.startswith(message) and output.err.count("\n") == 1 and output.out == ""


@pytest.mark.slow
def test_autoencoder_alone_is_judged_and_require_makes_a_miss_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from opensora.models.causal_vae import CausalVAE, CausalVAEConfig

    vae = CausalVAE.initialise(CausalVAEConfig(**TINY), np.random.default_rng(0))
    vae.save_pretrained(tmp_path / "vae")
    cache = tmp_path / "cache"
    cache.mkdir()
    make_cache(cache)
    words = ["evaluate-demo", "--demo_data", str(cache), "--vae", str(tmp_path / "vae"), "--clips_per_pair", "0"]
    words += ["--real_clips", "1", "--num_frames", "5", "--size", "16", "--output", str(tmp_path / "figures.json")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--require"])
    assert ended.value.code == 1
    assert "autoencoder: PSNR, dB" in capsys.readouterr().out
    content = json.loads((tmp_path / "figures.json").read_text())
    psnr = next(row for row in content["rows"] if row["name"] == "autoencoder: PSNR, dB")
    assert 0 < psnr["figure"] < 25 and not psnr["met"] and content["options"]["size"] == 16
