"""Options of `opensora train`, checked before MindSpore is imported."""

from dataclasses import dataclass, field
from typing import ClassVar

from opensora.data.options import DataOptions
from opensora.train.options import LoopOptions, OptimizerOptions, PrecisionOptions


@dataclass(frozen=True, kw_only=True)
class TrainOptions(LoopOptions, OptimizerOptions, PrecisionOptions, DataOptions):
    """Options of `opensora train`."""

    ALIASES: ClassVar[dict[str, str]] = {"start_learning_rate": "learning_rate"}
    model_path: str
    """Model folder whose config.json files and tokenizer describe the networks."""
    version: str | None = None
    """Folder of the transformer inside model_path; default: the only one, or the one for num_frames frames."""
    text_encoder_name: str | None = None
    """Folder of the text encoder; default: model_path/text_encoder."""
    ae_path: str | None = None
    """Folder of the autoencoder, or a model folder that has it; default: model_path/vae."""
    validation_latent_folder: str | None = None
    """Latents and captions to validate on, made by `opensora encode-latents`."""
    num_validation_samples: int = 256
    """Samples of a validation."""
    validation_prompts: list[str] = field(default_factory=list)
    """Sentences, or .txt and .csv files of them, that every validation makes videos of, with the moving average; default: none."""
    pretrained: str | None = None
    """Weights to start from: another run or a checkpoint of it (its moving average), or a file such as t2v.pt; default: fresh ones."""
    snr_gamma: float | None = None
    """Min-SNR weights of the timesteps: the smaller, the more the noisy ones count; default: all losses count the same."""
    sp_size: int = 1
    """Devices that share the frames of a sample; it divides their number."""
    num_no_recompute: int = 0
    """Layers of the transformer, the last ones, that keep what the backward pass needs: a step takes less time and more memory."""
    train_text_encoder: bool = False
    """Train the text encoder too, from fresh weights or those of the checkpoint in pretrained; otherwise it stays as it is."""
    enable_tiling: bool = False
    """Encode videos in tiles of 256 pixels and chunks of 65 frames as the reference does."""
    tile_overlap_factor: float = 0.25
    """Part of a tile that overlaps its neighbour."""
    use_rope: bool | None = None
    """Rotary positions in addition to the others; default: the model's."""
    compress_kv_factor: int | None = None
    """Compression of keys and values in the second half of the layers; default: the model's."""
    scale_lr: bool = False
    """Multiply learning_rate by the number of samples of a step."""

    def __post_init__(self) -> None:
        LoopOptions.__post_init__(self)
        DataOptions.__post_init__(self)
        if self.snr_gamma is not None and not self.snr_gamma > 0:
            raise ValueError(f"snr_gamma {self.snr_gamma} must be above 0: use 5, or leave it out")
        for name, least in (("sp_size", 1), ("num_no_recompute", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is too small: use {least} or more")
        if self.train_text_encoder and self.text_embed_cache:
            raise ValueError(
                "train_text_encoder and text_embed_cache exclude each other: cached embeddings cannot be trained"
            )
        if not 0 <= self.tile_overlap_factor < 1:
            raise ValueError(f"tile_overlap_factor {self.tile_overlap_factor} is outside 0 to 1: use 0.25")
