"""T5Encoder: turns token ids into text embeddings.

It is the encoder half of T5 v1.1 (arXiv:1910.10683, with the gated GELU of arXiv:2002.05202).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from opensora.engine import Engine, open_engine
from opensora.engine.block import as_array, subset
from opensora.engine.weights import OnDemand
from opensora.models.initial import normal
from opensora.models.t5.blocks import ATTENTION_BIAS, EMBED, FINAL_NORM, LAYER, encode, position_buckets
from opensora.models.t5.config import (
    EMBEDDING,
    POSITION_BIAS,
    TIED_EMBEDDING,
    T5Config,
    open_t5,
    weight_shapes,
)
from opensora.nn import Tensor
from opensora.runtime import mindspore
from opensora.weights import CONFIG, TensorSource, load_config, save_weights

if TYPE_CHECKING:
    from opensora.engine.mindspore import Tape


class T5Encoder:
    """Text embeddings of token ids.

    `weights` has the release's names; the tied embedding is kept once, as `shared.weight`. A streamed encoder
    has an `OnDemand` instead of a dict.
    """

    def __init__(self, config: T5Config, weights: Mapping[str, Tensor], engine: Engine | None = None) -> None:
        """engine: what computes, by default MindSpore; `weights` are as it keeps them."""
        self.config = config
        self.engine = engine or open_engine()
        if TIED_EMBEDDING in weights:
            weights = {
                EMBEDDING: weights[TIED_EMBEDDING],
                **{name: weights[name] for name in weights if name != TIED_EMBEDDING},
            }
        self.weights = weights

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, engine: str | Engine = "mindspore", precision: str = "fp32"
    ) -> "T5Encoder":
        """Load `<folder>/config.json` and the weights beside it; those of a decoder are ignored.

        Raises WeightsError.

        engine: "mindspore" or "openvino". precision: "fp32" or "bf16"; ValueError where the device does not
        have it.
        """
        encoder = cls(
            T5Config.from_dict(load_config(folder), Path(folder) / CONFIG), {}, open_engine(engine, precision)
        )
        encoder.load_weights(folder)
        return encoder

    @classmethod
    def streamed(
        cls, folder: str | Path, *, engine: str | Engine = "mindspore", precision: str = "fp32"
    ) -> "T5Encoder":
        """The same, but only check the files: `each` reads a layer at a time and drops it.

        Raises WeightsError.
        """
        config = T5Config.from_dict(load_config(folder), Path(folder) / CONFIG)
        opened = open_engine(engine, precision)
        return cls(config, opened.on_demand(open_t5(folder, config)), opened)

    def load_weights(self, source: str | Path) -> None:
        """Take the weights of an encoder's folder or of a safetensors file. Raises WeightsError."""
        self.weights = self.engine.weights(open_t5(source, self.config))

    @classmethod
    def initialise(cls, config: T5Config, rng: np.random.Generator) -> "T5Encoder":
        """Fresh weights as for T5 v1.1: normal, with deviations for unscaled scores; norms are 1."""
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
            weights[name] = value
        return cls(config, open_engine().weights(weights))

    def save_pretrained(self, folder: str | Path, dtype: str = "float32") -> None:
        """Write config.json and model.safetensors, which `from_pretrained` and the reference load."""
        config = {"architectures": ["T5EncoderModel"], "model_type": "t5", **asdict(self.config)}
        save_weights(
            folder,
            config,
            {name: as_array(value) for name, value in self.weights.items()},
            stem="model",
            dtype=dtype,
        )

    def __call__(self, input_ids: Tensor, attention_mask: Tensor = None) -> Tensor:
        """Embeddings (B, L, d_model) of input_ids (B, L).

        attention_mask: (B, L), 1 for tokens and 0 for padding; None for no padding.
        """
        buckets = self._buckets(input_ids.shape[1])
        return self.engine.run(encode, self.weights, self.config, input_ids, buckets, attention_mask)

    def each(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Embeddings float32 (B, L, d_model) of B texts, each computed alone, as by a call with that text.

        The outer loop is over layers, so weights in a file are read once for all texts.
        """
        config, call = self.config, self.engine.call
        masks = [row[None] for row in attention_mask]
        buckets = self._buckets(input_ids.shape[1])
        distances = subset(self.weights, f"encoder.block.0.{POSITION_BIAS}")
        texts = self._embedded(input_ids)
        for i in range(config.num_layers):
            layer = subset(self.weights, f"encoder.block.{i}")
            for n, mask in enumerate(masks):
                bias = call(ATTENTION_BIAS, distances, buckets, mask)
                texts[n] = call(LAYER, layer, texts[n], bias, config.num_heads, config.layer_norm_epsilon)
        norm = subset(self.weights, "encoder.final_layer_norm")
        outputs = [call(FINAL_NORM, norm, x, config.layer_norm_epsilon) for x in texts]
        return np.concatenate([output.asnumpy() for output in outputs])

    def _embedded(self, input_ids: np.ndarray) -> list[Tensor]:
        """B tensors (1, L, d_model). Of a table in a file, only the rows that occur are read."""
        if isinstance(self.weights, OnDemand):
            assert isinstance(self.weights.arrays, TensorSource)
            ids, places = np.unique(input_ids, return_inverse=True)
            rows = self.weights.arrays.rows(EMBEDDING, ids)[places.reshape(input_ids.shape)]
            return [row[None] for row in rows]
        table = subset(self.weights, EMBEDDING.removesuffix(".weight"))
        return [self.engine.call(EMBED, table, row[None]) for row in input_ids]

    def _buckets(self, length: int) -> np.ndarray:
        config = self.config
        return position_buckets(
            length, config.relative_attention_num_buckets, config.relative_attention_max_distance
        )

    def forward_with_tape(self, input_ids: Tensor, attention_mask: Tensor = None) -> tuple[Tensor, "Tape"]:
        """The embeddings and the tape, whose `gradients([(embeddings, gradient)])` leads to the weights."""
        tape = self.engine.tape(self.weights)
        buckets = tape.tensor(self._buckets(input_ids.shape[1]))
        return encode(tape, self.config, input_ids, buckets, attention_mask), tape

    def value_and_grad(
        self, loss_of_output: Callable[[Tensor], Tensor], input_ids: Tensor, attention_mask: Tensor = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss_of_output(embeddings) and its gradient by every weight, under the same names."""
        output, tape = self.forward_with_tape(input_ids, attention_mask)
        loss, by_output = mindspore().value_and_grad(loss_of_output)(output)
        gradients, _ = tape.gradients([(output, by_output)])
        return loss, gradients
