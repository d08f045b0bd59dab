"""Options that both training commands share; checked before MindSpore is imported."""

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints


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
    lr_decay_steps: int | None = None
    """Steps from the warm-up to end_learning_rate; default: until max_train_steps."""
    optim: Literal["adamw", "adamw_re", "adam", "muon"] = "adamw"
    """adamw (adamw_re and adam are the same here); muon: matrices inside the network move by orthogonal steps, the rest by AdamW."""
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
        for name in ("lr_scheduler", "optim", "group_strategy"):
            choices = get_args(get_type_hints(OptimizerOptions)[name])
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is unknown: choose one of {', '.join(choices)}"
                )
        for name in (
            "learning_rate",
            "end_learning_rate",
            "lr_warmup_steps",
            "optim_eps",
            "weight_decay",
            "max_grad_norm",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")
        if self.lr_decay_steps is not None and self.lr_decay_steps < 1:
            raise ValueError(
                f"lr_decay_steps {self.lr_decay_steps} must be at least 1: leave it out to decay until the end"
            )


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How long to train and what to keep. Raises ValueError for values out of range."""

    output_dir: str = "runs/run"
    """Run folder; a run that is already there continues from its newest complete checkpoint."""
    resume_from_checkpoint: str | None = None
    """Checkpoint folder of another run that a new run continues: weights, optimizer, moving average and step."""
    max_train_steps: int = 1000
    """Optimizer steps in all, those before a resume included."""
    checkpointing_steps: int = 500
    """A checkpoint every so many steps; one is always written at the end and on SIGTERM or SIGINT."""
    ckpt_max_keep: int = 3
    """Complete checkpoints to keep, newest first; 0 keeps all."""
    ckpt_keep_every: int = 0
    """Checkpoints of steps that this divides are kept for good; 0 for none."""
    max_skipped_steps: int = 20
    """The run stops when so many steps in a row had a loss or gradient that was not finite; fewer are left out and counted."""
    log_interval: int = 10
    """A line of metrics every so many steps."""
    validation_steps: int = 0
    """A validation every so many steps; 0 for none but at the end."""
    dataloader_prefetch_size: int = 4
    """Batches made ahead of time, each by a thread of its own."""
    seed: int = 3407
    """Everything random is drawn from this and the step's number."""
    batch_size: int = 4
    """Samples that go through the model together, on each device (with sp_size: in each group of devices)."""
    gradient_accumulation_steps: int = 1
    """Batches whose mean gradient makes one optimizer step."""
    use_parallel: bool = False
    """Refuse to run as a single process; with `msrun` several processes work together in any case."""
    parallel_mode: Literal["data", "optim"] = "data"
    """Several processes: data, each updates all weights; optim, each holds and updates the optimizer's states of its part."""
    peak_flops: float = 0.0
    """Floating-point operations a second that the machine can do at best; the metrics then hold the share that the model used."""
    device: Literal["CPU", "Ascend"] = "CPU"
    """Where to compute."""
    mode: Literal[0, 1] = 0
    """0 compiles every block; 1 runs operator by operator, slower and easier to debug."""

    def __post_init__(self) -> None:
        for options in (OptimizerOptions, PrecisionOptions):
            if isinstance(self, options):
                options.__post_init__(self)
        counts = (
            "max_train_steps",
            "checkpointing_steps",
            "log_interval",
            "dataloader_prefetch_size",
            "batch_size",
        )
        for name in (*counts, "gradient_accumulation_steps", "max_skipped_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("ckpt_max_keep", "ckpt_keep_every", "validation_steps", "peak_flops"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimizer step."""
        return self.batch_size * self.gradient_accumulation_steps


@dataclass(frozen=True, kw_only=True)
class PrecisionOptions:
    """Which numbers the model computes with; weights, gradients' sums, moments and the average are always float32."""

    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Number format of the transformer; a CPU computes in fp32 only."""
    amp_level: Literal["O0", "O1", "O2"] = "O2"
    """What is in that format: O2 everything but norms, softmax and loss; O1 the products of linear maps only; O0 nothing."""
    global_bf16: bool = False
    """The same as --precision bf16 --amp_level O2."""
    loss_scaler_type: Literal["dynamic", "static"] = "dynamic"
    """Whether the loss scale follows the overflows of the gradients."""
    init_loss_scale: float | None = None
    """Loss scale to begin with; default: 65536 with fp16, none otherwise."""
    loss_scale_factor: float = 2.0
    """What the scale is divided by after an overflow, and multiplied with after scale_window steps without one."""
    scale_window: int = 2000
    """Steps without an overflow until the scale rises."""

    def __post_init__(self) -> None:
        if self.init_loss_scale is not None and self.init_loss_scale < 1:
            raise ValueError(f"init_loss_scale {self.init_loss_scale} is below 1: use 65536, or leave it out")
        if self.loss_scale_factor <= 1 or self.scale_window < 1:
            raise ValueError("loss_scale_factor must be above 1 and scale_window at least 1: use 2 and 2000")

    @property
    def number_format(self) -> str:
        """The precision that the options come to."""
        if self.global_bf16:
            return "bf16"
        return "fp32" if self.amp_level == "O0" else self.precision

    @property
    def level(self) -> str:
        return "O2" if self.global_bf16 else self.amp_level
