"""Configuration of class-conditional and unconditional Latte in its three published forms.

- "dit": Vchitect/Latte and Open-Sora-Plan before v1.0.0. Blocks of a DiT, each with its own modulation of a
  condition that all share, the timestep plus the class (arXiv:2401.03048).
- "single": Latte-XL/122 of v1.0.0. LatteT2V without text; it is unconditional.
- "zero": LatteClass-XL/122 of v1.0.0. Each block embeds timestep and class for itself.

Loads without MindSpore.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt
from typing import Annotated, Any, Literal

from opensora.config_files import Range, shown, typed

Variant = Literal["dit", "single", "zero"]

CLASS_NAME = {"dit": "Latte", "single": "Latte", "zero": "LatteClass"}
NORM_TYPES: dict[str, Variant] = {"ada_norm_single": "single", "ada_norm_zero": "zero"}
CLASSES_OF_UCF101 = 101
# Settings of config.json with one value in all models of v1.0.0.
FIXED = {
    "patch_size_t": 1,
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
    "only_cross_attention": False,
    "double_self_attention": False,
    "use_linear_projection": False,
    "attention_type": "default",
    "num_vector_embeds": None,
    "cross_attention_dim": None,
    "caption_channels": None,
}
UNCONDITIONAL, CLASSES = 1, 2
"""Values of the published setting `extras`."""
HEADS_OF_WIDTH = {1152: 16, 1024: 16, 768: 12, 384: 6}
"""Heads of the published sizes XL, L, B and S by width, which their files of weights do not say."""


@dataclass(frozen=True)
class LatteClassConfig:
    """The defaults are those of Latte-XL/2 for UCF101, 16 frames of 256x256."""

    variant: Variant = "dit"
    # Architecture
    num_layers: Annotated[int, Range(1, 1000)] = 28
    """Pairs of a spatial and a temporal block."""
    num_attention_heads: Annotated[int, Range(1, 1024)] = 16
    attention_head_dim: Annotated[int, Range(2, 4096)] = 72
    norm_eps: Annotated[float, Range(0, 1)] = 1e-6
    # Classes
    num_classes: Annotated[int, Range(0, 2**20)] = CLASSES_OF_UCF101
    """0: unconditional."""
    class_dropout_prob: Annotated[float, Range(0, 1)] = 0.1
    """Fraction of labels that training replaces with the null label."""
    class_names: tuple[str, ...] = ()
    """Names of the classes by label, where they are known; the published files have none."""
    # Latents
    in_channels: Annotated[int, Range(1, 1024)] = 4
    out_channels: Annotated[int, Range(1, 2048)] = 8
    patch_size: Annotated[int, Range(1, 64)] = 2
    # Positions
    sample_size: Annotated[tuple[int, int], Range(1, 4096)] = (32, 32)
    video_length: Annotated[int, Range(1, 2**16)] = 16

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: object = "config.json") -> "LatteClassConfig":
        """From a config.json's content in the form of any variant. where: the file, for errors.

        Raises ValueError for values out of range, and for another network.
        """
        if "depth" in values:
            return typed(_DiTSettings, values, where).config(where)
        norm = values.get("norm_type")
        if norm not in NORM_TYPES:
            raise ValueError(
                f"{where} says norm_type = {shown(norm)} and has no depth, so it is not that of a "
                f"class-conditional Latte: use a model of one of the norm types {', '.join(NORM_TYPES)}"
            )
        for name, supported in FIXED.items():
            if values.get(name, supported) != supported:
                raise ValueError(
                    f"{where} says {name} = {shown(values[name])}, but a class-conditional Latte has "
                    f"{supported!r}: use such a model, or `opensora generate` for one with text"
                )
        variant = NORM_TYPES[norm]
        classes = 0 if variant == "single" else values.get("num_embeds_ada_norm", CLASSES_OF_UCF101)
        return typed(cls, {**values, "variant": variant, "num_classes": classes}, where)._checked(where)

    def changed(self, **settings: Any) -> "LatteClassConfig":
        """A copy with other settings. Raises ValueError for settings that do not go together."""
        return replace(self, **settings)._checked("the configuration")

    def _checked(self, where: object) -> "LatteClassConfig":
        if self.width % 4:
            raise ValueError(
                f"{where}: heads x head dim is {self.width}, but positions need a multiple of 4: change one"
            )
        if self.variant == "single" and self.num_classes:
            raise ValueError(f"{where}: Latte-XL/122 of v1.0.0 has no classes: choose another variant")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"{where} names {len(self.class_names)} classes, but the model has {self.num_classes}: "
                "name all of them, or none"
            )
        if self.variant == "zero" and not self.num_classes:
            raise ValueError(f"{where}: LatteClass-XL/122 has classes: give their number, num_classes")
        return self

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json with the published names of this variant."""
        shared: dict[str, Any] = {"_class_name": CLASS_NAME[self.variant], "patch_size": self.patch_size}
        if self.class_names:
            shared["class_names"] = self.class_names
        if self.variant == "dit":
            return {
                **shared,
                "depth": 2 * self.num_layers,
                "hidden_size": self.width,
                "num_heads": self.num_attention_heads,
                "mlp_ratio": 4.0,
                "extras": CLASSES if self.num_classes else UNCONDITIONAL,
                "num_classes": self.num_classes or CLASSES_OF_UCF101,
                "class_dropout_prob": self.class_dropout_prob,
                "in_channels": self.in_channels,
                "learn_sigma": self.out_channels != self.in_channels,
                "patch_size_t": 1,
                "input_size": self.sample_size,
                "num_frames": self.video_length,
            }
        return {
            **shared,
            **FIXED,
            "norm_type": f"ada_norm_{self.variant}",
            "norm_eps": self.norm_eps,
            "num_layers": self.num_layers,
            "num_attention_heads": self.num_attention_heads,
            "attention_head_dim": self.attention_head_dim,
            "num_embeds_ada_norm": self.num_classes or CLASSES_OF_UCF101,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "sample_size": self.sample_size,
            "video_length": self.video_length,
        }

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def null_label(self) -> int:
        """The label of no class, whose output guidance moves away from."""
        return self.num_classes

    @property
    def time_scale(self) -> float:
        """Latent frames per position."""
        return 1 if self.variant == "dit" else max(self.video_length // 5, 1)

    @property
    def space_scale(self) -> int:
        """Patches per position."""
        return 1 if self.variant == "dit" else max(self.sample_size[0] // 64, 1)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in training."""
        return self.sample_size[0] // self.patch_size, self.sample_size[1] // self.patch_size


def is_latte_class(values: Mapping[str, Any]) -> bool:
    """True if a config.json's content is that of one of the three variants, and not of a LatteT2V."""
    if "depth" in values:
        return True
    return values.get("norm_type") in NORM_TYPES and values.get("caption_channels") is None


@dataclass(frozen=True)
class _DiTSettings:
    """The settings of the variant "dit" under their published names."""

    depth: Annotated[int, Range(2, 2000)] = 56
    hidden_size: Annotated[int, Range(4, 2**17)] = 1152
    num_heads: Annotated[int, Range(1, 1024)] = 16
    input_size: Annotated[tuple[int, int], Range(1, 4096)] | Annotated[int, Range(1, 4096)] = 32
    num_frames: Annotated[int, Range(1, 2**16)] = 16
    num_classes: Annotated[int, Range(1, 2**20)] = CLASSES_OF_UCF101
    class_names: tuple[str, ...] = ()
    class_dropout_prob: Annotated[float, Range(0, 1)] = 0.1
    in_channels: Annotated[int, Range(1, 1024)] = 4
    patch_size: Annotated[int, Range(1, 64)] = 2
    patch_size_t: Annotated[int, Range(1, 64)] = 1
    mlp_ratio: Annotated[float, Range(0.1, 100)] = 4.0
    learn_sigma: bool = True
    extras: Annotated[int, Range(1, 100)] = UNCONDITIONAL

    def config(self, where: object) -> LatteClassConfig:
        """These settings as a LatteClassConfig. Raises ValueError for what it does not have."""
        if self.extras not in (UNCONDITIONAL, CLASSES):
            raise ValueError(
                f"{where} says extras = {self.extras}: use a model with 1 (unconditional) or 2 (classes)"
            )
        for name, supported in {"patch_size_t": 1, "mlp_ratio": 4.0, "learn_sigma": True}.items():
            if getattr(self, name) != supported:
                raise ValueError(f"{where} says {name} = {getattr(self, name)}: it must be {supported}")
        if self.depth % 2 or self.hidden_size % self.num_heads:
            raise ValueError(
                f"{where}: depth {self.depth} must be even, and hidden_size {self.hidden_size} a multiple "
                f"of num_heads {self.num_heads}: correct them"
            )
        size = self.input_size
        return LatteClassConfig(
            "dit",
            num_layers=self.depth // 2,
            num_attention_heads=self.num_heads,
            attention_head_dim=self.hidden_size // self.num_heads,
            num_classes=self.num_classes if self.extras == CLASSES else 0,
            class_dropout_prob=self.class_dropout_prob,
            class_names=self.class_names,
            in_channels=self.in_channels,
            out_channels=2 * self.in_channels,
            patch_size=self.patch_size,
            sample_size=(size, size) if isinstance(size, int) else size,
            video_length=self.num_frames,
        )._checked(where)


def config_of_weights(shapes: Mapping[str, tuple[int, ...]], where: object) -> LatteClassConfig:
    """The configuration of a file that holds a network of the variant "dit" without a config.json.

    Raises ValueError for another network, and for a width that no published size has.
    """
    try:
        _, patches, width = shapes["pos_embed"]
        _, frames, _ = shapes["temp_embed"]
        _, channels, patch, _ = shapes["x_embedder.proj.weight"]
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{where} does not hold the weights of a Latte of Vchitect: put a config.json beside them, "
            "and name the folder"
        ) from error
    if width not in HEADS_OF_WIDTH:
        raise ValueError(
            f"{where} has the width {width}, which none of the sizes XL, L, B and S has: put a config.json "
            "beside it, and name the folder"
        )
    table = shapes.get("y_embedder.embedding_table.weight")
    side = isqrt(patches) * patch
    settings = {
        "depth": len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
        "hidden_size": width,
        "num_heads": HEADS_OF_WIDTH[width],
        "input_size": side,
        "num_frames": frames,
        "patch_size": patch,
        "in_channels": channels,
        "extras": CLASSES if table else UNCONDITIONAL,
        **({"num_classes": table[0] - 1} if table else {}),
    }
    return LatteClassConfig.from_dict(settings, where)
