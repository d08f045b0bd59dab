"""Small data sets for tests: videos whose grey level tells the frame, with captions; some are broken."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from opensora.data.caches.cache import CacheWriter, Fingerprint
from opensora.data.caches.latents import LatentCache
from opensora.data.options import ClipOptions
from opensora.media.writer import write_video


def grey(length: int, height: int = 32, width: int = 48, first: int = 0) -> np.ndarray:
    """Frame t has the level 10 * (first + t): uint8 (T, H, W, 3)."""
    levels = (10 * (first + np.arange(length))).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (length, height, width, 3)).copy()


def write_set(
    folder: Path, count: int, kind: str = "videos", broken: tuple[int, ...] = (), length: int = 12
) -> Path:
    """Write files whose names hold commas and spaces, captioned "clip 0", ...; returns the data list."""
    place = folder / f"{kind}, all of them"
    place.mkdir(parents=True)
    records = []
    for number in range(count):
        name = f"clip, {number}{'.mp4' if kind == 'videos' else '.png'}"
        write_video(place / name, grey(length if kind == "videos" else 1, first=number))
        if number in broken:
            (place / name).write_bytes((place / name).read_bytes()[:100])
        records.append({"path": name, "cap": [f"clip {number}", f"clip {number} again"]})
    (folder / f"{kind}.json").write_text(json.dumps(records))
    (folder / f"{kind}.txt").write_text(f"{place}, {folder / kind}.json\n")
    return folder / f"{kind}.txt"


def latent_cache(
    folder: Path,
    captions: list[str],
    moments: np.ndarray,
    encoder: str = "an encoder",
    dtype: str = "float16",
) -> LatentCache:
    """A cache of given moments (N, 2*C, t, h, w), in blocks of 4. encoder: digest of the autoencoder."""
    clip = ClipOptions(num_frames=4 * moments.shape[2] - 3, max_image_size=8 * moments.shape[3])
    fingerprint = Fingerprint("latents", encoder, {"clip": asdict(clip)}, "captions", len(captions), 4)
    writer = CacheWriter(folder, fingerprint, dtype)
    for block in range(fingerprint.blocks):
        numbers = range(4 * block, min(4 * block + 4, len(captions)))
        items = [
            {"key": str(n), "path": f"clip {n}", "captions": [captions[n]], "source": 0} for n in numbers
        ]
        writer.write(block, items, {str(n): moments[n] for n in numbers})
    return LatentCache(folder)
