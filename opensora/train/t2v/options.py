"""Options of `opensora train`. Importing them does not import MindSpore."""

import logging
from dataclasses import dataclass, field
from typing import ClassVar

from opensora.checks import above, at_least, below
from opensora.data.options import DataOptions
from opensora.train.options import COMMON_NAMES, LoopOptions, OptimizerOptions, PrecisionOptions, check_warmup

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Model."""

    GROUP: ClassVar[str] = "model"
    model_path: str
    """Model folder: config.json files, tokenizer, weights of the autoencoder and the text encoder."""
    version: str | None = None
    """Folder of the transformer in model_path; default: the only one, or the one for num_frames frames."""
    text_encoder_name: str | None = None
    """Folder of the text encoder; default: model_path/text_encoder."""
    ae_path: str | None = None
    """Folder of the autoencoder, or a model folder that has one; default: model_path/vae."""
    pretrained: str | None = None
    """Initial weights: run or checkpoint (its moving average), file (t2v.pt) or "demo"; default: random."""
    train_text_encoder: bool = False
    """Train the text encoder too, from random weights or those of the checkpoint in pretrained."""
    use_rope: bool | None = None
    """Add rotary position embeddings; default: the model's."""
    compress_kv_factor: int | None = None
    """Compression of keys and values in the second half of the layers; default: the model's."""

    def __post_init__(self) -> None:
        at_least(self, 1, "compress_kv_factor")


@dataclass(frozen=True, kw_only=True)
class TilingOptions:
    """Data."""

    GROUP: ClassVar[str] = "data"
    enable_tiling: bool = False
    """Encode videos in tiles of 256 pixels and chunks of 65 frames, as the reference does."""
    tile_overlap_factor: float = 0.25
    """Overlap of neighbouring tiles, as a fraction of a tile."""

    def __post_init__(self) -> None:
        at_least(self, 0, "tile_overlap_factor")
        below(self, 1, "tile_overlap_factor")


@dataclass(frozen=True, kw_only=True)
class DiffusionOptions:
    """Training."""

    GROUP: ClassVar[str] = "training"
    snr_gamma: float | None = None
    """Min-SNR loss weights (arXiv:2303.09556); 5 is usual; default: equal weights."""
    num_no_recompute: int = 0
    """Number of last layers that keep their activations for the backward pass: faster, but more memory."""

    def __post_init__(self) -> None:
        above(self, 0, "snr_gamma")
        at_least(self, 0, "num_no_recompute")


@dataclass(frozen=True, kw_only=True)
class ScaledOptimizerOptions(OptimizerOptions):
    """Optimizer."""

    GROUP: ClassVar[str] = "optimizer"
    scale_lr: bool = False
    """Multiply learning_rate by the number of samples per step."""


@dataclass(frozen=True, kw_only=True)
class TransformerOptions(DiffusionOptions, ScaledOptimizerOptions, PrecisionOptions, LoopOptions):
    """Options of training a transformer on latents, whether of texts or of classes."""

    def __post_init__(self) -> None:
        DiffusionOptions.__post_init__(self)
        ScaledOptimizerOptions.__post_init__(self)
        PrecisionOptions.__post_init__(self)
        LoopOptions.__post_init__(self)
        check_warmup(self, self)


@dataclass(frozen=True, kw_only=True)
class PromptValidationOptions:
    """Validation."""

    GROUP: ClassVar[str] = "validation"
    validation_latent_folder: str | None = None
    """Held-out latents and captions for the validation loss, made by `opensora encode-latents`."""
    num_validation_samples: int = 256
    """Samples of a validation."""
    validation_prompts: list[str] = field(default_factory=list)
    """Prompts to generate videos of with the moving average: sentences, or files of them."""

    def __post_init__(self) -> None:
        at_least(self, 1, "num_validation_samples")


@dataclass(frozen=True, kw_only=True)
class SequenceParallelOptions:
    """Parallel training (processes started by `msrun`)."""

    GROUP: ClassVar[str] = "parallel"
    sp_size: int = 1
    """Devices that share the frames of a sample; must divide the number of devices."""

    def __post_init__(self) -> None:
        at_least(self, 1, "sp_size")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(
    ModelOptions,
    DataOptions,
    TilingOptions,
    PromptValidationOptions,
    SequenceParallelOptions,
    TransformerOptions,
):
    """Options of `opensora train`. Raises ValueError for values out of range or that exclude each other."""

    ALIASES: ClassVar[dict[str, str]] = COMMON_NAMES | {"pretrained_model_name_or_path": "model_path"}
    FIXED: ClassVar[tuple[str, ...]] = ("optim", "train_text_encoder")
    DATA: ClassVar[tuple[str, ...]] = ("video_data", "image_data", "vae_latent_folder", "image_latent_folder")
    INITIAL: ClassVar[str] = "pretrained"

    def __post_init__(self) -> None:
        ModelOptions.__post_init__(self)
        DataOptions.__post_init__(self)
        TilingOptions.__post_init__(self)
        PromptValidationOptions.__post_init__(self)
        SequenceParallelOptions.__post_init__(self)
        TransformerOptions.__post_init__(self)
        self._refuse_options_without_effect()
        if self.train_text_encoder and self.text_embed_cache:
            raise ValueError(
                "train_text_encoder needs token ids, but text_embed_cache replaces them: use one of the two"
            )

    def _refuse_options_without_effect(self) -> None:
        pictures = self.num_frames == 1 or (self.use_image_num > 0 and not self.use_img_from_vid)
        remedy = "give the number of pictures after each video with --use_image_num"
        if self.image_data and not pictures:  # the published scripts name it without --use_image_num
            log.warning("image_data is not read: %s", remedy)
        faults = {
            "image_latent_folder": not pictures and remedy,
            "enable_tiling": self.vae_latent_folder is not None
            and "latents from a cache are not encoded, so leave it out",
        }
        for name, fault in faults.items():
            if fault and getattr(self, name):
                raise ValueError(f"{name} has no effect: {fault}")
