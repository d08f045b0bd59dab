"""CLIP (arXiv:2103.00020): pictures and texts become vectors, whose angle tells how well they fit."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from opensora.engine import Engine, open_engine
from opensora.engine.block import Block, Run, Weights
from opensora.engine.tensor import Tensor
from opensora.models.clip.config import CLIPConfig, TextConfig, VisionConfig, open_clip
from opensora.models.clip.tokenizer import CLIPTokenizer
from opensora.nn import F

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
UNSEEN = -1e9  # the bias of later tokens


class CLIP:
    """Both towers, and the tokenizer. Weights have the names of the Hub's files."""

    def __init__(
        self, config: CLIPConfig, weights: Mapping[str, Tensor], tokenizer: CLIPTokenizer, engine: Engine
    ) -> None:
        self.config, self.weights, self.tokenizer, self.engine = config, weights, tokenizer, engine

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, engine: str | Engine = "mindspore") -> "CLIP":
        """Load config.json, the weights, vocab.json and merges.txt of a folder. Raises ValueError."""
        config, arrays = open_clip(folder)
        tokenizer = CLIPTokenizer.from_folder(folder, config.text.max_position_embeddings)
        if max(tokenizer.ids.values()) >= config.text.vocab_size:
            raise ValueError(f"{folder}: vocab.json and config.json are of two models: download it again")
        opened = open_engine(engine)
        return cls(config, opened.weights(arrays), tokenizer, opened)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, float32 (N, D)."""
        rows = [self.tokenizer(text) for text in texts]
        length = self.config.text.max_position_embeddings
        tokens = np.array([row + row[-1:] * (length - len(row)) for row in rows], np.int32)
        found = self.engine.output(self.engine.run(encode_text, self.weights, self.config.text, tokens))
        ends = found[np.arange(len(rows)), [len(row) - 1 for row in rows]]  # (N, D), at the text's end
        return _unit(ends)

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) -> vectors of length 1, float32 (N, D)."""
        return self.encode_pixels(prepare(frames, self.config.vision.image_size))

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """float32 (N, 3, side, side) from `prepare` -> vectors of length 1, float32 (N, D)."""
        size = self.config.vision.patch_size
        count, channels, height, width = pixels.shape
        patches = pixels.reshape(count, channels, height // size, size, width // size, size)
        patches = patches.transpose(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * size**2)
        values = self.engine.input(np.ascontiguousarray(patches))  # (N, patches, 3 * size**2)
        return _unit(
            self.engine.output(self.engine.run(encode_image, self.weights, self.config.vision, values))
        )


def prepare(frames: np.ndarray, side: int) -> np.ndarray:
    """uint8 (N, H, W, 3) -> float32 (N, 3, side, side): resized (bicubic), cut to the centre, normalised."""
    found = []
    for frame in frames:
        height, width = frame.shape[:2]
        short = min(height, width)
        size = int(side * width / short), int(side * height / short)
        image = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        found.append(np.asarray(image.crop((left, top, left + side, top + side)), np.float32))
    pixels = (np.stack(found) / 255 - np.array(MEAN)) / np.array(DEVIATION)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / lengths, np.float32)


def encode_text(run: Run, config: TextConfig, tokens: Tensor) -> Tensor:
    """int32 (N, L) -> what each token knows of those before it, projected: (N, L, D)."""
    length = tokens.shape[1]
    later = np.triu(np.full((1, 1, length, length), UNSEEN, np.float32), 1)
    x = run(embed_text, "text_model.embeddings", tokens)
    x = _encode(run, "text_model", config, x, run.tensor(later))
    names = ("text_model.final_layer_norm.", "text_projection.")
    found: Tensor = run(project, names, x, *names, config.layer_norm_eps)
    return found


def encode_image(run: Run, config: VisionConfig, patches: Tensor) -> Tensor:
    """(N, patches, 3 * size**2) -> (N, D)."""
    x = run(embed_image, "vision_model", patches, config.layer_norm_eps)
    x = _encode(run, "vision_model", config, x, None)
    names = ("vision_model.post_layernorm.", "visual_projection.")
    found: Tensor = run(project, names, x, *names, config.layer_norm_eps)
    return found[:, 0]


def _encode(
    run: Run, tower: str, config: TextConfig | VisionConfig, x: Tensor, bias: Tensor | None
) -> Tensor:
    is_quick = config.hidden_act == "quick_gelu"
    for number in range(config.num_hidden_layers):
        name = f"{tower}.encoder.layers.{number}"
        x = run(layer, name, x, bias, config.num_attention_heads, is_quick, config.layer_norm_eps)
    return x


def norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


@Block
def embed_text(w: Weights, tokens: Tensor) -> Tensor:
    rows = F.gather(w["token_embedding.weight"], tokens, 0)
    return rows + w["position_embedding.weight"]


@Block
def embed_image(w: Weights, patches: Tensor, eps: float) -> Tensor:
    """(N, patches, 3 * size**2) -> (N, 1 + patches, D), the class token first."""
    count, length, size = patches.shape
    kernel = w["embeddings.patch_embedding.weight"]
    width = kernel.shape[0]
    rows = F.product(F.reshape(patches, (count * length, size)), F.reshape(kernel, (width, size)))
    first = F.broadcast_to(F.reshape(w["embeddings.class_embedding"], (1, 1, width)), (count, 1, width))
    x = F.concat((first, F.reshape(rows, (count, length, width))), 1)
    return norm(w, "pre_layrnorm", x + w["embeddings.position_embedding.weight"], eps)


@Block
def layer(w: Weights, x: Tensor, bias: Tensor | None, heads: int, is_quick: bool, eps: float) -> Tensor:
    """(N, L, D). bias: (1, 1, L, L), added to the scores."""
    y = norm(w, "layer_norm1", x, eps)
    query, key, value = (
        F.split_heads(F.linear(w, f"self_attn.{name}", y), heads) for name in ("q_proj", "k_proj", "v_proj")
    )
    x = x + F.linear(w, "self_attn.out_proj", F.merge_heads(F.attention(query, key, value, bias)))
    y = F.linear(w, "mlp.fc1", norm(w, "layer_norm2", x, eps))
    y = F.quick_gelu(y) if is_quick else F.gelu_erf(y)
    return x + F.linear(w, "mlp.fc2", y)


@Block
def project(w: Weights, x: Tensor, first: str, second: str, eps: float) -> Tensor:
    """(N, L, D) -> (N, L, D'). first, second: name prefixes of the weights of both layers."""
    return F.linear(w, second[:-1], norm(w, first[:-1], x, eps))
