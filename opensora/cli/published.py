"""Options of the published MindSpore version that are none here: what became of each, by command.

A text is the answer to an option that would change the result; `Ignored` is accepted. A
command that has an option of its own by that name reads it, whatever stands here. docs/migration.md explains them all.
"""

from typing import NamedTuple


class Ignored(NamedTuple):
    """An option that is accepted and changes nothing.

    why: the line that says so. kind: of its value, bool or str; an option of kind bool may stand alone.
    only: the values that change nothing, in small letters; any where it is empty.
    """

    why: str
    kind: type = str
    only: tuple[str, ...] = ()


Answers = dict[str, str | Ignored]

AUTOENCODER = "causalvaemodel_4x8x8"
FRAMEWORK: Answers = {
    "max_device_memory": Ignored("the framework takes what it needs; a smaller --batch_size needs less"),
    "mode": Ignored("blocks are always compiled"),
    "jit_level": Ignored("every kind of block is compiled by itself"),
    "precision_mode": Ignored(
        "norms, softmax and losses are computed in float32, the rest as --precision says"
    ),
    "enable_flash_attention": Ignored(
        "it is used where the device has it and the number format allows", bool
    ),
    "vae_keep_gn_fp32": Ignored("norms always compute their statistics in float32", bool),
    "cache_dir": Ignored("nothing is downloaded, so there is no cache"),
    "use_parallel": Ignored("msrun says how many processes there are", bool),
    "parallel_mode": Ignored("msrun says how many processes there are", only=("data", "optim")),
    "sp_size": Ignored("this command works on whole videos", only=("1",)),
}
"""What every script there had."""

GENERATE: Answers = FRAMEWORK | {
    "ae": Ignored(
        "the autoencoder is the one that model_path/vae/config.json describes", only=(AUTOENCODER,)
    ),
    "amp_level": Ignored("all models compute in the format that --precision names", only=("o1", "o2")),
    "global_bf16": Ignored("--precision bf16 takes its place", bool, ("false",)),
    "vae_precision": Ignored("all models compute in the format that --precision names"),
    "text_encoder_precision": Ignored("all models compute in the format that --precision names"),
}

RECONSTRUCT: Answers = FRAMEWORK | {
    "ae": Ignored("the autoencoder is the one that config.json in its folder describes", only=(AUTOENCODER,)),
    "amp_level": Ignored("the autoencoder computes in the format that --precision names", only=("o1", "o2")),
    "vae_precision": "use --precision",
}

EVALUATE: Answers = FRAMEWORK

EMBED_TEXT: Answers = FRAMEWORK | {
    "device": Ignored(
        "the text encoder runs on the device that the framework opens, the CPU where there is no other"
    ),
    "captions": "write the captions into a .txt file, one a line, and name it with --prompt_path",
    "precision": Ignored("the text encoder computes in float32; --dtype says how its output is stored"),
    "amp_level": Ignored("the text encoder computes in float32"),
    "seed": Ignored("nothing here is random"),
}

TRAINING: Answers = FRAMEWORK | {
    "optimizer_weight_shard_size": Ignored(
        "where the optimizer is shared out, it is over all processes that msrun starts"
    ),
    "clip_grad": Ignored("gradients are clipped to --max_grad_norm; 0 turns clipping off", bool, ("true",)),
    "use_ema": Ignored(
        "the moving average is always kept, beside the weights themselves; set --ema_decay", bool, ("true",)
    ),
    "dataset_sink_mode": Ignored("batches are made ahead of time, --dataloader_prefetch_size of them", bool),
    "sink_size": Ignored("batches are made ahead of time, --dataloader_prefetch_size of them"),
    "drop_overflow_update": Ignored(
        "steps that are not finite are always left out; see --max_skipped_steps", bool, ("true",)
    ),
    "use_recompute": Ignored("every block recomputes its forward in the backward pass", bool),
    "num_no_recompute": Ignored("every block recomputes its forward in the backward pass"),
    "step_mode": Ignored("all intervals are counted in optimizer steps", bool),
    "profile": Ignored(
        "metrics.jsonl splits the seconds of a step into data, vae, model and optimizer", bool
    ),
    "log_level": Ignored("set GLOG_v in the environment for the framework's own messages"),
    "epochs": "say how long to train with --max_train_steps; `opensora check-data` prints the steps of an epoch",
    "ckpt_save_interval": "say how often to save with --checkpointing_steps, in optimizer steps",
}

TRAIN: Answers = TRAINING | {
    "use_recompute": Ignored(
        "every layer but --num_no_recompute of them recomputes its forward in the backward pass", bool
    ),
    "model": Ignored(
        "the transformer is the one that config.json in model_path/version describes",
        only=("lattet2v-xl/122",),
    ),
    "ae": Ignored("the autoencoder is the one that config.json in its folder describes", only=(AUTOENCODER,)),
    "dataset": Ignored("data are what the lists name", only=("t2v",)),
    "vae_precision": Ignored("the autoencoder computes in float32"),
    "text_encoder_precision": Ignored(
        "the text encoder computes in float32; embed its output once with `opensora embed-text`"
    ),
}

FLOAT32 = "train-vae computes in fp32"
TRAIN_VAE: Answers = TRAINING | {
    "ae": Ignored("the autoencoder is the one that --model_config describes", only=(AUTOENCODER,)),
    "precision": Ignored(FLOAT32),
    "amp_level": Ignored(FLOAT32),
    "global_bf16": Ignored(FLOAT32, bool),
    "loss_scaler_type": Ignored(FLOAT32 + ", which needs no loss scale"),
    "init_loss_scale": Ignored(FLOAT32 + ", which needs no loss scale"),
    "loss_scale_factor": Ignored(FLOAT32 + ", which needs no loss scale"),
    "scale_window": Ignored(FLOAT32 + ", which needs no loss scale"),
    "scale_lr": Ignored("give the learning rate itself with --learning_rate", bool, ("false",)),
    "dataloader_num_workers": Ignored(
        "batches are made ahead by threads, --dataloader_prefetch_size of them"
    ),
    "max_rowsize": Ignored("there are no worker processes whose memory would need a limit"),
    "exp_name": Ignored("the run's folder is --output_dir"),
}

ANSWERS: dict[str, Answers] = {
    "generate": GENERATE,
    "reconstruct": RECONSTRUCT,
    "evaluate": EVALUATE,
    "embed-text": EMBED_TEXT,
    "train": TRAIN,
    "train-vae": TRAIN_VAE,
}
"""By command."""
