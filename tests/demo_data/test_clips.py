from pathlib import Path

import numpy as np
import pytest

from opensora.cli import main
from opensora.data.lists.data_list import Entries, read_data_list
from opensora.demo_data.clips import draw_turns, write_clips
from opensora.demo_data.render import Renderer, demo_set
from opensora.media.names import safe_name
from opensora.media.reader import read_video


def test_clips_of_a_command_turn_their_background_and_have_captions_of_their_own(
    renderer: Renderer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clips, all of them"
    assert (
        main(
            [
                "prepare-data",
                "demo-clips",
                str(renderer.folder),
                f"--output_path={folder}",
                "--num_clips=5",
                "--seed=1",
            ]
        )
        == 0
    )
    assert capsys.readouterr().out.startswith("5 clips: ")
    captions = (folder / "captions.txt").read_text().splitlines()
    assert len(set(captions)) == 5
    entries = Entries(read_data_list(folder / "video_data.txt"))
    for number, (entry, caption) in enumerate(zip(entries, captions, strict=True)):
        assert entry.captions == (caption,) and entry.path.name == f"{safe_name(caption, number)}.mp4"
        video = read_video(entry.path)
        assert video.shape == (17, 64, 64, 3)
        first, last = caption.partition(" on a ")[2].split(" background that turns ")
        for frame, colour in ((0, first), (6, first), (11, last), (16, last)):
            border = np.concatenate(
                [video[frame, 0], video[frame, -1], video[frame, :, 0], video[frame, :, -1]]
            )
            np.testing.assert_allclose(
                np.median(border, 0), demo_set().colours[colour], atol=6
            )  # mp4 is not exact


def test_clips_depend_on_the_seed_only(renderer: Renderer, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        write_clips(renderer, tmp_path / name, 2, frames=5, size=32, seed=seed)
    one, same, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "videos").iterdir()}
        for name in ("one", "same", "other")
    )
    assert one == same != other


def test_results_stay_and_numbers_are_checked(renderer: Renderer, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="is not empty: name another folder with --output_path"):
        write_clips(renderer, tmp_path, 1)
    assert len(set(draw_turns(["cat"], 56, 0))) == 56
    with pytest.raises(ValueError, match="num_clips 57 is outside 1 to 56"):
        draw_turns(["cat"], 57, 0)
