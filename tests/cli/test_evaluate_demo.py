"""Bad input of `opensora evaluate-demo`."""

import pytest

from opensora.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clips_per_pair", "-1"], "opensora: clips_per_pair -1 is too small"),
        (["--by_timestep", "--real_clips", "0"], "opensora: real_clips 0 is too small"),
        (["--output", "nowhere/figures.json"], "opensora: output nowhere/figures.json cannot be written"),
        (
            ["--contact_sheet", "sheet.mp4"],
            "opensora: contact_sheet sheet.mp4 cannot be written: choose a .png file",
        ),
        (
            ["--demo_data", "nowhere"],
            "opensora: nowhere holds no demo data set: make it with `opensora prepare-data demo nowhere`",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate-demo", *words]) == 2
    output = capfd.readouterr()
    assert output.err.startswith(message) and output.err.count("\n") == 1 and output.out == ""
