"""A demo data set with four drawn subjects: two moving discs and two moving bars of different colours."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from opensora.demo_data.render import Renderer

SIDE = 64
LOOP = 48
# Subject: colour of the body, colour of what turns on it, and how round it is.
LOOKS = {
    "elephant": ((120, 120, 130), (40, 40, 50), 1.0),
    "tiger": ((240, 140, 30), (30, 20, 10), 1.0),
    "horse": ((120, 70, 30), (250, 240, 200), 0.4),
    "ghost": ((225, 235, 150), (20, 20, 30), 0.4),
}


def draw(subject: str) -> np.ndarray:
    """An animation as the cache stores it: premultiplied RGBA uint8 (LOOP, SIDE, SIDE, 4)."""
    body, mark, roundness = LOOKS[subject]
    frames = []
    for number in range(LOOP):
        angle = 2 * np.pi * number / LOOP
        picture = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
        pen = ImageDraw.Draw(picture)
        half = (SIDE - 4) / 2 * roundness
        pen.ellipse((SIDE / 2 - half, 2, SIDE / 2 + half, SIDE - 2), fill=(*body, 255))
        row, column = SIDE / 2 + 14 * np.sin(angle), SIDE / 2 + 8 * np.cos(angle)
        pen.rectangle((column - 6, row - 6, column + 6, row + 6), fill=(*mark, 255))
        frames.append(np.asarray(picture.convert("RGBa")))
    return np.stack(frames)


def make_cache(folder: Path) -> Renderer:
    """Write the cache and open it."""
    subjects = {}
    for number, subject in enumerate(LOOKS):
        np.save(folder / f"{number}.npy", draw(subject))
        subjects[subject] = {"file": f"{number}.npy"}
    (folder / "manifest.json").write_text(json.dumps({"subjects": subjects}), encoding="utf-8")
    return Renderer(folder)
