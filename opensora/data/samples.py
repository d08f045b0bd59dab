"""The samples of a run: the n-th draw is a function of (seed, n) and of the files alone.

    source = make_source(options, seed, text_encoder_folder)
    source.draw(17)["video_data"]
    # {"video": (3, T, H, W) or "latents": (4, t, h, w), "input_ids" or "text_embeds", "text_mask"}
    source.join([source.draw(n) for n in range(4)])

A draw that cannot be read is replaced by another, which (seed, n) names too; "rejected" tells what it was and why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from opensora.data.caches.latents import LatentCache
from opensora.data.cutting import pictures_of, read_clip
from opensora.data.dataset.collate import PUBLISHED, batch_sizes, join, shuffled
from opensora.data.lists.data_list import Entries
from opensora.data.options import ClipOptions
from opensora.data.text.captions import Text, choose
from opensora.models.geometry import Strides

VIDEOS, IMAGES = 0, 1  # streams of random numbers
DRAW, REPLACE, CAPTION = 1, 2, 3  # a caption does not depend on whether pixels or cached latents were drawn
ATTEMPTS = 16
"""Before a draw is given up: then nearly nothing can be read."""


class Stock(Protocol):
    """Videos or pictures to draw from."""

    @property
    def text(self) -> Text: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What a report calls an item."""

    def captions(self, index: int) -> tuple[Sequence[str], int]:
        """An item's captions, and the number of its data set."""

    def visual(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """Pixels (3, T, H, W) in [-1, 1] or scaled latents (4, t, h, w). Raises ValueError where it cannot be read."""


@dataclass(frozen=True)
class FileStock:
    """Videos or pictures of data lists, read and cut when they are drawn."""

    entries: Entries
    text: Text
    num_frames: int
    options: ClipOptions

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        return str(self.entries[index].path)

    def captions(self, index: int) -> tuple[Sequence[str], int]:
        entry = self.entries[index]
        return entry.captions, entry.source

    def visual(self, index: int, rng: np.random.Generator) -> np.ndarray:
        return read_clip(self.entries[index], self.num_frames, self.options, rng)


@dataclass(frozen=True)
class LatentStock:
    """Clips or pictures of a cache. Pictures that were cut from a video follow it on the time axis."""

    cache: LatentCache
    text: Text
    sample_posterior: bool = True

    def __len__(self) -> int:
        return len(self.cache)

    def name(self, index: int) -> str:
        return str(self.cache.items[index]["path"])

    def captions(self, index: int) -> tuple[Sequence[str], int]:
        item = self.cache.items[index]
        return item["captions"], item["source"]

    def visual(self, index: int, rng: np.random.Generator) -> np.ndarray:
        return self.cache.latents(index, rng if self.sample_posterior else None)


@dataclass(frozen=True)
class Source:
    """What `stock.make_source` makes. Picklable, so that worker processes have copies of it. Without videos a sample is pictures only."""

    videos: Stock | None
    images: Stock | None
    clip: ClipOptions
    caption_dropout: float
    seed: int
    max_rowsize: int = 0
    strides: Strides = PUBLISHED
    """Of the autoencoder."""

    def __len__(self) -> int:
        """Samples of an epoch: one a video, or as many as the pictures suffice for."""
        if self.videos is not None:
            return len(self.videos)
        assert self.images is not None
        return max(1, len(self.images) // self._pictures)

    @property
    def _pictures(self) -> int:
        return self.clip.use_image_num if self.videos is not None else max(1, self.clip.use_image_num)

    def draw(self, number: int) -> dict[str, Any]:
        """The `number`-th draw of a run: "video_data" and "image_data" as `dataset.join` takes them, "paths", "rejected" [(path, reason)].

        Raises ValueError when nothing that can be read was found in its place.
        """
        rng = np.random.default_rng([self.seed, number, DRAW])
        sample: dict[str, Any] = {"paths": [], "rejected": []}
        if self.videos is not None:
            video, text = self._read(self.videos, number, rng, sample, VIDEOS)
            if self.clip.use_img_from_vid:
                video, pictures = self._cut(self.videos, video)
                sample["image_data"] = _picture_data(self.videos, pictures, [text] * len(pictures))
            sample["video_data"] = {_kind(self.videos, "video"): video, **text}
        if self._pictures and "image_data" not in sample:
            assert self.images is not None
            numbers = range(number * self._pictures, (number + 1) * self._pictures)
            read = [self._read(self.images, each, rng, sample, IMAGES) for each in numbers]
            sample["image_data"] = _picture_data(
                self.images, [picture for picture, _ in read], [text for _, text in read]
            )
        self._require_size(sample)
        return sample

    def join(self, samples: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """A batch: "pixels" or "latents", "latent_mask", "input_ids" or "text_embeds", "text_mask"."""
        sizes = batch_sizes(self.clip.max_image_size, self.clip.num_frames, self.strides)
        return join(samples, sizes, self.videos is not None, self._pictures > 0, self.strides)

    def _read(
        self, stock: Stock, number: int, rng: np.random.Generator, sample: dict[str, Any], stream: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The visual half of an item and its text, (1, L)."""
        index = shuffled(number, len(stock), self.seed, stream)
        replacements = np.random.default_rng([self.seed, number, REPLACE, stream])
        for _ in range(ATTEMPTS):
            try:
                visual = stock.visual(index, rng)
            except Exception as error:  # whatever a decoder raises for a foreign file
                reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                sample["rejected"].append((stock.name(index), reason))
                index = int(replacements.integers(len(stock)))
                continue
            sample["paths"].append(stock.name(index))
            captions, source = stock.captions(index)
            caption = choose(
                captions, self.caption_dropout, np.random.default_rng([self.seed, number, CAPTION, stream])
            )
            return visual, stock.text([caption], source)
        path, reason = sample["rejected"][-1]
        raise ValueError(
            f"{ATTEMPTS} samples in a row could not be read, the last was {path} ({reason}): look with `opensora check-data`"
        )

    def _cut(self, stock: Stock, video: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """A video without the pictures cut from it, and these, (C, 1, H, W) each."""
        count = self.clip.use_image_num
        if isinstance(stock, FileStock):
            return video, pictures_of(video, count)
        return video[:, :-count], [
            video[:, place : place + 1] for place in range(video.shape[1] - count, video.shape[1])
        ]

    def _require_size(self, sample: dict[str, Any]) -> None:
        size = sum(_bytes(sample.get(part)) for part in ("video_data", "image_data")) / 1e6
        if self.max_rowsize and size > self.max_rowsize:
            raise ValueError(
                f"a sample takes {size:.1f} MB, more than max_rowsize {self.max_rowsize}: raise it, or use smaller or cached clips"
            )


def _kind(stock: Stock, pixels: str) -> str:
    return pixels if isinstance(stock, FileStock) else "latents"


def _picture_data(
    stock: Stock, pictures: list[np.ndarray], texts: list[dict[str, np.ndarray]]
) -> dict[str, Any]:
    return {
        _kind(stock, "image"): pictures,
        **{key: np.concatenate([text[key] for text in texts]) for key in texts[0]},
    }


def _bytes(value: Any) -> int:
    if isinstance(value, dict | list):
        return sum(map(_bytes, value.values() if isinstance(value, dict) else value))
    return value.nbytes if isinstance(value, np.ndarray) else 0
