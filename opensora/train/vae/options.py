"""What `opensora train-vae` is asked for; checked before MindSpore is imported."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from opensora.train.options import LoopOptions, OptimizerOptions


@dataclass(frozen=True, kw_only=True)
class VAELossOptions:
    """What is minimised. None: what `loss_params` and `loss_type` of model_config say, else the default of the published version."""

    kl_weight: float | None = None
    """Weight of the KL divergence of the latents; default 1e-6."""
    squared_weight: float = 0.0
    """Weight of the squared error beside the absolute one."""
    motion_weight: float = 0.0
    """Weight of the error of the changes from frame to frame beside that of the frames: for clips that move little."""
    motion_strength_weight: float = 0.0
    """Weight of the error of how strongly each patch of 4x4 pixels changes: what moves in a way that cannot be told still moves as much."""
    logvar_init: float | None = None
    """Log-variance of a pixel's likelihood: the distance is divided by its exponential; default 0."""
    learn_logvar: bool = False
    """Train the log-variance as well."""
    lpips_weights: list[str] = field(default_factory=list)
    """Weights of LPIPS for the perceptual term: one file, or VGG16's and the heads'; without it there is no such term."""
    perceptual_weight: float | None = None
    """Weight of the perceptual distance; default 1."""
    use_discriminator: bool = False
    """Train a discriminator as well, and the autoencoder against it."""
    disc_dims: Literal["2", "3"] | None = None
    """3: it looks at videos; 2: at frames by themselves; default 3."""
    disc_loss: Literal["hinge", "vanilla"] | None = None
    """Its penalty; default hinge."""
    disc_start: int | None = None
    """Steps of the autoencoder before the discriminator counts; default 2001."""
    disc_weight: float | None = None
    """Norm of the adversarial gradient at the last layer, as a part of that of the reconstruction; default 0.5."""
    disc_num_layers: int | None = None
    """Its convolutions that halve the size; default 3."""


@dataclass(frozen=True, kw_only=True)
class VAEDataOptions:
    """Where clips come from. Raises ValueError where that is not one place."""

    demo_data: str | None = None
    """Folder of the demo data set, made by `opensora prepare-data demo FOLDER`, in place of videos."""
    video_path: str | None = None
    """A folder of videos, its subfolders included, or one video; with data_file_path the folder that its names count from."""
    data_file_path: str | None = None
    """List of videos: .csv, .json or .jsonl."""
    video_column: str = "video"
    """Name of the file in that list."""
    video_num_frames: int = 17
    """Frames of a clip; 1 trains on pictures."""
    sample_rate: int = 1
    """Every n-th frame of a video; a smaller step where the video is too short for it."""
    dynamic_sample: bool = False
    """Draw the step of each clip from 1 to sample_rate."""
    resolution: int = 256
    """Height and width of a clip in pixels: the largest square of the video, resized."""
    random_crop: bool = False
    """Draw the place of the square instead of taking the middle."""
    validation_video_path: str | None = None
    """Videos to validate on; default: a held-out part of the same source."""
    num_validation_clips: int = 24
    """Held-out clips that a validation reconstructs."""

    def __post_init__(self) -> None:
        if (self.demo_data is None) == (self.video_path is None and self.data_file_path is None):
            raise ValueError(
                "name one source of clips: videos with --video_path or --data_file_path, or the demo data with --demo_data"
            )
        for name in ("video_num_frames", "sample_rate", "resolution", "num_validation_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is too small: use 1 or more")


@dataclass(frozen=True, kw_only=True)
class TrainVAEOptions(VAEDataOptions, VAELossOptions, LoopOptions, OptimizerOptions):
    """Options of `opensora train-vae`. Both optimizers, the autoencoder's and the discriminator's, have the same settings."""

    ALIASES: ClassVar[dict[str, str]] = {
        "max_steps": "max_train_steps",
        "save_steps": "checkpointing_steps",
        "start_learning_rate": "learning_rate",
    }
    """Names of the published version for options that have another name here."""
    model_config: str
    """Folder whose config.json, or .json file that, describes the autoencoder."""
    load_from_checkpoint: str | None = None
    """Weights to start from: a checkpoint folder of another run (its moving average), a model folder or a .safetensors file."""
    collapse_time: bool = False
    """Those weights were trained on single frames: first put the sum of each kernel's time taps into one, and add random taps that cancel
    where nothing moves."""
    freeze_encoder: bool = False
    """Train the decoder only: latents that were made before still fit."""
    latent_noise: float = 0.0
    """Largest deviation of noise added to the latents of a clip before they are decoded, as a part of the latents' own: the decoder
    learns to forgive what a diffusion model gets wrong."""
    learning_rate: float = 1e-5
    """Peak learning rate."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Adam's decay rates of the first and second moment."""
    weight_decay: float = 0.0
    """Decoupled decay of matrices and kernels."""

    def __post_init__(self) -> None:
        LoopOptions.__post_init__(self)
        VAEDataOptions.__post_init__(self)
        weights = (
            "kl_weight",
            "perceptual_weight",
            "disc_weight",
            "squared_weight",
            "motion_weight",
            "motion_strength_weight",
        )
        for name in (*weights, "disc_start", "latent_noise"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")
        if self.disc_num_layers is not None and self.disc_num_layers < 1:
            raise ValueError(f"disc_num_layers {self.disc_num_layers} is too small: use 1 or more")
