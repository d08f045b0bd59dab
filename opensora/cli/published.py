"""Flags of the published version that are not options here, by command.

A string is the error for a flag that would change the result; `Ignored` is accepted. docs/migration.md lists
them all.
"""

from typing import NamedTuple


class Ignored(NamedTuple):
    """A flag that is accepted and has no effect.

    why: the log line that says so. kind: type of its value; a bool may stand alone. only: the values without
    effect, in lower case, any other being an error; empty for all.
    """

    why: str
    kind: type = str
    only: tuple[str, ...] = ()


class Elsewhere(str):
    """The error for an option that other trainers have and neither the published version nor this one has."""


Answers = dict[str, str | Ignored]

AUTOENCODER = ("causalvaemodel_4x8x8",)
ONE_PRECISION = "all models compute in --precision"
SINGLE_PRECISION = "train-vae computes in fp32"
SHARD = "with --parallel_mode optim, optimizer states are sharded over all processes"
PREFETCH = "batches are prefetched, --dataloader_prefetch_size of them"
RECOMPUTED = "every block recomputes its forward in the backward pass"

NEVER_USED = Ignored("v1.0.0 reads it and never uses it")

COMMON: Answers = {
    "max_device_memory": Ignored("MindSpore allocates as needed; a smaller --batch_size needs less"),
    "jit_level": Ignored("every kind of block is compiled once"),
    "precision_mode": Ignored("norms, softmax and losses are computed in fp32, the rest in --precision"),
    "enable_flash_attention": Ignored("used where the device and the precision support it", bool),
    "vae_keep_gn_fp32": Ignored("norms always compute their statistics in fp32", bool),
    "cache_dir": Ignored("nothing is downloaded, so there is no cache"),
}
"""Flags of every command."""
COMPILED: Answers = {"mode": Ignored("blocks are always compiled")}
UNSPLIT: Answers = {
    "use_parallel": Ignored("msrun sets the number of processes", bool),
    "parallel_mode": Ignored("msrun sets the number of processes", only=("data", "optim")),
    "sp_size": Ignored("this command does not split videos across devices", only=("1",)),
}
"""Flags of commands whose processes only share the files."""

GENERATE: Answers = {
    **COMMON,
    **COMPILED,
    "parallel_mode": UNSPLIT["parallel_mode"],
    "ae": Ignored("the autoencoder is described by model_path/vae/config.json", only=AUTOENCODER),
    "run_time": NEVER_USED,
    "amp_level": Ignored(ONE_PRECISION, only=("o1", "o2")),
    "global_bf16": Ignored("use --precision bf16", bool, ("false",)),
    "vae_precision": Ignored(ONE_PRECISION),
    "text_encoder_precision": Ignored(ONE_PRECISION),
}

RECONSTRUCT: Answers = {
    **COMMON,
    **COMPILED,
    **UNSPLIT,
    "ae": Ignored("the autoencoder is described by the config.json in its folder", only=AUTOENCODER),
    "amp_level": Ignored("the autoencoder computes in --precision", only=("o1", "o2")),
    "vae_precision": "use --precision",
}

EVALUATE: Answers = COMMON | COMPILED | UNSPLIT

EMBED_TEXT: Answers = {
    **COMMON,
    **COMPILED,
    **UNSPLIT,
    "device": Ignored("the text encoder runs on MindSpore's default device, a CPU if there is no other"),
    "captions": "write the captions into a .txt file, one per line, and pass it as --prompt_path",
    "precision": Ignored("the text encoder computes in fp32; --dtype sets how embeddings are stored"),
    "amp_level": Ignored("the text encoder computes in fp32"),
    "seed": Ignored("nothing here is random"),
}

LOGGED = (
    "all metrics are in metrics.jsonl and as TensorBoard events in the run folder; "
    "wandb takes the events with `wandb sync RUN/tensorboard`"
)
EPOCHS = "set --max_train_steps; the first lines of a run, or --dry_run, name the steps of an epoch"
NO_ADAPTERS = (
    "all weights are trained, without adapters; --pretrained and a low --learning_rate fine-tune a model"
)
NUMBER_FORMAT = "use --precision bf16 or fp16, on an accelerator"
OWN_DATA = "make lists of your files with `opensora prepare-data FOLDER`, and name one with --video_data"
OTHER_TRAINERS: Answers = {
    **dict.fromkeys(("report_to", "tracker_project_name", "logging_dir"), Ignored(LOGGED)),
    **dict.fromkeys(("with_tracking", "use_wandb"), Ignored(LOGGED, bool)),
    "gradient_checkpointing": Ignored("every block recomputes its forward in the backward pass", bool),
    "allow_tf32": Ignored("the device chooses how it multiplies", bool),
    "enable_xformers_memory_efficient_attention": COMMON["enable_flash_attention"],
    "push_to_hub": Ignored("nothing is uploaded", bool),
    **dict.fromkeys(("num_train_epochs", "num_epochs", "max_epochs", "epoch"), Elsewhere(EPOCHS)),
    **dict.fromkeys(
        ("lora_rank", "lora_alpha", "lora", "use_lora", "rank", "network_dim"), Elsewhere(NO_ADAPTERS)
    ),
    **dict.fromkeys(("mixed_precision", "bf16", "fp16"), Elsewhere(NUMBER_FORMAT)),
    "resume": Elsewhere("a run continues by itself if its --output_dir has a checkpoint"),
    "warmup_ratio": Elsewhere("set --lr_warmup_steps; the default is a tenth of the run"),
    "use_8bit_adam": Elsewhere("--optim muon keeps one moment instead of two"),
    **dict.fromkeys(
        ("train_data_dir", "instance_data_root", "dataset_name", "data_root", "instance_prompt"),
        Elsewhere(OWN_DATA),
    ),
}
"""Options of other trainers that people type."""

TRAINING: Answers = {
    **COMMON,
    **OTHER_TRAINERS,
    "optimizer_weight_shard_size": Ignored(SHARD),
    "clip_grad": Ignored("gradients are clipped to --max_grad_norm; 0 disables clipping", bool, ("true",)),
    "use_ema": Ignored("the moving average is always kept; set --ema_decay", bool, ("true",)),
    "dataset_sink_mode": Ignored(PREFETCH, bool),
    "sink_size": Ignored(PREFETCH),
    "drop_overflow_update": Ignored(
        "steps that are not finite are always skipped; see --max_skipped_steps", bool, ("true",)
    ),
    "step_mode": Ignored("all intervals are in optimizer steps", bool),
    "profile": Ignored("metrics.jsonl splits the time of a step into data, vae, model and optimizer", bool),
    "log_level": Ignored("set GLOG_v in the environment for MindSpore's own log"),
    "epochs": EPOCHS,
    "ckpt_save_interval": "set --checkpointing_steps, in optimizer steps",
}

CHOSEN_ATTENTION = Ignored("attention has the form that is fast on the device")
BETAS = "use --betas, as in --betas 0.9 0.999"
V10_TRAINING: Answers = {
    "num_train_epochs": EPOCHS,
    "adam_beta1": BETAS,
    "adam_beta2": BETAS,
    "use_8bit_adam": "--optim muon keeps one moment instead of two",
    "mixed_precision": NUMBER_FORMAT,
    "attention_mode": CHOSEN_ATTENTION,
    "dynamic_frames": Ignored("all clips have --num_frames frames", bool),
    "enable_tracker": Ignored(LOGGED, bool),
    "use_deepspeed": Ignored("under msrun, --parallel_mode optim shards the optimizer states", bool),
    "local_rank": Ignored("msrun numbers the processes"),
    **dict.fromkeys(("hub_token", "hub_model_id"), Ignored("nothing is uploaded")),
    **dict.fromkeys(
        (
            "noise_offset",
            "timestep_bias_strategy",
            "timestep_bias_multiplier",
            "timestep_bias_begin",
            "timestep_bias_end",
            "timestep_bias_portion",
        ),
        NEVER_USED,
    ),
}
"""Flags that both training scripts of v1.0.0 have."""

TRAIN: Answers = {
    **TRAINING,
    **V10_TRAINING,
    "data_path": OWN_DATA,
    "video_folder": OWN_DATA,
    "compress_kv": Ignored("v1.0.0 reads it and never uses it; --compress_kv_factor has an effect", bool),
    "num_classes": Ignored("the captions of the data are the condition"),
    "num_validation_videos": Ignored("a validation makes a video of each of --validation_prompts"),
    "use_recompute": Ignored("every layer except --num_no_recompute of them recomputes its forward", bool),
    "model": Ignored(
        "the transformer is described by config.json in model_path/version", only=("lattet2v-xl/122",)
    ),
    "ae": Ignored(
        "the autoencoder is described by the config.json in the folder that --ae_path names", only=AUTOENCODER
    ),
    "dataset": Ignored("the data lists define the data", only=("t2v",)),
    "vae_precision": Ignored("the autoencoder computes in fp32"),
    "text_encoder_precision": Ignored(
        "the text encoder computes in fp32; `opensora embed-text` precomputes its embeddings"
    ),
}

TRAIN_VAE: Answers = {
    **TRAINING,
    "sp_size": UNSPLIT["sp_size"],
    "use_recompute": Ignored(RECOMPUTED, bool),
    "num_no_recompute": Ignored(RECOMPUTED),
    "ae": Ignored("the autoencoder is described by --model_config", only=AUTOENCODER),
    "precision": Ignored(SINGLE_PRECISION),
    "amp_level": Ignored(SINGLE_PRECISION),
    "global_bf16": Ignored(SINGLE_PRECISION, bool),
    "loss_scaler_type": Ignored(f"{SINGLE_PRECISION}, without a loss scale"),
    "init_loss_scale": Ignored(f"{SINGLE_PRECISION}, without a loss scale"),
    "loss_scale_factor": Ignored(f"{SINGLE_PRECISION}, without a loss scale"),
    "scale_window": Ignored(f"{SINGLE_PRECISION}, without a loss scale"),
    "scale_lr": Ignored("set --learning_rate itself", bool, ("false",)),
    "dataloader_num_workers": Ignored(
        "batches are prefetched by threads, --dataloader_prefetch_size of them"
    ),
    "max_rowsize": Ignored("there are no worker processes whose memory needs a limit"),
    "exp_name": Ignored("the run folder is --output_dir"),
}

CLASS_DATA = (
    "make a data list with `opensora prepare-data FOLDER`, --class_folders for ucf101 or --numbered_pictures "
    "for sky, and name it with --video_data"
)

TRAIN_CLASS: Answers = {
    **{name: answer for name, answer in TRAINING.items() if name not in ("epochs", "ckpt_save_interval")},
    **V10_TRAINING,
    "sp_size": UNSPLIT["sp_size"],
    "prediction_type": Ignored("the network predicts the noise", only=("epsilon",)),
    "dataset": CLASS_DATA,
    "data_path": CLASS_DATA,
    "num_classes": Ignored("the classes of the data, or of --classes, are counted"),
    "compress_kv": Ignored("this network has no compressed keys", bool),
    "num_validation_videos": Ignored("a validation makes a video of each of --validation_labels"),
    "extras": "use --train_classcondition true in place of 2, and false in place of 1",
}
GENERATE_CLASS: Answers = {
    **COMMON,
    **COMPILED,
    **dict.fromkeys(
        ("model", "extras"), Ignored("the network is described by the config.json of --model_path")
    ),
    "num_classes": Ignored("the classes of the model are in its config.json or weights"),
    "train_classcondition": Ignored("a model with classes makes videos of them", bool),
    "attention_mode": CHOSEN_ATTENTION,
    "mixed_precision": "use --precision bf16",
}

RESULT = "name the result itself with --rec_path"
INTERPOLATE: Answers = {
    "niters": "use --factor 2, 4 or 8 for one, two or three of its passes",
    "output_path": RESULT,
    "frame_rate": Ignored("the result has the rate of the input times --factor"),
}
UPSCALE: Answers = {
    "SR": "use --factor 2 or --factor 4",
    "output_dir": RESULT,
    "root_path": Ignored("frames go from file to file without a folder between"),
    "mul_numwork": Ignored("frames are computed one after the other"),
    "use_chop": Ignored("large frames are always computed in tiles"),
}

ANSWERS: dict[str, Answers] = {
    "generate": GENERATE,
    "reconstruct": RECONSTRUCT,
    "evaluate": EVALUATE,
    "embed-text": EMBED_TEXT,
    "generate-class": GENERATE_CLASS,
    "interpolate": INTERPOLATE,
    "upscale": UPSCALE,
    "train": TRAIN,
    "train-class": TRAIN_CLASS,
    "train-vae": TRAIN_VAE,
}
"""Flags by command."""
