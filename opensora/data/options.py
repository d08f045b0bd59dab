"""What commands that read videos and captions are asked for. Nothing here needs MindSpore."""

from dataclasses import dataclass, replace
from typing import Literal, Self


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """How a clip is cut out of a video. Raises ValueError for values out of range."""

    num_frames: int = 17
    """Frames of a clip; 1 reads pictures."""
    sample_rate: int = 1
    """Every n-th frame of a video; a shorter step where the video is too short for it."""
    max_image_size: int = 512
    """Height and width in pixels: the largest centred square, resized. With multi_scale the longer side."""
    multi_scale: bool = False
    """Keep the proportions, do not enlarge, and pad to the square."""
    enable_flip: bool = False
    """Mirror half of the clips left to right."""
    use_image_num: int = 0
    """Pictures that follow each video on the time axis."""
    use_img_from_vid: bool = False
    """Take these pictures from the video itself, evenly spaced, instead of from image_data."""

    def __post_init__(self) -> None:
        for name, least in (
            ("num_frames", 1),
            ("sample_rate", 1),
            ("max_image_size", 8),
            ("use_image_num", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is too small: use {least} or more")
        if self.use_img_from_vid and not 1 <= self.use_image_num <= self.num_frames:
            raise ValueError(
                f"use_img_from_vid takes use_image_num frames of a clip of {self.num_frames}: set it from 1 to {self.num_frames}, "
                f"not {self.use_image_num}"
            )


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Which data lists are read, and how."""

    video_data: str | None = None
    """Data list of videos: a text file, one `folder, annotations` or `folder, text embeddings, annotations` a line."""
    image_data: str | None = None
    """Data list of pictures, in the same form."""
    file_column: str = "path"
    """Name of the file in the annotations."""
    caption_column: str = "cap"
    """Name of the caption, or list of captions, in the annotations."""


@dataclass(frozen=True, kw_only=True)
class DataOptions(ListOptions, ClipOptions):
    """Where a run's samples come from. Raises ValueError for what does not go together."""

    vae_latent_folder: str | None = None
    """Latents made by `opensora encode-latents`, used instead of the videos' pixels; without video_data also for their captions."""
    image_latent_folder: str | None = None
    """The same for the pictures of image_data."""
    sample_posterior: bool = True
    """Train on draws from the autoencoder's posterior; false takes its mean, which has no noise for the transformer to imitate."""
    text_embed_cache: bool = False
    """Use the text embeddings that the data lists name in their second column, made by `opensora embed-text`."""
    model_max_length: int | None = None
    """Tokens of a caption, longer ones lose their end; default: the model's, or 300."""
    filter_nonexistent: bool = False
    """Leave out records whose file is missing, instead of replacing them one by one."""
    caption_dropout: float = 0.1
    """Part of the captions that are left empty, for guidance."""
    max_bad_rate: float = 0.1
    """Stop when more than this part of the samples could not be read and were replaced."""
    max_rowsize: int = 0
    """Largest sample in MB, 0 for no limit: a guard of the memory that batches made ahead take."""
    dataloader_num_workers: int = 0
    """Processes that read samples; 0 reads in the run's own process. Samples do not depend on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("caption_dropout", "max_bad_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is outside 0 to 1")
        for name, least in (("model_max_length", 1), ("max_rowsize", 0), ("dataloader_num_workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} {value} is too small: use {least} or more")
        if self.video_data is None and self.image_data is None and self.vae_latent_folder is None:
            raise ValueError(
                "there is no data: name a list with --video_data or --image_data, or a cache with --vae_latent_folder"
            )
        joint = self.use_image_num > 0 and self.num_frames > 1 and self.video_data is not None
        if joint and not self.use_img_from_vid and self.image_data is None:
            raise ValueError(
                "use_image_num needs pictures: name them with --image_data, or take them from the videos with --use_img_from_vid"
            )
        if self.text_embed_cache and self.video_data is None and self.image_data is None:
            raise ValueError(
                "text_embed_cache needs a data list with three columns: name it with --video_data or --image_data"
            )


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """How a cache is written. The same command again continues; several processes share the work."""

    output_path: str
    """Folder of the cache."""
    batch_size: int = 8
    """Items that are encoded together."""
    block_size: int = 64
    """Items of a file: what a stopped command loses at most."""
    dtype: Literal["float32", "float16"] = "float16"
    """How values are stored."""
    rank: int = 0
    """Number of this process, from 0, where several share the work; those of `msrun` know theirs."""
    world_size: int = 1
    """Processes that share the work; those of `msrun` know how many they are."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "block_size", "world_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is too small: use 1 or more")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"rank {self.rank} is outside 0 to {self.world_size - 1}: world_size is {self.world_size}"
            )

    def of_job(self, rank: int, size: int) -> Self:
        """These options for one of the processes of a job; as they are for one alone."""
        return self if size == 1 else replace(self, rank=rank, world_size=size)


@dataclass(frozen=True, kw_only=True)
class EmbedTextOptions(CacheOptions):
    """Options of `opensora embed-text`."""

    data_file_path: str | None = None
    """Annotation file (.json, .jsonl, .csv) whose captions are embedded."""
    prompt_path: str | None = None
    """Prompts instead: a .txt file, one a line."""
    text_encoder_name: str
    """Folder of the T5 encoder."""
    file_column: str = "path"
    """Name of the file in the annotations; embeddings are kept by caption, so it changes nothing."""
    caption_column: str = "cap"
    """Name of the caption, or list of captions, in the annotations."""
    model_max_length: int = 300
    """Tokens of a caption; longer ones lose their end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.data_file_path is None) == (self.prompt_path is None):
            raise ValueError(
                "name either an annotation file with --data_file_path, or a file of prompts with --prompt_path"
            )


@dataclass(frozen=True, kw_only=True)
class EncodeLatentsOptions(CacheOptions, ListOptions, ClipOptions):
    """Options of `opensora encode-latents`."""

    vae: str
    """Folder of the autoencoder."""
    batch_size: int = 4
    """Clips that are encoded together."""
    clips_per_video: int = 1
    """Different clips (start, flip) that are taken of each video."""
    seed: int = 0
    """Seed of the clips."""
    enable_tiling: bool = False
    """Encode in tiles of 256 pixels and chunks of 65 frames as the reference does: less memory, other numbers at the seams."""
    demo_data: str | None = None
    """Folder of the demo data set, made by `opensora prepare-data demo FOLDER`, instead of data lists."""
    split: Literal["train", "held_out"] = "train"
    """Which pairs of subject and colour, for demo_data."""
    num_clips: int = 4096
    """Clips to render and encode, for demo_data."""
    resolution: int = 64
    """Height and width of a clip in pixels, for demo_data."""

    def __post_init__(self) -> None:
        CacheOptions.__post_init__(self)
        ClipOptions.__post_init__(self)
        if sum(source is not None for source in (self.video_data, self.image_data, self.demo_data)) != 1:
            raise ValueError("a cache is of one thing: name either --video_data, --image_data or --demo_data")
        if self.clips_per_video < 1 or self.num_clips < 1:
            raise ValueError("clips_per_video and num_clips must be at least 1")
