"""Write demo clips as files, each with a caption of its own: a small data set to memorise."""

from itertools import permutations
from pathlib import Path

import numpy as np

from opensora.demo_data.captions import caption
from opensora.demo_data.render import SOURCE_FPS, STRIDE, Renderer, demo_set
from opensora.files import write_atomic, write_json
from opensora.media.names import safe_name
from opensora.media.writer import write_video

SCALE = 0.5  # longer side of the subject, as a fraction of the frame
TURN = (7 / 16, 11 / 16)  # start and end of the change of the background, as fractions of the clip

Turn = tuple[str, str, str]  # subject, first colour, second colour


def write_clips(
    renderer: Renderer, folder: str | Path, count: int, frames: int = 17, size: int = 64, seed: int = 0
) -> str:
    """Write `count` mp4 files, their data list and a list of captions; returns a one-line summary.

    The files are named as `opensora generate` names the videos of these captions. The background of a clip
    changes its colour, so that no still picture resembles the clip. Raises ValueError for a folder that is
    not empty, and for more clips than there are captions.
    """
    folder = Path(folder).resolve()
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name another folder with --output_path")
    videos = folder / "videos"
    videos.mkdir(parents=True)
    turns = draw_turns(list(renderer.files), count, seed)
    records = []
    for number, turn in enumerate(turns):
        name = f"{safe_name(sentence(turn), number)}.mp4"
        write_video(videos / name, render(renderer, turn, frames, size, [seed, number]), SOURCE_FPS / STRIDE)
        records.append({"path": name, "cap": sentence(turn), "frame_idx": f"0:{frames}"})
    write_json(folder / "videos.json", records)
    captions = "".join(f"{record['cap']}\n" for record in records)
    data_list = f"{videos}, {folder / 'videos.json'}\n"
    write_atomic(folder / "captions.txt", lambda file: file.write(captions.encode()))
    write_atomic(folder / "video_data.txt", lambda file: file.write(data_list.encode()))
    return f"{count} clips: {folder / 'video_data.txt'}, {folder / 'captions.txt'}"


def draw_turns(subjects: list[str], count: int, seed: int) -> list[Turn]:
    """Draw `count` different turns. Raises ValueError if there are fewer."""
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
    """The clip of a turn, with the subject at a place drawn from `seed`: uint8 (T, H, W, 3)."""
    subject, *colours = turn
    before, after = (
        renderer.render(subject, name, frames, size, np.random.default_rng(seed), scale=SCALE).video
        for name in colours
    )
    share = np.interp(np.linspace(0, 1, frames), TURN, (0, 1))[:, None, None, None]
    return np.rint(before * (1 - share) + after * share).astype(np.uint8)
