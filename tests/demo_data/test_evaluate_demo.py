"""`opensora evaluate-demo` from end to end, with a model that was never trained: it misses its targets."""

import json
from pathlib import Path

import pytest
from PIL import Image

from opensora.cli import main
from opensora.demo_data.render import demo_set
from tests.demo_data.demo_cache import LOOKS, make_cache


@pytest.mark.slow
def test_untrained_model_is_judged_and_require_makes_a_miss_an_error(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    make_cache(cache)
    pairs = [pair for pair in demo_set().pairs("held_out") if pair[0] in LOOKS]
    words = f"evaluate-demo --demo_data {cache} --model_path model --real_clips 2 --num_frames 5 --size 32"
    words += " --num_sampling_steps 2 --seed 3"
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *words.split(),
                "--breakdown",
                "--output",
                "figures.json",
                "--contact_sheet",
                "sheet.png",
                "--require",
            ]
        )
    assert ended.value.code == 1
    shown = capsys.readouterr().out
    assert "autoencoder: PSNR, dB" in shown and "missed" in shown and f"\n{pairs[0][0]} " in shown
    content = json.loads(Path("figures.json").read_text())
    assert [(clip["subject"], clip["colour"]) for clip in content["generated"]] == pairs
    assert content["generated"][1]["seed"] == 4 and content["options"]["num_sampling_steps"] == 2
    rows = {row["name"]: row for row in content["rows"]}
    assert 0 < rows["autoencoder: PSNR, dB"]["figure"] < 25 and rows["subject right, %"]["met"] is False
    with Image.open("sheet.png") as picture:
        assert picture.width == 4 * (4 * 32 + 4)
