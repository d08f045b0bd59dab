"""Options of `opensora train-vae`. Importing them does not import MindSpore."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from opensora.checks import at_least, one_of, within
from opensora.train.options import COMMON_NAMES, LoopOptions, OptimizerOptions, check_warmup

ONE_SOURCE = "name one source of clips: --video_path or --data_file_path for videos, or --demo_data"


@dataclass(frozen=True, kw_only=True)
class VAEModelOptions:
    """Model."""

    GROUP: ClassVar[str] = "model"
    model_config: str
    """Configuration of the autoencoder: a folder with config.json, a .json file, or "demo"."""
    load_from_checkpoint: str | None = None
    """Initial weights: a checkpoint of another run (its moving average), a model folder, a file, or "demo";
    default: random."""
    collapse_time: bool = False
    """The initial weights were trained on single frames: sum the time taps of each kernel into one, and add
    random taps that cancel where nothing moves."""


@dataclass(frozen=True, kw_only=True)
class VAEDataOptions:
    """Data.

    Raises ValueError for several sources of clips; see `require_source` for none.
    """

    GROUP: ClassVar[str] = "data"
    video_path: str | None = None
    """Folder of videos (searched recursively) or one video; with data_file_path the root of its paths."""
    data_file_path: str | None = None
    """List of videos: .csv, .json or .jsonl."""
    video_column: str = "video"
    """Column of the file name in that list."""
    demo_data: str | None = None
    """Instead of videos: folder of the demo data set, made by `opensora prepare-data demo FOLDER`."""

    def __post_init__(self) -> None:
        if self.demo_data is not None and self.has_videos:
            raise ValueError(ONE_SOURCE)

    @property
    def has_videos(self) -> bool:
        return self.video_path is not None or self.data_file_path is not None

    def require_source(self) -> None:
        """Raise ValueError if the options name no clips."""
        if self.demo_data is None and not self.has_videos:
            raise ValueError(ONE_SOURCE)


@dataclass(frozen=True, kw_only=True)
class VAEClipOptions:
    """Clips.

    Raises ValueError for values out of range.
    """

    GROUP: ClassVar[str] = "clips"
    video_num_frames: int = 17
    """Frames of a clip; 1 trains on pictures."""
    sample_rate: int = 1
    """Take every n-th frame of a video; fewer are skipped in a video that is too short."""
    dynamic_sample: bool = False
    """Draw n for each clip from 1 to sample_rate."""
    fps: float | None = None
    """Resample videos to this many frames per second; default: each at its own rate."""
    resolution: int = 256
    """Height and width of a clip in pixels; the largest square of the video is resized to it."""
    random_crop: bool = False
    """Crop that square at a random position instead of the centre."""

    def __post_init__(self) -> None:
        within(self, 1, 2**16, "video_num_frames", "sample_rate")
        within(self, 1, 2**14, "resolution")
        within(self, 0.1, 1000, "fps")


@dataclass(frozen=True, kw_only=True)
class VAELossOptions:
    """Loss.

    An option that is None takes its value from loss_params or loss_type in model_config, else its default.
    Raises ValueError for values out of range.
    """

    GROUP: ClassVar[str] = "loss"
    kl_weight: float | None = None
    """Weight of the KL divergence of the latents; default 1e-6."""
    squared_weight: float = 0.0
    """Weight of the squared error, added to the absolute error."""
    motion_weight: float = 0.0
    """Weight of the error of frame differences; helps with clips that move little."""
    motion_strength_weight: float = 0.0
    """Weight of the error of how much each patch of 4x4 pixels changes, whatever the direction."""
    logvar_init: float | None = None
    """Log-variance of a pixel's likelihood: the error is divided by its exponential; default 0."""
    learn_logvar: bool = False
    """Train the log-variance."""
    lpips_weights: list[str] = field(default_factory=list)
    """LPIPS weights of the perceptual loss: one file, or VGG16 and the heads; default: no such loss."""
    perceptual_weight: float | None = None
    """Weight of the perceptual loss; default 1."""
    use_discriminator: bool = False
    """Train a discriminator and add the adversarial loss."""
    disc_dims: Literal["2", "3"] | None = None
    """3: the discriminator sees videos; 2: single frames; default 3."""
    disc_loss: Literal["hinge", "vanilla"] | None = None
    """Loss of the discriminator; default hinge."""
    disc_start: int | None = None
    """Step from which the discriminator is used; default 2001."""
    disc_weight: float | None = None
    """Ratio of the adversarial to the reconstruction gradient at the last layer; default 0.5."""
    disc_num_layers: int | None = None
    """Convolutions of the discriminator that halve the size; default 3."""

    def __post_init__(self) -> None:
        at_least(self, 0, "kl_weight", "squared_weight", "motion_weight", "motion_strength_weight")
        at_least(self, 0, "perceptual_weight", "disc_start", "disc_weight")
        within(self, 1, 16, "disc_num_layers")
        one_of(self, "disc_dims", "disc_loss")


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """Training."""

    GROUP: ClassVar[str] = "training"
    freeze_encoder: bool = False
    """Train the decoder only; existing latents stay valid."""
    latent_noise: float = 0.0
    """Noise added to the latents before decoding: its largest deviation, relative to the latents' own."""
    recompute: bool = True
    """Compute activations again in the backward pass; false saves them: faster, but more memory."""

    def __post_init__(self) -> None:
        at_least(self, 0, "latent_noise")


@dataclass(frozen=True, kw_only=True)
class VAEValidationOptions:
    """Validation."""

    GROUP: ClassVar[str] = "validation"
    validation_video_path: str | None = None
    """Videos for validation; default: a held-out part of the training data."""
    num_validation_clips: int = 24
    """Clips of a validation."""

    def __post_init__(self) -> None:
        within(self, 1, 2**20, "num_validation_clips")


@dataclass(frozen=True, kw_only=True)
class TrainVAEOptions(
    VAEModelOptions,
    VAEDataOptions,
    VAEClipOptions,
    VAELossOptions,
    DecoderOptions,
    OptimizerOptions,
    VAEValidationOptions,
    LoopOptions,
):
    """Options of `opensora train-vae`. The optimizers of autoencoder and discriminator share their settings.

    Raises ValueError for values out of range.
    """

    ALIASES: ClassVar[dict[str, str]] = COMMON_NAMES
    FIXED: ClassVar[tuple[str, ...]] = ("optim", "freeze_encoder", "learn_logvar")
    DATA: ClassVar[tuple[str, ...]] = ("video_path", "data_file_path", "demo_data")
    INITIAL: ClassVar[str] = "load_from_checkpoint"
    learning_rate: float = 1e-5
    """Peak learning rate."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Decay rates of Adam's first and second moments."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""

    def __post_init__(self) -> None:
        VAEDataOptions.__post_init__(self)
        VAEClipOptions.__post_init__(self)
        VAELossOptions.__post_init__(self)
        DecoderOptions.__post_init__(self)
        OptimizerOptions.__post_init__(self)
        VAEValidationOptions.__post_init__(self)
        LoopOptions.__post_init__(self)
        check_warmup(self, self)
