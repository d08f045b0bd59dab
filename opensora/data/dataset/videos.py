"""Square clips of videos without captions, for training an autoencoder.

    train, held_out = split([Path("a.mp4"), Path("b.mp4")], num_frames=17)
    dataset = VideoDataset(train, seed=0, num_frames=17, size=256)
    dataset.clip(5)       # uint8 (T, H, W, 3), a function of seed and number

Every video gives one clip an epoch, in an order of that epoch.
"""

import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from opensora.data.clips import Segment, draw_frames
from opensora.data.transforms import center_crop, random_crop, resize
from opensora.media.reader import probe

log = logging.getLogger(__name__)

HELD_OUT_INTERVAL = 20
"""One video of this many is held out; of fewer videos the last tenth of each."""


class VideoDataset:
    """An endless sequence of clips.

    A video that cannot be read is logged once; the next one of the epoch replaces it.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        seed: int,
        num_frames: int,
        size: int,
        sample_rate: int = 1,
        dynamic_sample: bool = False,
        random_crop: bool = False,
        fps: float | None = None,
    ) -> None:
        """Cut clips from these segments.

        size: height and width in pixels. sample_rate: take every n-th frame; dynamic_sample draws n from 1 to
        that. random_crop: place the square at random instead of in the middle. fps: resample videos to this
        rate.
        """
        self.segments, self.seed, self.num_frames, self.size = list(segments), seed, num_frames, size
        self.sample_rate, self.dynamic_sample, self.random_crop = sample_rate, dynamic_sample, random_crop
        self.fps = fps
        self._reported: set[Path] = set()

    def clip(self, number: int) -> np.ndarray:
        """uint8 (T, H, W, 3). Raises ValueError if none of the videos can be read."""
        for attempt in range(len(self.segments)):
            segment = self._segment(number, attempt)
            try:
                return self._read(segment, np.random.default_rng([self.seed, number]))
            except ValueError as error:
                if segment.path not in self._reported:
                    self._reported.add(segment.path)
                    log.warning("%s; other videos replace it", error)
        raise ValueError(
            f"none of the {len(self.segments)} videos can be read, the last tried was {segment.path}: "
            "check the files"
        )

    def name(self, number: int) -> str:
        """The file that a clip is cut from, unless it cannot be read."""
        return str(self._segment(number, 0).path)

    @property
    def epoch(self) -> int:
        """Clips of an epoch, one of each video."""
        return len(self.segments)

    def _segment(self, number: int, attempt: int) -> Segment:
        epoch, place = divmod(number, len(self.segments))
        order = _order(self.seed, epoch, len(self.segments))
        return self.segments[order[(place + attempt) % len(order)]]

    def _read(self, segment: Segment, rng: np.random.Generator) -> np.ndarray:
        rate = int(rng.integers(1, self.sample_rate + 1)) if self.dynamic_sample else self.sample_rate
        frames = draw_frames(segment, self.num_frames, rate, rng, self.fps)
        frames = frames.transpose(0, 3, 1, 2)  # (T, 3, h, w)
        side = min(frames.shape[2:])
        square = random_crop(frames, side, rng) if self.random_crop else center_crop(frames, side)
        # One frame at a time: 65 frames of 1080p in float32 take 1.6 GB.
        resized = [resize(frame[None].astype(np.float32), (self.size, self.size))[0] for frame in square]
        return np.round(np.stack(resized)).astype(np.uint8).transpose(0, 2, 3, 1)


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    order: list[int] = np.random.default_rng([seed, epoch, count]).permutation(count).tolist()
    return order


def split(
    paths: Sequence[Path], num_frames: int, fps: float | None = None
) -> tuple[list[Segment], list[Segment]]:
    """(training, held out): holds out one video of twenty, or of fewer videos the last tenth of each.

    Held-out parts have at least `num_frames` frames at the rate `fps`; a video that is too short for two
    parts is trained on. Raises ValueError if nothing can be held out.
    """
    if len(paths) >= HELD_OUT_INTERVAL:
        chosen = set(range(HELD_OUT_INTERVAL - 1, len(paths), HELD_OUT_INTERVAL))
        train = [Segment(path) for number, path in enumerate(paths) if number not in chosen]
        return train, [Segment(paths[number]) for number in sorted(chosen)]
    train, held_out = [], []
    for path in paths:
        try:
            info = probe(path)
        except ValueError:
            train.append(Segment(path))  # reported and replaced when a clip is drawn from it
            continue
        total = info.frames
        needed = math.ceil(num_frames * info.fps / fps) if fps is not None else num_frames
        cut = total - max(total // 10, needed)
        if cut >= needed:
            train.append(Segment(path, 0, cut))
            held_out.append(Segment(path, cut, total))
        else:
            train.append(Segment(path))
    if not held_out:
        raise ValueError(
            f"no video can be split into {num_frames} frames to train on and {num_frames} to hold out: "
            "name others to validate on with --validation_video_path"
        )
    return train, held_out
