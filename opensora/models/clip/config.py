"""CLIP's configuration and the names and shapes of its weights, as in the folders of the Hub.

Loads without MindSpore.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from opensora.config_files import Range, checked, shown, typed
from opensora.weights import CONFIG, Shapes, TensorSource, load_config, open_weights

UNUSED = ("logit_scale", "text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
ACTIVATIONS = ("quick_gelu", "gelu")
Width = Annotated[int, Range(1, 2**16)]


@dataclass(frozen=True)
class TextConfig:
    """The text tower; the defaults are ViT-B/32's."""

    vocab_size: Annotated[int, Range(1, 2**20)] = 49408
    hidden_size: Width = 512
    intermediate_size: Width = 2048
    num_hidden_layers: Annotated[int, Range(1, 1000)] = 12
    num_attention_heads: Annotated[int, Range(1, 1024)] = 8
    max_position_embeddings: Annotated[int, Range(2, 4096)] = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Annotated[float, Range(0, 1)] = 1e-5


@dataclass(frozen=True)
class VisionConfig:
    """The picture tower; the defaults are ViT-B/32's."""

    hidden_size: Width = 768
    intermediate_size: Width = 3072
    num_hidden_layers: Annotated[int, Range(1, 1000)] = 12
    num_attention_heads: Annotated[int, Range(1, 1024)] = 12
    image_size: Annotated[int, Range(1, 4096)] = 224
    patch_size: Annotated[int, Range(1, 1024)] = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Annotated[float, Range(0, 1)] = 1e-5


@dataclass(frozen=True)
class CLIPConfig:
    """Both towers, and the width of what they are compared by."""

    text: TextConfig
    vision: VisionConfig
    projection_dim: int = 512

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: object = CONFIG) -> "CLIPConfig":
        """From a config.json's content; other keys are passed over. where: the file, for errors.

        Raises ValueError for values out of range and for other activations.
        """
        parts = {
            name: checked(dict[str, Any], values.get(f"{name}_config", {}), where, f"{name}_config")
            for name in ("text", "vision")
        }
        text = typed(TextConfig, parts["text"], f"{where}, text_config")
        vision = typed(VisionConfig, parts["vision"], f"{where}, vision_config")
        for tower in (text, vision):
            if tower.hidden_act not in ACTIVATIONS:
                raise ValueError(
                    f"{where} says hidden_act = {shown(tower.hidden_act)}, which is not supported: "
                    f"use a model with {' or '.join(ACTIVATIONS)}"
                )
            if tower.hidden_size % tower.num_attention_heads:
                raise ValueError(
                    f"{where}: hidden_size {tower.hidden_size} is no multiple of num_attention_heads"
                )
        if vision.image_size % vision.patch_size:
            raise ValueError(f"{where}: image_size {vision.image_size} is no multiple of patch_size")
        return cls(text, vision, checked(int, values.get("projection_dim", 512), where, "projection_dim"))


def weight_shapes(config: CLIPConfig) -> Shapes:
    """Shape of every weight by its name in the Hub's files."""
    text, vision, width = config.text, config.vision, config.projection_dim
    shapes: Shapes = {
        "text_model.embeddings.token_embedding.weight": (text.vocab_size, text.hidden_size),
        "text_model.embeddings.position_embedding.weight": (text.max_position_embeddings, text.hidden_size),
    }
    _layers(shapes, "text_model", text)
    _norm(shapes, "text_model.final_layer_norm", text.hidden_size)
    side = vision.image_size // vision.patch_size
    embeddings = "vision_model.embeddings"
    shapes[f"{embeddings}.class_embedding"] = (vision.hidden_size,)
    shapes[f"{embeddings}.patch_embedding.weight"] = (vision.hidden_size, 3, *(vision.patch_size,) * 2)
    shapes[f"{embeddings}.position_embedding.weight"] = (side**2 + 1, vision.hidden_size)
    _norm(shapes, "vision_model.pre_layrnorm", vision.hidden_size)
    _layers(shapes, "vision_model", vision)
    _norm(shapes, "vision_model.post_layernorm", vision.hidden_size)
    shapes["visual_projection.weight"] = (width, vision.hidden_size)
    shapes["text_projection.weight"] = (width, text.hidden_size)
    return shapes


def _norm(shapes: Shapes, name: str, width: int) -> None:
    shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)


def _linear(shapes: Shapes, name: str, inputs: int, outputs: int) -> None:
    shapes[f"{name}.weight"] = (outputs, inputs)
    shapes[f"{name}.bias"] = (outputs,)


def _layers(shapes: Shapes, tower: str, config: TextConfig | VisionConfig) -> None:
    width, inner = config.hidden_size, config.intermediate_size
    for number in range(config.num_hidden_layers):
        name = f"{tower}.encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            _linear(shapes, f"{name}.self_attn.{part}", width, width)
        _norm(shapes, f"{name}.layer_norm1", width)
        _linear(shapes, f"{name}.mlp.fc1", width, inner)
        _linear(shapes, f"{name}.mlp.fc2", inner, width)
        _norm(shapes, f"{name}.layer_norm2", width)


def open_clip(folder: str | Path) -> tuple[CLIPConfig, TensorSource]:
    """The configuration and weights of a folder. Raises WeightsError, ValueError for a wrong config.json."""
    config = CLIPConfig.from_dict(load_config(folder), Path(folder) / CONFIG)
    return config, open_weights(folder, "model", expected=weight_shapes(config), ignore=UNUSED)
