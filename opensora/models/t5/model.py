"""T5Encoder: the encoder half of T5 v1.1 (arXiv:1910.10683, gated GELU after arXiv:2002.05202), which turns token ids into text embeddings.

What sets it apart from other transformers: no position embedding but a learned bias per head and bucketed distance, shared by all
layers; no scaling of the attention scores; no biases in the linear maps; RMS norm before each half of a layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from opensora.engine.block import Block, Weights, subset
from opensora.engine.mindspore import Forward, Tape
from opensora.models.initial import normal
from opensora.models.t5.config import (
    EMBEDDING,
    POSITION_BIAS,
    TIED_EMBEDDING,
    T5Config,
    open_t5,
    weight_shapes,
)
from opensora.nn.activations import gelu
from opensora.nn.attention import attention, merge_heads, split_heads
from opensora.nn.linear import linear
from opensora.nn.normalisation import rms_norm
from opensora.nn.on_demand import OnDemand, tensors
from opensora.runtime import mindspore
from opensora.weights import TensorSource, load_config, save_weights

ms = mindspore()
ops = ms.ops


def position_buckets(length: int, buckets: int = 32, max_distance: int = 128) -> np.ndarray:
    """Bucket of every pair (query, key) of positions: int32 (length, length), section 2.1 of arXiv:1910.10683.

    Half of the buckets are for keys after the query. Of each half, one half holds a distance each, the other distances that grow
    logarithmically up to `max_distance`. On the host: a device's logarithm may fall into the wrong bucket at powers of two.
    """
    offset = np.arange(length)[None, :] - np.arange(length)[:, None]  # key minus query
    distance = np.abs(offset)
    half = buckets // 2
    exact = half // 2
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.float32(
        np.log(max_distance / exact)
    )
    far = exact + (growth * (half - exact)).astype(np.int64)
    bucket = np.where(distance < exact, distance, np.minimum(far, half - 1))
    return (bucket + np.where(offset > 0, half, 0)).astype(np.int32)


def _embed(w: Any, input_ids: Any) -> Any:
    return ops.gather(w["weight"], input_ids, 0)  # (B, L, d_model)


def _attention_bias(w: Any, buckets: Any, attention_mask: Any) -> Any:
    """The bias of all layers' scores, (1 or B, heads, L, L): by distance, and the lowest finite number where a key is masked."""
    bias = ops.expand_dims(ops.transpose(ops.gather(w["weight"], buckets, 0), (2, 0, 1)), 0).astype(
        ms.float32
    )
    if attention_mask is not None:
        masked = (1.0 - attention_mask.astype(ms.float32)) * -3.4028234663852886e38
        bias = bias + ops.reshape(masked, (masked.shape[0], 1, 1, masked.shape[1]))
    return bias


def _layer(w: Any, x: Any, bias: Any, heads: int, eps: float) -> Any:
    """x (B, L, d_model), bias (1 or B, heads, L, L) -> (B, L, d_model)."""
    y = rms_norm(x, w["layer.0.layer_norm.weight"], eps)
    query, key, value = (
        split_heads(linear(w, f"layer.0.SelfAttention.{name}", y), heads) for name in ("q", "k", "v")
    )
    y = merge_heads(attention(query, key, value, bias, scale=1.0))  # (B, L, heads*d_kv)
    x = x + linear(w, "layer.0.SelfAttention.o", y)
    y = rms_norm(x, w["layer.1.layer_norm.weight"], eps)
    y = gelu(linear(w, "layer.1.DenseReluDense.wi_0", y)) * linear(
        w, "layer.1.DenseReluDense.wi_1", y
    )  # (B, L, d_ff)
    return x + linear(w, "layer.1.DenseReluDense.wo", y)


def _final_norm(w: Any, x: Any, eps: float) -> Any:
    return rms_norm(x, w["weight"], eps)


class _LayerBlock(Block):
    """Leaves out the position bias, which only the first layer holds, so that one compiled block serves all layers."""

    def __call__(self, weights: Weights, *inputs: Any) -> Any:
        return super().__call__(_without_position_bias(weights), *inputs)

    def gradient(
        self, weights: Weights, inputs: tuple[Any, ...], output_gradient: Any
    ) -> tuple[dict[str, Any], list[Any]]:
        return super().gradient(_without_position_bias(weights), inputs, output_gradient)


def _without_position_bias(weights: Weights) -> dict[str, Any]:
    return {name: value for name, value in weights.items() if not name.startswith(POSITION_BIAS)}


EMBED, ATTENTION_BIAS, FINAL_NORM = Block(_embed), Block(_attention_bias), Block(_final_norm)
LAYER = _LayerBlock(_layer)


class T5Encoder:
    """Text embeddings of token ids. `weights` has the release's names; the tied embedding is kept once, as `shared.weight`.

    A streamed encoder has OnDemand in the place of a dict.
    """

    def __init__(self, config: T5Config, weights: Mapping[str, Any]) -> None:
        self.config = config
        if TIED_EMBEDDING in weights:
            weights = {
                EMBEDDING: weights[TIED_EMBEDDING],
                **{name: weights[name] for name in weights if name != TIED_EMBEDDING},
            }
        self.weights: Any = weights

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "T5Encoder":
        """Load `<folder>/config.json` and `model.safetensors` or its shards; a decoder in the file is ignored. Raises WeightsError."""
        encoder = cls(T5Config.from_dict(load_config(folder)), {})
        encoder.load_weights(folder)
        return encoder

    @classmethod
    def streamed(cls, folder: str | Path) -> "T5Encoder":
        """The same, but the files are only checked: `each` reads a layer at a time and lets it go. Raises WeightsError."""
        config = T5Config.from_dict(load_config(folder))
        return cls(config, OnDemand(open_t5(folder, config)))

    def load_weights(self, source: str | Path) -> None:
        """Take the weights of an encoder's folder or of a safetensors file. Raises WeightsError."""
        self.weights = tensors(open_t5(source, self.config))

    @classmethod
    def initialise(cls, config: T5Config, rng: np.random.Generator) -> "T5Encoder":
        """Fresh weights as T5 v1.1 was: normal, of a deviation that makes up for the unscaled attention scores; unit norms."""
        width, inner = config.d_model, config.num_heads * config.d_kv
        by_suffix = {
            EMBEDDING: 1.0,
            "SelfAttention.q.weight": (width * config.d_kv) ** -0.5,
            "SelfAttention.o.weight": inner**-0.5,
            "DenseReluDense.wo.weight": config.d_ff**-0.5,
        }
        weights = {}
        for name, shape in weight_shapes(config).items():
            deviation = next(
                (value for suffix, value in by_suffix.items() if name.endswith(suffix)), width**-0.5
            )
            value = (
                np.ones(shape, np.float32) if name.endswith("norm.weight") else normal(rng, shape, deviation)
            )
            weights[name] = ms.Tensor.from_numpy(value)
        return cls(config, weights)

    def save_pretrained(self, folder: str | Path, dtype: str = "float32") -> None:
        """Write config.json and model.safetensors, which `from_pretrained` and the PyTorch original load."""
        config = {"architectures": ["T5EncoderModel"], "model_type": "t5", **asdict(self.config)}
        save_weights(
            folder,
            config,
            {name: value.asnumpy() for name, value in self.weights.items()},
            stem="model",
            dtype=dtype,
        )

    def __call__(self, input_ids: Any, attention_mask: Any = None) -> Any:
        """Embeddings (B, L, d_model) of input_ids (B, L); attention_mask (B, L): 1 for tokens, 0 for padding, None for no padding."""
        return self._forward(Forward(self.weights), input_ids, attention_mask)

    def each(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Embeddings float32 (B, L, d_model) of B texts, each computed by itself, as calls with one text would give them.

        The layers are the outer loop: of weights that lie in a file, each is read once for all texts.
        """
        config = self.config
        masks = [ms.Tensor(row[None]) for row in attention_mask]
        buckets = self._buckets(input_ids.shape[1])
        distances = subset(self.weights, f"encoder.block.0.{POSITION_BIAS}")
        texts = self._embedded(input_ids)
        for i in range(config.num_layers):
            layer = subset(self.weights, f"encoder.block.{i}")
            for n, mask in enumerate(masks):
                bias = ATTENTION_BIAS(distances, buckets, mask)
                texts[n] = LAYER(layer, texts[n], bias, config.num_heads, config.layer_norm_epsilon)
        norm = subset(self.weights, "encoder.final_layer_norm")
        return np.concatenate([FINAL_NORM(norm, x, config.layer_norm_epsilon).asnumpy() for x in texts])

    def _embedded(self, input_ids: np.ndarray) -> list[Any]:
        """B tensors (1, L, d_model). Of a table in a file only the rows that occur are read; gathering them changes no bit."""
        if isinstance(self.weights, OnDemand):
            assert isinstance(self.weights.arrays, TensorSource)
            ids, places = np.unique(input_ids, return_inverse=True)
            rows = self.weights.arrays.rows(EMBEDDING, ids)[
                places.reshape(input_ids.shape)
            ]  # (B, L, d_model)
            return [ms.Tensor(row[None]) for row in rows]
        table = subset(self.weights, EMBEDDING.removesuffix(".weight"))
        return [EMBED(table, ms.Tensor(row[None])) for row in input_ids]

    def _buckets(self, length: int) -> Any:
        config = self.config
        return ms.Tensor(
            position_buckets(
                length, config.relative_attention_num_buckets, config.relative_attention_max_distance
            )
        )

    def forward_with_tape(self, input_ids: Any, attention_mask: Any = None) -> tuple[Any, Tape]:
        """The embeddings and the tape, whose `gradients([(embeddings, gradient)])` walks back to the weights."""
        tape = Tape(self.weights)
        return self._forward(tape, input_ids, attention_mask), tape

    def value_and_grad(
        self, loss_of_output: Callable[[Any], Any], input_ids: Any, attention_mask: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """The scalar loss_of_output(embeddings) and its gradient by every weight, under the same names."""
        output, tape = self.forward_with_tape(input_ids, attention_mask)
        loss, by_output = ms.value_and_grad(loss_of_output)(output)
        gradients, _ = tape.gradients([(output, by_output)])
        return loss, gradients

    def _forward(self, run: Forward, input_ids: Any, attention_mask: Any) -> Any:
        config = self.config
        x = run(EMBED, EMBEDDING.removesuffix(".weight"), input_ids)
        bias = run(
            ATTENTION_BIAS,
            f"encoder.block.0.{POSITION_BIAS}",
            self._buckets(input_ids.shape[1]),
            attention_mask,
        )
        for i in range(config.num_layers):
            x = run(LAYER, f"encoder.block.{i}", x, bias, config.num_heads, config.layer_norm_epsilon)
        return run(FINAL_NORM, "encoder.final_layer_norm", x, config.layer_norm_epsilon)
