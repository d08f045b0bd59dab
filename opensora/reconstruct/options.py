"""What `opensora reconstruct` is asked for."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions:
    """Options of `opensora reconstruct`: one file (video_path, rec_path) or a folder (real_video_dir, generated_video_dir)."""

    video_path: str | None = None
    """A video, animation or picture."""
    rec_path: str | None = None
    """File for its reconstruction: .mp4, .gif, .webp, or for a picture .png."""
    real_video_dir: str | None = None
    """Folder of videos and pictures, instead of one file."""
    generated_video_dir: str | None = None
    """Folder for their reconstructions, under the same names: .mp4 for all that moves, .png for pictures."""
    data_file_path: str | None = None
    """List (.txt, .csv or .json) of the files in real_video_dir to take; default: all videos and pictures."""
    model_path: str = "demo"
    """Model folder in the release's layout, or an autoencoder's folder; "demo" is the model that ships."""
    ae_path: str | None = None
    """Folder of the autoencoder, or of another model, instead of model_path/vae."""
    num_frames: int = 65
    """Frames of each file at most; a shorter one is taken as it is."""
    sample_rate: int = 1
    """Every so many frames one is taken."""
    dynamic_start_index: bool = False
    """Start each video at a frame drawn from seed and name, not at the first."""
    seed: int = 0
    """Seed of those draws."""
    resolution: int | None = None
    """Pixels that the shorter side is resized to; default: the file's own size."""
    crop_size: int | None = None
    """Side of the square that is cut out of the middle, after resizing; default: multiples of the autoencoder's stride."""
    fps: float | None = None
    """Frames per second of the files read; results play at fps / sample_rate; default: what each file says."""
    sample_fps: float | None = None
    """The same, under its name in the published folder script."""
    grid: bool = False
    """Write the original, on the left, and the reconstruction side by side."""
    output_origin: bool = False
    """Also write the frames that were taken, resized and cropped, into a folder origin beside the results."""
    enable_tiling: bool = False
    """Encode and decode in tiles of 256 pixels and chunks of 65 frames as the reference does: less memory, visible seams possible."""
    enable_time_chunk: bool = False
    """Encode and decode in chunks of 65 frames, with whole frames unless enable_tiling is set as well."""
    vae_memory: Literal["auto", "exact", "chunked", "tiled"] = "auto"
    """How to encode and decode: exact is the whole video at once, chunked the same numbers in little memory, tiled means enable_tiling."""
    tile_overlap_factor: float = 0.25
    """Part of a tile that overlaps its neighbour."""
    batch_size: int = 1
    """Videos of one size that go through the autoencoder together; on a CPU each goes by itself."""
    num_workers: int = 1
    """Files that are read ahead while another is reconstructed."""
    lpips_weights: list[str] = field(default_factory=list)
    """File (.safetensors, .ckpt, .pth) with the weights of LPIPS and its VGG16, or one of each: LPIPS is measured as well."""
    device: Literal["CPU", "Ascend"] = "CPU"
    """Where to compute."""
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Number format of the autoencoder; a CPU computes in fp32 only."""
