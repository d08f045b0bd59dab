"""Names of weights in the release, in files of PyTorch trainers, and in the published version (MindSpore)."""

import re
from collections.abc import Container, Iterator

# Wrappers of training networks around the model.
PREFIXES = ("network.", "module.", "model.", "autoencoder.", "first_stage_model.", "vae.", "transformer.")
ENDINGS = {".gamma": ".weight", ".beta": ".bias", ".embedding_table": ".weight"}
BLOCK = re.compile(r"^blocks\.(\d+)\.(spatial|temp)_block\.")
BLOCKS = {"spatial": "transformer_blocks", "temp": "temporal_transformer_blocks"}

# Tensors of .pt and .ckpt files that are not weights: tables of positions, which are computed, and training
# state.
BESIDE = {
    "temp_pos_embed", "pos_embed.pos_embed", "epoch_num", "step_num", "cur_epoch", "cur_step", "global_step",
    "learning_rate", "lr", "loss_scale", "beta1_power", "beta2_power",
}  # fmt: skip
STATE = ("moment1.", "moment2.", "adam_m.", "adam_v.", "ema.")


def release_name(stored: str, known: Container[str]) -> str:
    """The name in `known` for the name `stored` in a file, or `stored` itself if there is none."""
    name = stored
    for name in _unwrapped(stored):
        if name in known:
            return name
    name = BLOCK.sub(lambda found: f"{BLOCKS[found[2]]}.{found[1]}.", name)
    for ending, released in ENDINGS.items():
        if name.endswith(ending):
            name = name.removesuffix(ending) + released
    return name if name in known else stored


def lies_beside(stored: str) -> bool:
    """True if a tensor of a .pt or .ckpt file is a table of positions or training state, not a weight."""
    return any(name in BESIDE or name.startswith(STATE) for name in _unwrapped(stored))


def _unwrapped(name: str) -> Iterator[str]:
    """The name, then the name without its first wrapper, its first two, and so on."""
    yield name
    while (prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)) is not None:
        name = name.removeprefix(prefix)
        yield name


def mindspore_name(name: str) -> str:
    """The published version's name of the weight `name` of a VAE, a LatteT2V or a T5 encoder."""
    stem, _, part = name.rpartition(".")
    if stem == "shared" or stem.endswith(("embed_tokens", "relative_attention_bias")):
        return f"{stem}.embedding_table"
    if "norm" in stem and name.startswith(("encoder.down", "encoder.mid", "encoder.norm_out", "decoder.")):
        return f"{stem}.{'gamma' if part == 'weight' else 'beta'}"
    return name
