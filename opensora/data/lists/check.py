"""`opensora check-data`: what a run would use of data lists and caches, what it would reject and why."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from opensora.data.dataset.collate import shuffled
from opensora.data.options import DataOptions
from opensora.data.samples import FileStock, Source, Stock
from opensora.data.setup import LENGTH, make_source
from opensora.media.reader import probe
from opensora.media.sheets import contact_sheet
from opensora.media.writer import write_video
from opensora.weights.folder import DEMO

SHOWN = 10
"""Examples of a kind that are printed."""
THUMBNAIL = 96  # pixels


@dataclass(frozen=True, kw_only=True)
class CheckDataOptions(DataOptions):
    """Options of `opensora check-data`."""

    num_samples: int = 16
    """Videos and pictures to open of each list: the first that a run would take."""
    all: bool = False
    """Open every one of them."""
    batch_size: int = 1
    """Samples of a step, for the number of steps."""
    seed: int = 3407
    """Seed of the run."""
    text_encoder_name: str | None = None
    """Folder of the text encoder, for its tokenizer and to check cached embeddings; default: T5's tokenizer, any cache."""
    vae: str | None = None
    """Folder of the autoencoder, to check cached latents; default: any cache."""
    contact_sheet: str | None = None
    """A .png file to draw frames of the opened samples into."""


class Opened(NamedTuple):
    """What opening an item gave. `frames` can be used, `size` is the file's, `middle` a frame of the clip that was cut, float (3, H, W)."""

    name: str
    reason: str
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    middle: np.ndarray | None = None


def check_data(options: CheckDataOptions) -> Iterator[str]:
    """Lines of the report. Raises ValueError for lists or caches that a run would refuse as well."""
    if options.contact_sheet is not None and Path(options.contact_sheet).exists():
        raise ValueError(
            f"contact_sheet {options.contact_sheet} is there already and stays: choose another name"
        )
    encoder = options.text_encoder_name
    if encoder is None and not options.text_embed_cache:
        encoder = str(DEMO / "text_encoder")
    source = make_source(options, options.seed, encoder, options.vae)
    pictures: list[np.ndarray] = []
    for name, stock in (("videos", source.videos), ("pictures", source.images)):
        if stock is not None:
            yield from _describe(name, stock, options, pictures)
    yield from _describe_run(source, options)
    if options.contact_sheet is not None and pictures:
        write_video(options.contact_sheet, contact_sheet(np.stack(pictures))[None])
        yield f"contact sheet: {options.contact_sheet}"


def _describe(
    name: str, stock: Stock, options: CheckDataOptions, pictures: list[np.ndarray]
) -> Iterator[str]:
    yield f"{name}: {len(stock):,} {'records' if isinstance(stock, FileStock) else 'cached clips'}"
    if isinstance(stock, FileStock):
        for number, data_set in enumerate(stock.entries.sources):
            yield f"  {data_set.annotations}: {int((stock.entries.source_numbers == number).sum()):,} records in {data_set.folder}"
        yield from _reasons("  not used", stock.entries.rejected, stock.entries.examples)
    count = len(stock) if options.all else min(options.num_samples, len(stock))
    indices = (
        range(count)
        if options.all
        else [shuffled(number, len(stock), options.seed) for number in range(count)]
    )
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    frames, sizes = [], Counter[str]()
    with ThreadPoolExecutor(max(1, options.dataloader_num_workers)) as pool:
        for opened in pool.map(lambda index: _open(stock, index), indices):
            if opened.reason:
                reasons[opened.reason] += 1
                examples.setdefault(opened.reason, opened.name)
                continue
            frames.append(opened.frames)
            sizes[f"{opened.size[0]}x{opened.size[1]}"] += 1
            if opened.middle is not None and len(pictures) < 64:
                pictures.append(_thumbnail(opened.middle, opened.name))
    yield f"  opened {count:,}, {sum(reasons.values()):,} cannot be used"
    yield from _reasons("  rejected", reasons, examples)
    if frames:
        latents = "" if isinstance(stock, FileStock) else " of latents"
        yield f"  frames{latents or ' to draw from'}: {min(frames)} to {max(frames)}, the middle one {int(np.median(frames))}"
        yield f"  height x width{latents}: {', '.join(f'{size} ({times})' for size, times in sizes.most_common(SHOWN))}"


def _open(stock: Stock, index: int) -> Opened:
    name = stock.name(index)
    try:
        visual = stock.visual(index, np.random.default_rng(0))
        if isinstance(stock, FileStock):
            info = probe(name)
            first, end = stock.entries[index].frames or (0, info.frames)
            return Opened(
                name,
                "",
                min(end, info.frames) - first,
                (info.height, info.width),
                visual[:, visual.shape[1] // 2],
            )
        return Opened(name, "", visual.shape[1], (visual.shape[2], visual.shape[3]))
    except Exception as error:  # whatever a decoder raises for a foreign file
        return Opened(
            name,
            str(error).replace(name, "it")
            if isinstance(error, ValueError)
            else f"{type(error).__name__}: {error}",
        )


def _describe_run(source: Source, options: CheckDataOptions) -> Iterator[str]:
    try:
        sample = source.draw(0)
    except ValueError as error:
        yield f"a run would stop at once: {error}"
        return
    batch = source.join([sample])
    yield "a sample: " + ", ".join(f"{name} {_by(value.shape[1:])}" for name, value in batch.items())
    tokens = [int(mask.sum()) for mask in batch["text_mask"][0]]
    yield f"  tokens of its captions: {', '.join(map(str, tokens))} of {options.model_max_length or LENGTH}"
    yield f"  {sum(value.nbytes for value in batch.values()) / 1e6:.1f} MB, {options.caption_dropout:.0%} of the captions are left empty"
    steps = len(source) / options.batch_size
    yield f"an epoch: {len(source):,} samples, {math.ceil(steps):,} steps of {options.batch_size}"


def _reasons(title: str, reasons: Counter[str], examples: dict[str, str]) -> Iterator[str]:
    for reason, count in reasons.most_common(SHOWN):
        yield f"{title}: {count:,}, {reason}; the first is {examples[reason]}"
    if len(reasons) > SHOWN:
        yield f"{title}: {sum(count for _, count in reasons.most_common()[SHOWN:]):,} for other reasons"


def _thumbnail(frame: np.ndarray, name: str) -> np.ndarray:
    """float32 (3, H, W) in [-1, 1] -> uint8 square with the file's name."""
    pixels = np.clip((frame.transpose(1, 2, 0) + 1) * 127.5, 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    square = Image.new("RGB", (THUMBNAIL, THUMBNAIL + 12), "white")
    square.paste(picture, (0, 0))
    ImageDraw.Draw(square).text(
        (1, THUMBNAIL), Path(name).name[-15:].encode("ascii", "replace").decode(), fill="black"
    )
    return np.asarray(square)


def _by(shape: Sequence[Any]) -> str:
    return "x".join(map(str, shape))
