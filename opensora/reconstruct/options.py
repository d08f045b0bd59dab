"""Options of `opensora reconstruct`, checked before MindSpore is imported."""

from dataclasses import dataclass, field
from typing import ClassVar

from opensora.checks import above, at_least, at_most
from opensora.options import JobOptions
from opensora.pipeline.options import InferenceDeviceOptions, VAEOptions, check_device_options


@dataclass(frozen=True, kw_only=True)
class ReconstructInputOptions:
    """Input: one file or a folder."""

    GROUP: ClassVar[str] = "data"
    video_path: str | None = None
    """Video, animation or image."""
    real_video_dir: str | None = None
    """Folder of videos and images."""
    data_file_path: str | None = None
    """List (.txt, .csv or .json) of the files in real_video_dir to use; default: all videos and images."""
    num_frames: int = 65
    """Maximum number of frames per file."""
    sample_rate: int = 1
    """Take every n-th frame."""
    dynamic_start_index: bool = False
    """Start each video at a random frame instead of the first."""
    seed: int = 0
    """Seed of the random start frames."""
    resolution: int | None = None
    """Resize the shorter side to this many pixels; default: keep the size."""
    crop_size: int | None = None
    """Side of a centred square crop, after resizing; default: multiples of the autoencoder's stride."""
    num_workers: int = 1
    """Number of files read ahead."""


@dataclass(frozen=True, kw_only=True)
class ReconstructOutputOptions:
    """Output."""

    GROUP: ClassVar[str] = "output"
    rec_path: str | None = None
    """Reconstruction of video_path: .mp4, .gif, .webp, or .png for an image."""
    generated_video_dir: str | None = None
    """Folder for the reconstructions of real_video_dir, under the same names: .mp4, or .png for an image."""
    fps: float | None = None
    """Frames per second of the source; results play at fps / sample_rate; default: as stored in each file."""
    grid: bool = False
    """Save original and reconstruction side by side."""
    output_origin: bool = False
    """Also save the resized and cropped originals, in a subfolder `origin` of the results."""
    lpips_weights: list[str] = field(default_factory=list)
    """Weights of LPIPS (.safetensors, .ckpt, .pth): one file, or VGG16's and the heads'; adds LPIPS."""


@dataclass(frozen=True, kw_only=True)
class ReconstructModelOptions:
    """Model."""

    GROUP: ClassVar[str] = "model"
    model_path: str = "demo"
    """Model folder in the release's layout, or an autoencoder's folder; "demo" is the packaged model."""
    ae_path: str | None = None
    """Folder of the autoencoder, or of another model; default: model_path/vae."""
    batch_size: int = 1
    """Clips of one size processed together; on a CPU they run one by one."""


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions(
    ReconstructInputOptions,
    ReconstructOutputOptions,
    ReconstructModelOptions,
    VAEOptions,
    JobOptions,
    InferenceDeviceOptions,
):
    """Options of `opensora reconstruct`: one file (video_path, rec_path) or a folder (real_video_dir,
    generated_video_dir)."""

    ALIASES: ClassVar[dict[str, str]] = {"sample_fps": "fps"}


def check_options(options: ReconstructOptions) -> None:
    """Raises ValueError that names the option and the remedy."""
    file = (options.video_path, options.rec_path)
    folder = (options.real_video_dir, options.generated_video_dir)
    if (None in file) == (None in folder) or any(file) == any(folder):
        raise ValueError(
            "name either a file, with --video_path and --rec_path, "
            "or a folder, with --real_video_dir and --generated_video_dir"
        )
    if options.data_file_path is not None and options.real_video_dir is None:
        raise ValueError("data_file_path lists files of a folder: name the folder with --real_video_dir")
    above(options, 0, "fps")
    at_least(options, 0, "seed", "num_workers")
    at_least(options, 1, "batch_size")
    at_most(options, 2**16, "batch_size")
    at_most(options, 2**10, "num_workers")
    check_device_options(options)
