"""`opensora check-data`: report which data a training run would use, and what it would reject and why."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from opensora.checks import at_least
from opensora.console import shortened
from opensora.data.dataset import Dataset, FileDataset
from opensora.data.options import DEFAULT_TEXT_LENGTH, DataOptions
from opensora.data.samples import SampleSource, Stream, shuffled
from opensora.data.setup import make_source
from opensora.data.text.cleaning import clean_caption
from opensora.media.formats import STILL_SUFFIXES
from opensora.media.reader import frames_between, probe
from opensora.media.sheets import contact_sheet
from opensora.media.writer import write_video
from opensora.models.spec import ModelSpec
from opensora.weights.folder import DEMO

MOST_SHOWN = 10
"""Printed reasons or sizes of a data set."""
THUMBNAIL = 96  # pixels
MOST_THUMBNAILS = 64


@dataclass(frozen=True, kw_only=True)
class CheckDataOptions(DataOptions):
    """Options of `opensora check-data`."""

    num_samples: int = 16
    """Videos and pictures to open of each list, in the order of a run."""
    all: bool = False
    """Open every file."""
    batch_size: int = 1
    """Samples of a training step, to count the steps of an epoch."""
    seed: int = 3407
    """Seed of the run."""
    model_path: str | None = None
    """Model folder that is trained: gives text encoder, autoencoder and model_max_length."""
    version: str | None = None
    """Folder of the transformer in model_path; required if there are several."""
    text_encoder_name: str | None = None
    """Text encoder folder, for its tokenizer and to check text caches; default: T5 tokenizer, any cache."""
    vae: str | None = None
    """Autoencoder folder, to check cached latents; default: any cache."""
    contact_sheet: str | None = None
    """Draw frames of the opened samples into this .png file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "num_samples", "batch_size")
        at_least(self, 0, "seed")
        if self.contact_sheet is not None and Path(self.contact_sheet).suffix.lower() not in STILL_SUFFIXES:
            raise ValueError(
                f"contact_sheet {self.contact_sheet} has another ending than a picture: use .png or .jpg"
            )


class OpenedItem(NamedTuple):
    """An item that was read, or the `reason` why it cannot be used.

    `frames` and `size` are those of the file, of which `frames` can be used; `middle` is a frame of the clip
    that was cut, float32 (3, H, W).
    """

    name: str
    reason: str = ""
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    middle: np.ndarray | None = None


@dataclass
class Findings:
    """The results of opening the items of a data set."""

    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    frames: list[int] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)

    def add(self, item: OpenedItem) -> None:
        if item.reason:
            self.reasons[item.reason] += 1
            self.examples.setdefault(item.reason, item.name)
        else:
            self.frames.append(item.frames)
            self.sizes[_by(item.size)] += 1


def check_data(options: CheckDataOptions) -> Iterator[str]:
    """Yield the lines of the report.

    Raises ValueError for lists and caches that a run would refuse as well.
    """
    if options.contact_sheet is not None and Path(options.contact_sheet).exists():
        raise ValueError(
            f"contact_sheet {options.contact_sheet} exists and is not overwritten: choose another name"
        )
    options = _of_model(options)
    encoder = options.text_encoder_name
    if encoder is None and not options.text_embed_cache:
        encoder = str(DEMO / "text_encoder")
    source = make_source(options, options.seed, encoder, options.vae)
    thumbnails: list[np.ndarray] = []
    for name, stream in (("videos", source.videos), ("pictures", source.images)):
        if stream is not None:
            yield from _describe(name, stream, options, thumbnails)
    yield from _describe_run(source, options)
    if options.contact_sheet is not None and thumbnails:
        Path(options.contact_sheet).parent.mkdir(parents=True, exist_ok=True)
        write_video(options.contact_sheet, contact_sheet(np.stack(thumbnails))[None])
        yield f"contact sheet: {options.contact_sheet}"


def _of_model(options: CheckDataOptions) -> CheckDataOptions:
    """The options, completed from the model folder if one is named."""
    if options.model_path is None:
        return options
    spec = ModelSpec.find(options.model_path, options.version, options.text_encoder_name, options.num_frames)
    encoder = None if spec.paths.text_encoder is None else str(spec.paths.text_encoder)
    return replace(
        options,
        text_encoder_name=encoder,
        model_max_length=options.model_max_length or spec.text_length,
        vae=options.vae or str(spec.paths.vae),
    )


def _describe(
    name: str, stream: Stream, options: CheckDataOptions, thumbnails: list[np.ndarray]
) -> Iterator[str]:
    dataset = stream.dataset
    of_files = isinstance(dataset, FileDataset)
    yield f"{name}: {len(dataset):,} {'records' if of_files else 'cached clips'}"
    if isinstance(dataset, FileDataset):
        entries = dataset.entries
        for number, source in enumerate(entries.sources):
            count = int((entries.source_numbers == number).sum())
            yield f"  {source.annotations}: {count:,} records in {source.folder}"
        yield from _reasons("  not used", entries.rejected, entries.examples)
    found = Findings()
    indices = _indices(dataset, options)
    with ThreadPoolExecutor(max(1, options.dataloader_num_workers)) as pool:
        for item in pool.map(lambda index: _open(dataset, index), indices):
            found.add(item)
            if item.middle is not None and len(thumbnails) < MOST_THUMBNAILS:
                thumbnails.append(_thumbnail(item.middle, item.name))
    yield f"  opened {len(indices):,}, {found.reasons.total():,} cannot be used"
    yield from _reasons("  rejected", found.reasons, found.examples)
    if found.frames:
        middle = int(np.median(found.frames))
        sizes = ", ".join(f"{size} ({count})" for size, count in found.sizes.most_common(MOST_SHOWN))
        unit = "" if of_files else " of latents"
        yield f"  frames{unit}: {min(found.frames)} to {max(found.frames)}, median {middle}"
        yield f"  height x width{unit}: {sizes}"
    yield from _describe_captions(stream, indices)


def _describe_captions(stream: Stream, indices: Sequence[int]) -> Iterator[str]:
    """Lines about captions that are empty, cut off or without an embedding, as a run reads these items."""
    faults: Counter[str] = Counter()
    examples: dict[str, str] = {}
    count = 0
    for index in indices:
        captions, source = stream.dataset.captions(index)
        for caption in captions:
            count += 1
            fault = stream.text.fault(clean_caption(caption), source)
            if fault:
                faults[fault] += 1
                examples.setdefault(fault, f"{shortened(caption)!r} of {stream.dataset.name(index)}")
    yield f"  captions: {count:,} of these items"
    yield from _reasons("    of them", faults, examples)


def _indices(dataset: Dataset, options: CheckDataOptions) -> Sequence[int]:
    if options.all:
        return range(len(dataset))
    count = min(options.num_samples, len(dataset))
    return [shuffled(number, len(dataset), options.seed) for number in range(count)]


def _open(dataset: Dataset, index: int) -> OpenedItem:
    name = dataset.name(index)
    try:
        visual = dataset.visual(index, np.random.default_rng(0))
        if not isinstance(dataset, FileDataset):
            return OpenedItem(name, "", visual.shape[1], (visual.shape[2], visual.shape[3]))
        info, segment = probe(name), dataset.entries[index].segment
    except ValueError as error:
        return OpenedItem(name, str(error).replace(name, "it"))
    frames = len(frames_between(name, segment.start, segment.end, dataset.clip.fps))
    return OpenedItem(name, "", frames, (info.height, info.width), visual[:, visual.shape[1] // 2])


def _describe_run(source: SampleSource, options: CheckDataOptions) -> Iterator[str]:
    try:
        sample = source.draw(0)
    except ValueError as error:
        yield f"a run would stop at its first sample: {error}"
        return
    batch = source.join([sample])
    yield "a sample: " + ", ".join(f"{name} {_by(value.shape[1:])}" for name, value in batch.items())
    tokens = ", ".join(str(int(mask.sum())) for mask in batch["text_mask"][0])
    size = sum(value.nbytes for value in batch.values()) / 1e6
    yield f"  tokens of its captions: {tokens} of {options.model_max_length or DEFAULT_TEXT_LENGTH}"
    yield f"  {size:.1f} MB, {options.caption_dropout:.0%} of the captions are left empty"
    steps = math.ceil(len(source) / options.batch_size)
    yield f"an epoch: {len(source):,} samples, {steps:,} steps of {options.batch_size}"


def _reasons(title: str, reasons: Counter[str], examples: dict[str, str]) -> Iterator[str]:
    for reason, count in reasons.most_common(MOST_SHOWN):
        yield f"{title}: {count:,}, {reason}; the first is {examples[reason]}"
    if len(reasons) > MOST_SHOWN:
        rest = sum(count for _, count in reasons.most_common()[MOST_SHOWN:])
        yield f"{title}: {rest:,} for other reasons"


def _thumbnail(frame: np.ndarray, name: str) -> np.ndarray:
    """float32 (3, H, W) in [-1, 1] -> uint8 (96 + 12, 96, 3) with the file's name below."""
    pixels = np.clip((frame.transpose(1, 2, 0) + 1) * 127.5, 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    canvas = Image.new("RGB", (THUMBNAIL, THUMBNAIL + 12), "white")
    canvas.paste(picture, (0, 0))
    label = Path(name).name[-15:].encode("ascii", "replace").decode()
    ImageDraw.Draw(canvas).text((1, THUMBNAIL), label, fill="black")
    return np.asarray(canvas)


def _by(shape: Sequence[Any]) -> str:
    return "x".join(map(str, shape))
