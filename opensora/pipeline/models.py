"""The three models of a pipeline, each loaded when it is first needed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from opensora.data.text.tokenizer import Tokenizer
from opensora.engine import Engine
from opensora.models import CausalVAE, LatteT2V, T5Encoder
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.spec import ModelSpec
from opensora.models.t5.model import T5Config
from opensora.nn.exchange import WorkSharing
from opensora.weights import WeightsError, load_config, trained_text_encoder

log = logging.getLogger(__name__)
T = TypeVar("T")


class LazyModel(Generic[T]):
    """A model that is loaded when it is first needed and can be let go again."""

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._value: T | None = None

    def get(self) -> T:
        if self._value is None:
            self._value = self._load()
        return self._value

    @property
    def is_loaded(self) -> bool:
        return self._value is not None

    def release(self) -> None:
        self._value = None


@dataclass(frozen=True)
class ModelLoader:
    """How the models of a folder are loaded.

    pretrained_ckpt: weights for the transformer instead of the folder's; if a run trained the text encoder
    with it, for the text encoder too. engine: of the transformer. other_engine: of the other models.
    """

    spec: ModelSpec
    engine: Engine
    other_engine: Engine
    pretrained_ckpt: str | Path | None
    weights_dtype: str
    streamed: bool
    """Read the text encoder layer by layer, each time."""

    def text(self, encoder: T5Encoder | None) -> tuple[Tokenizer, T5Encoder]:
        """The tokenizer and the text encoder. encoder: one that is loaded already."""
        folder = self.spec.paths.text_encoder
        if folder is None:
            raise WeightsError(
                f"{self.spec.paths.path} was opened without a text encoder: "
                "name the folder of T5 with text_encoder="
            )
        trained = None if self.pretrained_ckpt is None else trained_text_encoder(self.pretrained_ckpt)
        if encoder is None and trained is not None:
            log.info("the text encoder is the one that was trained with the transformer, %s", trained)
            encoder = T5Encoder(T5Config.from_dict(load_config(folder)), {}, self.other_engine)
            encoder.load_weights(trained)
        if encoder is None:
            load = T5Encoder.streamed if self.streamed else T5Encoder.from_pretrained
            encoder = load(folder, engine=self.other_engine)
        return Tokenizer.from_folder(folder), encoder

    def transformer(self) -> LatteT2V:
        transformer = LatteT2V(self.spec.transformer, {}, self.engine)
        transformer.load_weights(self.pretrained_ckpt or self.spec.paths.transformer, self.weights_dtype)
        return transformer

    def vae(self, policy: VAEPolicy, sharing: WorkSharing | None) -> CausalVAE:
        vae = CausalVAE.from_pretrained(self.spec.paths.vae, engine=self.other_engine)
        vae.policy = policy
        if sharing is not None:
            vae.sharing = sharing
        return vae
