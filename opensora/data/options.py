"""Options of the commands that read videos and captions. Importing them does not import MindSpore."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from opensora.checks import at_least, at_most, within
from opensora.demo_data.captions import Wording
from opensora.options import JobOptions

DEFAULT_TEXT_LENGTH = 300
"""Tokens of a caption if no model gives another number."""
MOST_TOKENS = 2**14


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """Clips.

    Raises ValueError for values out of range.
    """

    GROUP: ClassVar[str] = "clips"

    num_frames: int = 17
    """Frames of a clip; 1 reads pictures."""
    sample_rate: int = 1
    """Take every n-th frame; a video too short for it is read at the largest rate that fits."""
    fps: float | None = None
    """Resample videos to this many frames per second; default: each at its own rate."""
    max_image_size: int = 512
    """Resize the largest centred square to this many pixels; with multi_scale the longer side."""
    multi_scale: bool = False
    """Keep the aspect ratio, do not enlarge, and pad to the square."""
    enable_flip: bool = False
    """Mirror half of the clips left to right."""
    use_image_num: int = 0
    """Pictures that follow each video on the time axis."""
    use_img_from_vid: bool = False
    """Take these pictures from the video itself, evenly spaced, instead of from image_data."""

    def __post_init__(self) -> None:
        within(self, 1, 2**16, "num_frames", "sample_rate")
        within(self, 1, 2**14, "max_image_size")
        within(self, 0.1, 1000, "fps")
        within(self, 0, 2**12, "use_image_num")
        if self.use_img_from_vid and not 1 <= self.use_image_num <= self.num_frames:
            raise ValueError(
                f"use_img_from_vid takes use_image_num frames of a clip of {self.num_frames}: "
                f"set it from 1 to {self.num_frames}, not {self.use_image_num}"
            )


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Data."""

    GROUP: ClassVar[str] = "data"

    video_data: str | None = None
    """Data list of videos, with lines `folder, annotations` or `folder, text cache, annotations`."""
    image_data: str | None = None
    """Data list of pictures, in the same form."""
    file_column: str = "path"
    """Column of the file name in the annotations."""
    caption_column: str = "cap"
    """Column of the caption, or of a list of captions, in the annotations."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions(ListOptions, ClipOptions):
    """Data.

    Raises ValueError for options that exclude each other; see `require_data` for none.
    """

    GROUP: ClassVar[str] = "data"

    vae_latent_folder: str | None = None
    """Cache of `opensora encode-latents` to read instead of the videos; alone, also for their captions."""
    image_latent_folder: str | None = None
    """Cache of `opensora encode-latents` to read instead of the pixels of image_data."""
    sample_posterior: bool = True
    """Draw latents from the autoencoder's posterior; false takes its mean, which has no noise to imitate."""
    filter_nonexistent: bool = False
    """Leave out records whose file is missing at the start, instead of replacing them when they are drawn."""
    max_bad_rate: float = 0.1
    """Stop if more than this fraction of the files could not be read."""
    max_rowsize: int = 0
    """Maximum size of a sample in MB, 0 for no limit: bounds the memory of samples that are read ahead."""
    dataloader_num_workers: int = 0
    """Processes that read samples; 0 reads in the main process. Samples do not depend on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, 0, 1, "max_bad_rate")
        at_least(self, 0, "max_rowsize", "dataloader_num_workers")
        at_most(self, 2**10, "dataloader_num_workers")
        joint = self.use_image_num > 0 and self.num_frames > 1 and self.video_data is not None
        if joint and not self.use_img_from_vid and self.image_data is None:
            raise ValueError(
                "use_image_num needs pictures: name them with --image_data, "
                "or take them from the videos with --use_img_from_vid"
            )

    @property
    def has_list(self) -> bool:
        return self.video_data is not None or self.image_data is not None

    def require_data(self) -> None:
        """Raise ValueError if the options name no data."""
        if not self.has_list and self.vae_latent_folder is None:
            raise ValueError(
                "there is no data: name a list with --video_data or --image_data, "
                "or a cache with --vae_latent_folder"
            )


@dataclass(frozen=True, kw_only=True)
class DataOptions(SampleOptions):
    """Data.

    Raises ValueError for options that exclude each other.
    """

    GROUP: ClassVar[str] = "data"

    text_embed_cache: bool = False
    """Read the caches of `opensora embed-text` that the data lists name in their second column."""
    model_max_length: int | None = None
    """Maximum tokens of a caption, longer ones are cut off; default: the model's, or 300."""
    caption_dropout: float = 0.1
    """Fraction of captions that are left empty, for classifier-free guidance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, 0, 1, "caption_dropout")
        within(self, 1, MOST_TOKENS, "model_max_length")
        if self.text_embed_cache and not self.has_list:
            raise ValueError(
                "text_embed_cache needs a data list with three columns: "
                "name it with --video_data or --image_data"
            )


@dataclass(frozen=True, kw_only=True)
class CacheOptions(JobOptions):
    """Output.

    The same command again continues; several processes share the work.
    """

    GROUP: ClassVar[str] = "output"

    output_path: str
    """Folder of the cache."""
    batch_size: int = 8
    """Items to encode at once."""
    block_size: int = 64
    """Items in a file; a stopped command loses at most one file."""
    dtype: Literal["float32", "float16"] = "float16"
    """Number format of the stored values."""
    rank: int = 0
    """Number of this process, from 0, if several share the work; under `msrun` it is known."""
    world_size: int = 1
    """Number of processes that share the work; under `msrun` it is known."""

    def __post_init__(self) -> None:
        at_least(self, 1, "batch_size", "block_size", "world_size")
        at_most(self, 2**16, "batch_size", "block_size", "world_size")
        within(self, 0, self.world_size - 1, "rank")

    def of_job(self, rank: int, size: int) -> Self:
        """These options for one process of a job of `size`; unchanged for a job of one."""
        return self if size == 1 else replace(self, rank=rank, world_size=size)


@dataclass(frozen=True, kw_only=True)
class EmbedTextOptions(CacheOptions):
    """Options of `opensora embed-text`."""

    data_file_path: str | None = None
    """Annotation file (.json, .jsonl, .csv) with the captions."""
    prompt_path: str | None = None
    """Prompts instead: a .txt, .csv, .tsv, .json or .jsonl file."""
    model_path: str | None = None
    """Model folder whose transformer reads the embeddings: gives text encoder and model_max_length."""
    version: str | None = None
    """Folder of the transformer in model_path; required if there are several."""
    text_encoder_name: str | None = None
    """Folder of the T5 encoder; default: model_path/text_encoder."""
    file_column: str = "path"
    """Column of the file name in the annotations; has no effect, because embeddings are stored by caption."""
    caption_column: str = "cap"
    """Column of the caption, or of a list of captions, in the annotations."""
    model_max_length: int | None = None
    """Maximum tokens of a caption, longer ones are cut off; default: the model's, or 300."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, 1, MOST_TOKENS, "model_max_length")
        if (self.data_file_path is None) == (self.prompt_path is None):
            raise ValueError(
                "name either an annotation file with --data_file_path, "
                "or a file of prompts with --prompt_path"
            )
        if self.model_path is None and self.text_encoder_name is None:
            raise ValueError("there is no text encoder: name it with --model_path or --text_encoder_name")


@dataclass(frozen=True, kw_only=True)
class DemoDataOptions:
    """Demo data set, instead of data lists."""

    GROUP: ClassVar[str] = "demo"

    demo_data: str | None = None
    """Folder of the demo data set, made by `opensora prepare-data demo FOLDER`."""
    split: Literal["train", "held_out"] = "train"
    """Pairs of subject and colour to render."""
    num_clips: int = 4096
    """Clips to render and encode."""
    resolution: int = 64
    """Height and width of a clip in pixels."""
    demo_captions: Wording = "sentence"
    """Content of the captions: subject and colour; the same with sizes and other names of the subject; or the
    subject alone, as the class of `train-class`."""

    def __post_init__(self) -> None:
        within(self, 1, 10**8, "num_clips")
        within(self, 1, 2**12, "resolution")


@dataclass(frozen=True, kw_only=True)
class EncodeLatentsOptions(CacheOptions, ListOptions, ClipOptions, DemoDataOptions):
    """Options of `opensora encode-latents`."""

    vae: str
    """Folder of the autoencoder, or a model folder that has one, or "demo"."""
    enable_tiling: bool = False
    """Encode in the reference's tiles (256 pixels, 65 frames): less memory, other values at the seams."""
    batch_size: int = 4
    """Clips to encode at once."""
    clips_per_video: int = 1
    """Clips to cut from each video, with different starts and flips."""
    seed: int = 0
    """Seed of the clips."""

    def __post_init__(self) -> None:
        CacheOptions.__post_init__(self)
        ClipOptions.__post_init__(self)
        DemoDataOptions.__post_init__(self)
        within(self, 1, 2**20, "clips_per_video")
        at_least(self, 0, "seed")
        if sum(source is not None for source in (self.video_data, self.image_data, self.demo_data)) != 1:
            raise ValueError("a cache has one source: name either --video_data, --image_data or --demo_data")
