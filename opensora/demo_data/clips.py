"""Clips of the demo's subjects as files with a caption each, all captions different: something to learn by heart."""

from itertools import permutations
from pathlib import Path

import numpy as np

from opensora.demo_data.render import SOURCE_FPS, STRIDE, Renderer, caption, demo_set
from opensora.files import write_atomic, write_json
from opensora.media.names import safe_name
from opensora.media.writer import write_video

SCALE = 0.5  # longer side of the subject as a part of the frame
TURN = (7 / 16, 11 / 16)  # when the background begins and ends to change, as parts of the clip

Turn = tuple[str, str, str]  # subject, colour, the colour that it turns to


def write_clips(
    renderer: Renderer, folder: str | Path, count: int, frames: int = 17, size: int = 64, seed: int = 0
) -> str:
    """Write `count` mp4 files, their data list and a list of their captions into `folder`; returns what was written in a sentence.

    Names are those that `opensora generate` gives the videos of the list of captions. The background of a clip turns from one colour to
    another, so that no still picture comes near the clip. Raises ValueError for a folder that holds something and for more clips than
    there are captions.
    """
    folder = Path(folder).resolve()
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and stays as it is: name another folder with --output_path")
    videos = folder / "videos"
    videos.mkdir(parents=True)
    turns = choose(list(renderer.files), count, seed)
    records = []
    for number, turn in enumerate(turns):
        name = f"{safe_name(sentence(turn), number)}.mp4"
        write_video(videos / name, render(renderer, turn, frames, size, [seed, number]), SOURCE_FPS / STRIDE)
        records.append({"path": name, "cap": sentence(turn), "frame_idx": f"0:{frames}"})
    write_json(folder / "videos.json", records)
    write_atomic(
        folder / "captions.txt",
        lambda file: file.write("".join(f"{record['cap']}\n" for record in records).encode()),
    )
    write_atomic(
        folder / "video_data.txt", lambda file: file.write(f"{videos}, {folder / 'videos.json'}\n".encode())
    )
    return f"{count} clips: {folder / 'video_data.txt'}, {folder / 'captions.txt'}"


def choose(subjects: list[str], count: int, seed: int) -> list[Turn]:
    """`count` different turns, drawn from all that there are."""
    everything = [
        (subject, *colours) for subject in subjects for colours in permutations(demo_set().colours, 2)
    ]
    if not 1 <= count <= len(everything):
        raise ValueError(
            f"num_clips {count} is outside 1 to {len(everything)}, the number of different captions"
        )
    return [everything[place] for place in np.random.default_rng(seed).permutation(len(everything))[:count]]


def sentence(turn: Turn) -> str:
    """("elephant", "sky blue", "red") -> "an elephant on a sky blue background that turns red"."""
    return f"{caption(turn[0], turn[1])} that turns {turn[2]}"


def render(renderer: Renderer, turn: Turn, frames: int, size: int, seed: list[int]) -> np.ndarray:
    """The subject at a place drawn from `seed`, uint8 (T, H, W, 3)."""
    subject, *colours = turn
    before, after = (
        renderer.render(subject, name, frames, size, np.random.default_rng(seed), scale=SCALE).video
        for name in colours
    )
    share = np.interp(np.linspace(0, 1, frames), TURN, (0, 1))[:, None, None, None]
    return np.rint(before * (1 - share) + after * share).astype(np.uint8)
