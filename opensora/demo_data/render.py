"""Render the demo data set: clips of animated subjects on flat colours, at random places and scales.

`opensora/demo/data_set.json` holds the 48 subjects (Unicode names and code points, which name the files in
the archives), the 8 colours, and the pairs that are held out for evaluation.
`opensora.demo_data.build.build(folder)` makes the cache:

    renderer = Renderer(folder)
    clip = renderer.render("elephant", "sky blue", frames=17, size=64, rng=np.random.default_rng(0))
    clip.video      # uint8 (T, H, W, 3)
    clip.alpha      # uint8 (T, H, W), 255 on the subject
    clip.box        # (top, left, height, width) in pixels, the box of the whole animation

    clips = DemoClips(renderer, seed=0, split="train")      # or "held_out", "all"
    clip = clips[index]                                     # a function of seed and index; endless
    clip.caption                                            # "an elephant on a sky blue background"

Most animations are loops of 72 frames at 24 fps. A clip starts at a random frame and takes every frame, so 17
frames show a quarter of the loop at its natural speed; `stride=4` shows nearly all of it with four times the
motion between frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from opensora.config_files import read_settings, shown, typed
from opensora.demo_data.captions import caption
from opensora.files import read_array

DATA_SET = Path(__file__).parent.parent / "demo" / "data_set.json"
REMEDY = "build the data set again"
SOURCE_FPS = 24
STRIDE = 1
SCALES = (0.75, 1.0)  # longer side of the subject's box, as a fraction of the frame
SPLITS = ("train", "held_out", "all")

Pair = tuple[str, str]  # subject, colour


@dataclass(frozen=True)
class DemoSet:
    """The data set's description.

    subjects: name to code points. colours: name to RGB in 0..255. held_out: pairs.
    """

    subjects: dict[str, str]
    colours: dict[str, tuple[int, int, int]]
    held_out: tuple[Pair, ...]

    def pairs(self, split: str = "all") -> list[Pair]:
        """The (subject, colour) pairs of "train", "held_out" or "all", in a fixed order."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown: choose one of {', '.join(SPLITS)}")
        held_out = set(self.held_out)
        everything = [(subject, colour) for subject in self.subjects for colour in self.colours]
        return [pair for pair in everything if split == "all" or (pair in held_out) == (split == "held_out")]


@lru_cache(maxsize=1)
def demo_set() -> DemoSet:
    """The data set of the shipped demo model."""
    return typed(DemoSet, read_settings(DATA_SET), DATA_SET)


def split_pairs(subjects: Sequence[str], colours: Sequence[str], seed: int) -> list[Pair]:
    """Choose a fifth of the pairs to hold out, evenly; `held_out` in data_set.json was made so.

    Subjects and colours are shuffled. Each subject has one or two pairs held out, and the colours take turns,
    so that every subject and every colour is in both splits and their counts differ by at most one.
    """
    rng = np.random.default_rng(seed)
    order = [subjects[i] for i in rng.permutation(len(subjects))]
    turns = [colours[i] for i in rng.permutation(len(colours))]
    total = round(len(order) * len(turns) / 5)
    count, more = divmod(total, len(order))
    chosen = [subject for i, subject in enumerate(order) for _ in range(count + (i < more))]
    return sorted((subject, turns[slot % len(turns)]) for slot, subject in enumerate(chosen))


@dataclass(frozen=True)
class Clip:
    """A rendered clip.

    `phase` is the first source frame, `scale` the longer side of `box` as a fraction of the frame.
    """

    subject: str
    colour: str
    video: np.ndarray  # uint8 (T, H, W, 3)
    alpha: np.ndarray  # uint8 (T, H, W)
    box: tuple[int, int, int, int]  # top, left, height, width
    scale: float
    phase: int

    @property
    def caption(self) -> str:
        return caption(self.subject, self.colour)

    @property
    def pair(self) -> Pair:
        return self.subject, self.colour


@dataclass(frozen=True)
class StoredFrames:
    """The file of a subject's frames."""

    file: str
    sha256: str = ""


@dataclass(frozen=True)
class Manifest:
    """The content of the demo data set's cache folder."""

    subjects: dict[str, StoredFrames]
    resolution: int = 0


def read_demo_manifest(path: Path) -> Manifest:
    """The manifest.json of a cache folder. Raises ValueError for a damaged one."""
    manifest = typed(Manifest, read_settings(path), path)
    for entry in manifest.subjects.values():
        if Path(entry.file).name != entry.file:
            raise ValueError(f"{path} names the file {shown(entry.file)} outside its folder: {REMEDY}")
    return manifest


class Renderer:
    """Renders clips from a cache folder that `build` made.

    Raises ValueError if the folder has no complete cache.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        manifest = self.folder / "manifest.json"
        if not manifest.is_file():
            raise ValueError(
                f"{self.folder} holds no demo data set: "
                f"make it with `opensora prepare-data demo {self.folder}`"
            )
        subjects = read_demo_manifest(manifest).subjects
        self.files = {name: entry.file for name, entry in subjects.items()}
        self._frames: dict[str, np.ndarray] = {}

    def frames(self, subject: str) -> np.ndarray:
        """All frames of a subject in the animation's box: premultiplied RGBA uint8 (N, h, w, 4)."""
        if subject not in self.files:
            raise ValueError(f"subject {subject!r} is not in {self.folder}: it holds {', '.join(self.files)}")
        if subject not in self._frames:
            path = self.folder / self.files[subject]
            frames = read_array(path, REMEDY)
            if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 4 or not frames.size:
                raise ValueError(f"{path} holds no RGBA frames: {REMEDY}")
            self._frames[subject] = frames
        return self._frames[subject]

    def render(
        self,
        subject: str,
        colour: str,
        frames: int = 17,
        size: int = 64,
        rng: np.random.Generator | None = None,
        stride: int = STRIDE,
        scale: float | None = None,
    ) -> Clip:
        """Render a clip of `frames` pictures of `size` x `size` pixels with the whole subject in sight.

        Scale (uniform in SCALES, unless given), phase and place are drawn from `rng`. Without one the clip
        starts at the first source frame, with the subject in the middle at scale 0.8, unless given.
        """
        source = self.frames(subject)
        count, source_height, source_width, _ = source.shape
        if scale is None:
            scale = 0.8 if rng is None else float(rng.uniform(*SCALES))
        shrink = scale * size / max(source_height, source_width)
        height, width = max(1, round(source_height * shrink)), max(1, round(source_width * shrink))
        room = (size - height, size - width)
        if rng is None:
            phase, top, left = 0, room[0] // 2, room[1] // 2
        else:
            phase, top, left = (int(rng.integers(limit)) for limit in (count, room[0] + 1, room[1] + 1))
        subject_frames = [
            resize_premultiplied(source[(phase + i * stride) % count], height, width) for i in range(frames)
        ]
        canvas = np.zeros((frames, size, size, 4), np.uint8)
        canvas[:, top : top + height, left : left + width] = subject_frames
        alpha = canvas[..., 3]
        return Clip(
            subject,
            colour,
            composite(canvas, demo_set().colours[colour]),
            alpha,
            (top, left, height, width),
            scale,
            phase,
        )


def resize_premultiplied(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Premultiplied RGBA uint8 (h, w, 4) -> (height, width, 4)."""
    # A filter without negative lobes keeps premultiplied colours below alpha.
    image = Image.frombuffer(
        "RGBa", (frame.shape[1], frame.shape[0]), np.ascontiguousarray(frame), "raw", "RGBa", 0, 1
    )
    return np.asarray(image.resize((width, height), Image.Resampling.HAMMING))


def composite(premultiplied: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Premultiplied RGBA uint8 (..., 4) over a flat colour -> uint8 (..., 3), rounded to nearest."""
    cover = (255 - premultiplied[..., 3:]).astype(np.uint16)
    background = (cover * np.asarray(colour, np.uint16) + 127) // 255
    return np.minimum(premultiplied[..., :3] + background, 255).astype(np.uint8)


class DemoClips:
    """An endless sequence of clips: `clips[i]` is a function of `seed` and `i`."""

    def __init__(
        self,
        renderer: Renderer,
        seed: int = 0,
        split: str = "train",
        frames: int = 17,
        size: int = 64,
        stride: int = STRIDE,
    ) -> None:
        self.renderer = renderer
        self.seed = seed
        self.frames = frames
        self.size = size
        self.stride = stride
        self.pairs = [pair for pair in demo_set().pairs(split) if pair[0] in renderer.files]

    def pair(self, index: int) -> Pair:
        """The subject and colour of a clip, without rendering it."""
        return self._draw(index)[0]

    def scale(self, index: int) -> float:
        """The scale of a clip, without rendering it."""
        return self._draw(index)[1]

    def __getitem__(self, index: int) -> Clip:
        pair, scale, rng = self._draw(index)
        return self.renderer.render(*pair, self.frames, self.size, rng, self.stride, scale)

    def _draw(self, index: int) -> tuple[Pair, float, np.random.Generator]:
        """The pair and the scale of a clip, and the generator that draws the rest."""
        rng = np.random.default_rng([self.seed, index])
        pair = self.pairs[int(rng.integers(len(self.pairs)))]
        return pair, float(rng.uniform(*SCALES)), rng
