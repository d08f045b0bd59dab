"""`opensora inflate-vae`: the initial weights of a video autoencoder from those of an image autoencoder."""

import logging
from dataclasses import asdict
from pathlib import Path

from opensora.files import write_atomic
from opensora.models.causal_vae.config import CausalVAEConfig, weight_shapes
from opensora.weights import WeightsError, read_config, save_tensors, save_weights
from opensora.weights.inflation import inflate
from opensora.weights.mindspore_file import write_checkpoint
from opensora.weights.names import mindspore_name
from opensora.weights.sources import SUFFIXES
from opensora.weights.vae_2d import open_vae_2d

log = logging.getLogger(__name__)


def inflate_vae(src: str | Path, target: str | Path, model_config: str | Path | None) -> None:
    """Write the inflated weights of the image autoencoder `src` to `target`.

    target: a folder, or a .safetensors or .ckpt file. model_config: configuration of the video autoencoder, a
    folder or a .json file; None for the published one's. Raises WeightsError for files that do not fit, and
    if the target exists.
    """
    path = Path(target)
    if path.suffix in SUFFIXES and path.suffix not in (".safetensors", ".ckpt"):
        raise WeightsError(
            f"target {path} has a suffix that cannot be written: use .safetensors or .ckpt, or name a folder"
        )
    if path.is_file() or any(path.glob("*.safetensors")):
        raise WeightsError(f"target {path} is a file, or a folder with weights: name a new one")
    content = asdict(CausalVAEConfig()) if model_config is None else read_config(model_config)
    weights = inflate(open_vae_2d(src), weight_shapes(CausalVAEConfig.from_dict(content)))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".ckpt":
        write_atomic(path, lambda file: write_checkpoint(file, weights, mindspore_name))
    elif path.suffix == ".safetensors":
        save_tensors(path, weights)
    else:
        save_weights(path, content, weights)
    log.info("%s: video autoencoder, %d tensors, from %s", path, len(weights), src)
