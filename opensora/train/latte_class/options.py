"""Options of `opensora train-class`. Importing them does not import MindSpore."""

from dataclasses import dataclass, field
from typing import ClassVar

from opensora.checks import at_least, within
from opensora.data.options import SampleOptions
from opensora.train.options import COMMON_NAMES
from opensora.train.t2v.options import TilingOptions, TransformerOptions


@dataclass(frozen=True, kw_only=True)
class ClassModelOptions:
    """Model."""

    GROUP: ClassVar[str] = "model"
    ae_path: str
    """Folder of the autoencoder, or a model folder that has one, or "demo"."""
    model: str = "Latte-XL/122"
    """Latte-XL/122, -L, -B, -S, -T with patches /122, /144 or /188; LatteClass-XL/122; or a config.json's
    folder."""
    pretrained: str | None = None
    """Initial weights: run or checkpoint (its moving average), or file (ucf101.pt); default: random."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Classes."""

    GROUP: ClassVar[str] = "classes"
    train_classcondition: bool = True
    """Train with the classes of the data; false trains an unconditional model."""
    classes: str | None = None
    """Text file with the names of the classes in the order of their labels; default: those of the data,
    sorted."""
    class_dropout_prob: float = 0.1
    """Fraction of labels that are replaced with the null label, for classifier-free guidance."""

    def __post_init__(self) -> None:
        within(self, 0, 1, "class_dropout_prob")
        if self.classes is not None and not self.train_classcondition:
            raise ValueError("classes has no effect on an unconditional model: leave it out")


@dataclass(frozen=True, kw_only=True)
class ClassValidationOptions:
    """Validation."""

    GROUP: ClassVar[str] = "validation"
    validation_latent_folder: str | None = None
    """Held-out latents and classes for the validation loss, made by `opensora encode-latents`."""
    num_validation_samples: int = 256
    """Samples of a validation."""
    validation_labels: list[str] = field(default_factory=list)
    """Classes, by name or number, to generate videos of with the moving average."""

    def __post_init__(self) -> None:
        at_least(self, 1, "num_validation_samples")


@dataclass(frozen=True, kw_only=True)
class TrainClassOptions(
    ClassModelOptions,
    LabelOptions,
    SampleOptions,
    TilingOptions,
    ClassValidationOptions,
    TransformerOptions,
):
    """Options of `opensora train-class`. Raises ValueError for values out of range."""

    ALIASES: ClassVar[dict[str, str]] = COMMON_NAMES | {
        "class_column": "caption_column",
        "ae": "ae_path",
        "adam_weight_decay": "weight_decay",
        "adam_epsilon": "optim_eps",
        "label_dropout": "class_dropout_prob",
    }
    FIXED: ClassVar[tuple[str, ...]] = ("optim", "train_classcondition")
    DATA: ClassVar[tuple[str, ...]] = ("video_data", "image_data", "vae_latent_folder", "image_latent_folder")
    INITIAL: ClassVar[str] = "pretrained"

    def __post_init__(self) -> None:
        LabelOptions.__post_init__(self)
        SampleOptions.__post_init__(self)
        TilingOptions.__post_init__(self)
        ClassValidationOptions.__post_init__(self)
        TransformerOptions.__post_init__(self)
        if self.use_image_num and self.num_frames > 1 and not self.use_img_from_vid:
            raise ValueError(
                "use_image_num takes pictures of other classes than the video's, but a sample has one: "
                "take them from the videos with --use_img_from_vid"
            )
        if self.enable_tiling and self.vae_latent_folder is not None:
            raise ValueError(
                "enable_tiling has no effect: latents from a cache are not encoded, so leave it out"
            )
