"""From an entry of a data list to pixels for the autoencoder."""

import numpy as np

from opensora.data.lists.data_list import Entry
from opensora.data.options import ClipOptions
from opensora.data.transforms import (
    center_crop_resize,
    frame_indices,
    long_side_resize,
    random_flip,
    to_float,
    to_model,
)
from opensora.media.reader import probe, read_video


def read_clip(entry: Entry, num_frames: int, options: ClipOptions, rng: np.random.Generator) -> np.ndarray:
    """`num_frames` frames of a video, from a start drawn inside the entry's range -> float32 (3, T, H, W) in [-1, 1].

    Raises ValueError for a file that cannot be read or is too short.
    """
    total = probe(entry.path).frames
    first, end = entry.frames or (0, total)
    try:
        indices = first + frame_indices(min(end, total) - first, num_frames, options.sample_rate, rng)
    except ValueError as error:
        raise ValueError(f"{entry.path}: {error}") from error
    rate = int(indices[1] - indices[0]) if num_frames > 1 else 1
    frames = read_video(entry.path, num_frames, rate, int(indices[0]))  # uint8 (T, h, w, 3)
    fit = long_side_resize if options.multi_scale else center_crop_resize
    # One frame at a time: 65 frames of 1080p in float32 take 1.6 GB.
    video = np.concatenate(
        [fit(to_float(frame[None]), options.max_image_size) for frame in frames]
    )  # (T, 3, H, W)
    return to_model(random_flip(video, rng) if options.enable_flip else video)


def pictures_of(video: np.ndarray, count: int) -> list[np.ndarray]:
    """Evenly spaced frames of a clip (C, T, H, W), the first and the last among them -> `count` arrays (C, 1, H, W)."""
    places = np.linspace(0, video.shape[1] - 1, count).astype(int)
    return [video[:, place : place + 1] for place in places]
