"""What the training commands are asked for; checked before MindSpore is imported."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """How weights move. Raises ValueError for values out of range."""

    learning_rate: float = 2e-5
    """Peak learning rate."""
    end_learning_rate: float = 0.0
    """Where the cosine and linear schedules end."""
    lr_scheduler: Literal["constant", "cosine", "linear"] = "constant"
    """How the rate goes on after the warm-up."""
    lr_warmup_steps: int = 1000
    """Steps of linear warm-up from zero."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates of the first and second moment."""
    optim_eps: float = 1e-8
    """Adam's epsilon, added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices and kernels."""
    group_strategy: Literal["norm_and_bias", "all"] = "norm_and_bias"
    """norm_and_bias: no decay for vectors (norms, biases, mix factors); all: decay for everything, as PyTorch's default."""
    max_grad_norm: float = 1.0
    """The gradients' global norm is clipped to this; 0 turns clipping off."""
    ema_decay: float = 0.9999
    """Decay of the moving average of the weights."""

    def __post_init__(self) -> None:
        for name, choices in (("lr_scheduler", ("constant", "cosine", "linear")), ("group_strategy", ("norm_and_bias", "all"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown: choose one of {', '.join(choices)}")
        for name in ("learning_rate", "end_learning_rate", "lr_warmup_steps", "optim_eps", "weight_decay", "max_grad_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How long to train and what to keep. Raises ValueError for values out of range."""

    output_dir: str = "runs/run"
    """Run folder; a run that is already there continues from its newest complete checkpoint."""
    max_train_steps: int = 1000
    """Optimizer steps in all, those before a resume included."""
    checkpointing_steps: int = 500
    """A checkpoint every so many steps; one is always written at the end and on SIGTERM or SIGINT."""
    ckpt_max_keep: int = 3
    """Complete checkpoints to keep, newest first; 0 keeps all."""
    log_interval: int = 10
    """A line of metrics every so many steps."""
    validation_steps: int = 0
    """A validation every so many steps; 0 for none but at the end."""
    dataloader_prefetch_size: int = 4
    """Batches made ahead of time, each by a thread of its own."""
    seed: int = 3407
    """Everything random is drawn from this and the step's number."""
    batch_size: int = 4
    """Samples of a step."""

    def __post_init__(self) -> None:
        if isinstance(self, OptimizerOptions):
            OptimizerOptions.__post_init__(self)
        for name in ("max_train_steps", "checkpointing_steps", "log_interval", "dataloader_prefetch_size", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainVAEOptions(LoopOptions, OptimizerOptions):
    """Options of `opensora train-vae`."""

    demo_data: str
    """Folder of the demo data set, made by `opensora prepare-data demo FOLDER`."""
    model_config: str
    """Folder whose config.json describes the autoencoder."""
    load_from_checkpoint: str | None = None
    """Weights to start from: a checkpoint folder of another run (its moving average) or a model folder."""
    video_num_frames: int = 17
    """Frames of a clip; 1 trains on pictures."""
    resolution: int = 64
    """Height and width of a clip in pixels."""
    kl_weight: float = 1e-6
    """Weight of the KL divergence of the latents."""
    squared_weight: float = 0.0
    """Weight of the squared error beside the absolute one."""
    num_validation_clips: int = 24
    """Held-out clips that a validation reconstructs."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(LoopOptions, OptimizerOptions):
    """Options of `opensora train`."""

    model_path: str
    """Model folder whose config.json files and tokenizer describe the networks; its weights are not read."""
    version: str | None = None
    """Folder of the transformer inside model_path, needed where there are several."""
    vae_latent_folder: str
    """Latents and captions to train on, made by `opensora encode-latents`."""
    validation_latent_folder: str
    """Latents and captions to validate on."""
    pretrained: str | None = None
    """Weights to start from: another run or a checkpoint of it (its moving average), or a file such as t2v.pt; default: fresh ones."""
    caption_dropout: float = 0.1
    """Part of the captions that are left empty, for guidance."""
