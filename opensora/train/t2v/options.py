"""Options of `opensora train`. Importing them does not import MindSpore."""

import logging
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from opensora.checks import at_least, one_of
from opensora.data.options import DataOptions
from opensora.train.denoiser_options import DenoiserOptions, HeldOutOptions
from opensora.train.options import COMMON_NAMES

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
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    """The network predicts the noise or the velocity. A new one learns the velocity faster; default: the
    model's."""

    def __post_init__(self) -> None:
        at_least(self, 1, "compress_kv_factor")
        one_of(self, "prediction_type")


@dataclass(frozen=True, kw_only=True)
class PromptValidationOptions(HeldOutOptions):
    """Validation."""

    GROUP: ClassVar[str] = "validation"
    validation_prompts: list[str] = field(default_factory=list)
    """Prompts to generate videos of with the moving average: sentences, or files of them."""


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
    ModelOptions, DataOptions, DenoiserOptions, PromptValidationOptions, SequenceParallelOptions
):
    """Options of `opensora train`. Raises ValueError for values out of range or that exclude each other."""

    ALIASES: ClassVar[dict[str, str]] = COMMON_NAMES | {"pretrained_model_name_or_path": "model_path"}
    FIXED: ClassVar[tuple[str, ...]] = ("optim", "train_text_encoder")

    def __post_init__(self) -> None:
        ModelOptions.__post_init__(self)
        DataOptions.__post_init__(self)
        DenoiserOptions.__post_init__(self)
        SequenceParallelOptions.__post_init__(self)
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
        if self.image_latent_folder and not pictures:
            raise ValueError(f"image_latent_folder has no effect: {remedy}")
