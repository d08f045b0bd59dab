"""Options of `opensora train-class`. Importing them does not import MindSpore."""

from dataclasses import dataclass, field
from typing import ClassVar

from opensora.checks import within
from opensora.train.denoiser_options import DenoiserOptions, HeldOutOptions
from opensora.train.options import COMMON_NAMES


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
class ClassValidationOptions(HeldOutOptions):
    """Validation."""

    GROUP: ClassVar[str] = "validation"
    validation_labels: list[str] = field(default_factory=list)
    """Classes, by name or number, to generate videos of with the moving average."""


@dataclass(frozen=True, kw_only=True)
class TrainClassOptions(ClassModelOptions, LabelOptions, DenoiserOptions, ClassValidationOptions):
    """Options of `opensora train-class`. Raises ValueError for values out of range."""

    ALIASES: ClassVar[dict[str, str]] = COMMON_NAMES | {
        "class_column": "caption_column",
        "ae": "ae_path",
        "label_dropout": "class_dropout_prob",
    }
    FIXED: ClassVar[tuple[str, ...]] = ("optim", "train_classcondition")

    def __post_init__(self) -> None:
        LabelOptions.__post_init__(self)
        DenoiserOptions.__post_init__(self)
        if self.use_image_num and self.num_frames > 1 and not self.use_img_from_vid:
            raise ValueError(
                "use_image_num takes pictures of other classes than the video's, but a sample has one: "
                "take them from the videos with --use_img_from_vid"
            )
