"""Options that both training commands share. Importing them does not import MindSpore."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from opensora.checks import above, at_least, at_most, below, one_of
from opensora.options import JobOptions

COMMON_NAMES = {
    "lr": "learning_rate",
    "start_learning_rate": "learning_rate",
    "warmup_steps": "lr_warmup_steps",
    "train_batch_size": "batch_size",
    "max_steps": "max_train_steps",
    "save_steps": "checkpointing_steps",
    "logging_steps": "log_interval",
    "per_device_train_batch_size": "batch_size",
    "micro_batch_size": "batch_size",
    "grad_accum": "gradient_accumulation_steps",
    "accumulate_grad_batches": "gradient_accumulation_steps",
    "save_every": "checkpointing_steps",
    "ckpt_every": "checkpointing_steps",
    "log_every": "log_interval",
    "eval_steps": "validation_steps",
    "checkpoints_total_limit": "ckpt_max_keep",
    "num_workers": "dataloader_num_workers",
    "output": "output_dir",
    "optimizer": "optim",
    "adam_weight_decay": "weight_decay",
    "adam_epsilon": "optim_eps",
    "validation_prompt": "validation_prompts",
}
"""Names of options in the published version and in other trainers."""


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """Training.

    Raises ValueError for values out of range.
    """

    GROUP: ClassVar[str] = "training"
    max_train_steps: int = 1000
    """Optimizer steps of the whole run, including those before a resume."""
    batch_size: int = 4
    """Samples per forward pass on each device; with sp_size, on each group of devices."""
    gradient_accumulation_steps: int = 1
    """Forward and backward passes per optimizer step; their gradients are averaged."""
    seed: int = 3407
    """Seed of the initial weights, the order of samples, noise and timesteps."""
    max_skipped_steps: int = 20
    """A step whose loss or gradient is not finite is skipped; stop after this many in a row."""
    dataloader_prefetch_size: int = 4
    """Batches to prepare ahead, each in its own thread."""
    dry_run: bool = False
    """Check everything, read the first batch, tell what the run takes, and stop; nothing is written."""

    def __post_init__(self) -> None:
        at_least(
            self,
            1,
            "max_train_steps",
            "batch_size",
            "gradient_accumulation_steps",
            "max_skipped_steps",
            "dataloader_prefetch_size",
        )
        at_least(self, 0, "seed")
        at_most(self, 10**9, "max_train_steps")
        at_most(self, 2**16, "batch_size", "gradient_accumulation_steps")
        at_most(self, 2**10, "dataloader_prefetch_size")

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimizer step on each device."""
        return self.batch_size * self.gradient_accumulation_steps


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """Optimizer.

    Raises ValueError for values out of range.
    """

    GROUP: ClassVar[str] = "optimizer"
    learning_rate: float = 2e-5
    """Peak learning rate."""
    end_learning_rate: float = 0.0
    """Final learning rate of the cosine and linear schedules."""
    lr_scheduler: Literal["constant", "cosine", "linear"] = "constant"
    """Learning rate schedule after the warm-up."""
    lr_warmup_steps: int | None = None
    """Steps of linear warm-up from zero; default: a tenth of max_train_steps, at most 1000."""
    lr_decay_steps: int | None = None
    """Steps of the decay after the warm-up; default: until max_train_steps."""
    optim: Literal["adamw", "adamw_re", "adam", "muon"] = "adamw"
    """adam and adamw_re mean adamw; muon: Muon for matrices of the inner layers, AdamW for the rest."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of Adam's first and second moments."""
    optim_eps: float = 1e-8
    """Adam's epsilon."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    group_strategy: Literal["norm_and_bias", "all"] = "norm_and_bias"
    """norm_and_bias: no weight decay for vectors (norms, biases, mix factors); all: for all weights."""
    max_grad_norm: float = 1.0
    """Clip gradients to this global norm; 0 disables clipping."""
    ema_decay: float = 0.9999
    """Decay of the exponential moving average of the weights."""

    def __post_init__(self) -> None:
        one_of(self, "lr_scheduler", "optim", "group_strategy")
        at_least(self, 0, "learning_rate", "end_learning_rate", "lr_warmup_steps")
        at_least(self, 0, "optim_eps", "weight_decay", "max_grad_norm", "ema_decay")
        at_least(self, 1, "lr_decay_steps")
        below(self, 1, "ema_decay")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas[0]:g} {self.betas[1]:g} are out of range: use 0 to below 1")

    def warmup_steps(self, max_steps: int) -> int:
        """Steps of warm-up in a run of `max_steps` steps."""
        return min(1000, max_steps // 10) if self.lr_warmup_steps is None else self.lr_warmup_steps


@dataclass(frozen=True, kw_only=True)
class PrecisionOptions:
    """Precision.

    Master weights, accumulated gradients, moments and the moving average are always float32.
    Raises ValueError for values out of range.
    """

    GROUP: ClassVar[str] = "precision"
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Number format of the transformer. On a CPU bf16 needs OpenVINO and a processor that computes in it."""
    amp_level: Literal["O0", "O1", "O2"] = "O2"
    """The parts in that format: O2 all but norms, softmax and loss; O1 linear layers only; O0 none. On a CPU
    O1 and O2 are products of matrices."""
    global_bf16: bool = False
    """Same as --precision bf16 --amp_level O2."""
    loss_scaler_type: Literal["dynamic", "static"] = "dynamic"
    """dynamic: adapt the loss scale to overflows of the gradients; static: keep it."""
    init_loss_scale: float | None = None
    """Initial loss scale; default: 65536 with fp16, else 1."""
    loss_scale_factor: float = 2.0
    """Divide the loss scale by this after an overflow, multiply after scale_window steps without one."""
    scale_window: int = 2000
    """Steps without an overflow before the loss scale rises."""

    def __post_init__(self) -> None:
        one_of(self, "precision", "amp_level", "loss_scaler_type")
        at_least(self, 1, "init_loss_scale", "scale_window")
        above(self, 1, "loss_scale_factor")

    @property
    def number_format(self) -> str:
        """The number format that the options amount to: fp32, fp16 or bf16."""
        if self.global_bf16:
            return "bf16"
        return "fp32" if self.amp_level == "O0" else self.precision

    @property
    def level(self) -> str:
        """The amp level that the options amount to: O0, O1 or O2."""
        return "O2" if self.global_bf16 else self.amp_level


@dataclass(frozen=True, kw_only=True)
class ValidationOptions:
    """Validation.

    Raises ValueError for values out of range.
    """

    GROUP: ClassVar[str] = "validation"
    validation_steps: int = 0
    """Validate every n steps, and at the end; 0 only at the end."""

    def __post_init__(self) -> None:
        at_least(self, 0, "validation_steps")


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Output.

    Raises ValueError for values out of range.
    """

    GROUP: ClassVar[str] = "output"
    output_dir: str = "runs/run"
    """Run folder; if it has checkpoints, training continues from the newest complete one."""
    resume_from_checkpoint: str | None = None
    """Checkpoint of another run that a new run continues: weights, optimizer, moving average and step."""
    checkpointing_steps: int = 500
    """Save a checkpoint every n steps; also saved at the end and on SIGTERM or SIGINT."""
    ckpt_max_keep: int = 3
    """Newest checkpoints to keep; 0 keeps all."""
    ckpt_keep_every: int = 0
    """Also keep the checkpoint of every n-th step; 0 disables."""
    log_interval: int = 10
    """Log metrics every n steps."""
    peak_flops: float = 0.0
    """Peak FLOP/s of the hardware, for the metric share_of_peak; 0 disables it."""

    def __post_init__(self) -> None:
        at_least(self, 1, "checkpointing_steps", "log_interval")
        at_least(self, 0, "ckpt_max_keep", "ckpt_keep_every", "peak_flops")


@dataclass(frozen=True, kw_only=True)
class ParallelOptions(JobOptions):
    """Parallel training (processes started by `msrun`)."""

    GROUP: ClassVar[str] = "parallel"
    use_parallel: bool = False
    """Fail if this is a single process; under `msrun` training is parallel with or without it."""
    parallel_mode: Literal["data", "optim"] = "data"
    """data: every process updates all weights; optim: processes share out the optimizer states (ZeRO-1)."""

    def __post_init__(self) -> None:
        one_of(self, "parallel_mode")


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Device."""

    GROUP: ClassVar[str] = "device"
    device: Literal["CPU", "Ascend"] = "CPU"
    """Device to compute on."""
    engine: Literal["auto", "mindspore", "openvino"] = "auto"
    """Engine that computes; auto: OpenVINO on a CPU if it is installed, else MindSpore."""
    mode: Literal[0, 1] = 0
    """0: compile every block; 1: run MindSpore operator by operator, slower but easier to debug."""

    def __post_init__(self) -> None:
        one_of(self, "device", "engine", "mode")

    @property
    def engine_of_mode(self) -> str:
        """The name of the engine: only MindSpore runs operator by operator."""
        return self.engine if self.mode == 0 else "mindspore"


@dataclass(frozen=True, kw_only=True)
class LoopOptions(ScheduleOptions, ValidationOptions, OutputOptions, ParallelOptions, DeviceOptions):
    """Options of the training loop, for every kind of model."""

    FIXED: ClassVar[tuple[str, ...]] = ()
    """Options besides those of the network that a run cannot change when it continues."""
    DATA: ClassVar[tuple[str, ...]] = ()
    """Options that name the training data, which a run cannot exchange when it continues."""
    INITIAL: ClassVar[str] = ""
    """The option that names initial weights."""

    def __post_init__(self) -> None:
        ScheduleOptions.__post_init__(self)
        ValidationOptions.__post_init__(self)
        OutputOptions.__post_init__(self)
        ParallelOptions.__post_init__(self)
        DeviceOptions.__post_init__(self)


def check_warmup(optimizer: OptimizerOptions, schedule: ScheduleOptions) -> None:
    """Raise ValueError for a warm-up that the run would not end, so that the learning rate stays below its
    peak.
    """
    warmup, steps = optimizer.lr_warmup_steps, schedule.max_train_steps
    if warmup is not None and warmup > steps:
        raise ValueError(
            f"lr_warmup_steps {warmup} is longer than the run of max_train_steps {steps}: "
            f"use {steps // 10}, or leave it out"
        )
