"""The samples of a run: draw n is a function of the seed, n and the files.

    source = make_source(options, seed, text_encoder_folder)
    source.draw(17)["video_data"]   # {"video" or "latents", "input_ids", "text_embeds" or "labels",
                                    #  "text_mask"}
    source.join([source.draw(n) for n in range(4)])

A draw that cannot be read is replaced by another one, which seed and n determine as well; "rejected" holds
its reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from opensora.data.clips import evenly_spaced_frames
from opensora.data.dataset import Dataset
from opensora.data.dataset.collate import PUBLISHED, batch_sizes, join
from opensora.data.options import ClipOptions
from opensora.data.text.captions import CaptionFeatures, draw_caption
from opensora.models.geometry import Strides

VIDEOS, IMAGES = 0, 1  # streams of random numbers
# Further keys of random numbers. A caption has its own, so that it does not depend on whether latents are
# cached.
DRAW, REPLACE, CAPTION, ORDER = 1, 2, 3, 4
ATTEMPTS = 16
"""Files that are tried for one draw. If none can be read, hardly any can."""


class Stream(NamedTuple):
    """A data set, and the form in which its captions reach the model."""

    dataset: Dataset
    text: CaptionFeatures


@dataclass(frozen=True)
class SampleSource:
    """Draws samples. Without `videos` a sample is pictures only. Picklable, for worker processes."""

    videos: Stream | None
    images: Stream | None
    clip: ClipOptions
    caption_dropout: float
    seed: int
    max_rowsize: int = 0
    """Maximum size of a sample in MB; 0 for no limit."""
    strides: Strides = PUBLISHED
    """Strides of the autoencoder."""

    def __len__(self) -> int:
        """Samples of an epoch: one for each video, or as many as the pictures suffice for."""
        if self.videos is not None:
            return len(self.videos.dataset)
        assert self.images is not None
        return max(1, len(self.images.dataset) // self._num_pictures)

    @property
    def encoded(self) -> bool:
        """True if samples hold latents instead of pixels."""
        stream = self.videos or self.images
        assert stream is not None
        return stream.dataset.encoded

    @property
    def _num_pictures(self) -> int:
        return self.clip.use_image_num if self.videos is not None else max(1, self.clip.use_image_num)

    def draw(self, number: int) -> dict[str, Any]:
        """Sample `number` of the run.

        It holds "video_data" and "image_data" for `join`, "paths", and "rejected" [(path, reason)].

        Raises ValueError if no file for it can be read or if it exceeds max_rowsize.
        """
        rng = np.random.default_rng([self.seed, number, DRAW])
        sample: dict[str, Any] = {"paths": [], "rejected": []}
        if self.videos is not None:
            video, text = self._read(self.videos, number, rng, sample, VIDEOS)
            if self.clip.use_img_from_vid:
                video, pictures = self._split_pictures(video)
                sample["image_data"] = self._picture_data(pictures, [text] * len(pictures))
            sample["video_data"] = {"latents" if self.encoded else "video": video, **text}
        if self._num_pictures and "image_data" not in sample:
            assert self.images is not None
            numbers = range(number * self._num_pictures, (number + 1) * self._num_pictures)
            read = [self._read(self.images, each, rng, sample, IMAGES) for each in numbers]
            pictures, texts = [picture for picture, _ in read], [text for _, text in read]
            sample["image_data"] = self._picture_data(pictures, texts)
        self._require_size(sample)
        return sample

    def join(self, samples: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """A batch: "pixels" or "latents", "latent_mask", a form of the text (see `join`), "text_mask"."""
        sizes = batch_sizes(self.clip.max_image_size, self.clip.num_frames, self.strides)
        return join(samples, sizes, self.videos is not None, self._num_pictures > 0, self.strides)

    def _read(
        self, stream: Stream, number: int, rng: np.random.Generator, sample: dict[str, Any], key: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Pixels or latents of an item, and its text, (1, L). key: VIDEOS or IMAGES."""
        dataset = stream.dataset
        index = shuffled(number, len(dataset), self.seed, key)
        replacements = np.random.default_rng([self.seed, number, REPLACE, key])
        for _ in range(ATTEMPTS):
            try:
                visual = dataset.visual(index, rng)
            except ValueError as error:
                sample["rejected"].append((dataset.name(index), str(error)))
                index = int(replacements.integers(len(dataset)))
                continue
            sample["paths"].append(dataset.name(index))
            captions, source = dataset.captions(index)
            caption_rng = np.random.default_rng([self.seed, number, CAPTION, key])
            caption = draw_caption(captions, self.caption_dropout, caption_rng, stream.text.clean)
            return visual, stream.text([caption], source)
        path, reason = sample["rejected"][-1]
        raise ValueError(
            f"{ATTEMPTS} samples in a row could not be read, the last was {path} ({reason}): "
            "look with `opensora check-data`"
        )

    def _split_pictures(self, video: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """A video and the pictures cut from it, (C, 1, H, W) each.

        Cached ones follow the video on the time axis.
        """
        count = self.clip.use_image_num
        if not self.encoded:
            return video, evenly_spaced_frames(video, count)
        places = range(video.shape[1] - count, video.shape[1])
        return video[:, :-count], [video[:, place : place + 1] for place in places]

    def _picture_data(self, pictures: list[np.ndarray], texts: list[dict[str, np.ndarray]]) -> dict[str, Any]:
        joined = {key: np.concatenate([text[key] for text in texts]) for key in texts[0]}
        return {"latents" if self.encoded else "image": pictures, **joined}

    def _require_size(self, sample: dict[str, Any]) -> None:
        size = sum(_num_bytes(sample.get(part)) for part in ("video_data", "image_data")) / 1e6
        if self.max_rowsize and size > self.max_rowsize:
            raise ValueError(
                f"a sample takes {size:.1f} MB, more than max_rowsize {self.max_rowsize}: "
                "raise it, or use smaller or cached clips"
            )


def shuffled(number: int, count: int, seed: int, key: int = VIDEOS) -> int:
    """The item of draw `number`: each of `count` once an epoch, in an order that seed, epoch and key give."""
    epoch, place = divmod(number, count)
    return int(_order(count, seed, epoch, key)[place])


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int, key: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, key, ORDER]).permutation(count)


def _num_bytes(value: Any) -> int:
    if isinstance(value, dict | list):
        return sum(map(_num_bytes, value.values() if isinstance(value, dict) else value))
    return value.nbytes if isinstance(value, np.ndarray) else 0
