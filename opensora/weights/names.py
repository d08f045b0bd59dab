"""What a weight is called in the files of PyTorch trainers and of the published MindSpore version, and in the release."""

import re
from collections.abc import Container, Iterator

# Wrappers that a training network put round the model.
PREFIXES = ("network.", "module.", "model.", "autoencoder.", "first_stage_model.", "vae.", "transformer.")
ENDINGS = {".gamma": ".weight", ".beta": ".bias", ".embedding_table": ".weight"}
BLOCK = re.compile(r"^blocks\.(\d+)\.(spatial|temp)_block\.")
BLOCKS = {"spatial": "transformer_blocks", "temp": "temporal_transformer_blocks"}

# What lies beside the weights in .pt and .ckpt files: tables of positions, which are computed, and a trainer's own state.
BESIDE = {
    "temp_pos_embed", "pos_embed.pos_embed", "epoch_num", "step_num", "cur_epoch", "cur_step", "global_step", "learning_rate", "lr",
    "loss_scale", "beta1_power", "beta2_power",
}  # fmt: skip
STATE = ("moment1.", "moment2.", "adam_m.", "adam_v.", "ema.")


def release_name(stored: str, known: Container[str]) -> str:
    """The name in `known` that `stored` stands for, or `stored` itself where none fits."""
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
    """Whether a tensor of a .pt or .ckpt file is none of the weights but a table of positions or a trainer's state."""
    return any(name in BESIDE or name.startswith(STATE) for name in _unwrapped(stored))


def _unwrapped(name: str) -> Iterator[str]:
    """The name, and what is left of it without each of the wrappers round it."""
    yield name
    while (prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)) is not None:
        name = name.removeprefix(prefix)
        yield name


def mindspore_name(name: str) -> str:
    """What the published MindSpore version's converters call the weight `name` of a VAE, a LatteT2V or a T5 encoder."""
    stem, _, part = name.rpartition(".")
    if stem == "shared" or stem.endswith(("embed_tokens", "relative_attention_bias")):
        return f"{stem}.embedding_table"
    if "norm" in stem and name.startswith(("encoder.down", "encoder.mid", "encoder.norm_out", "decoder.")):
        return f"{stem}.{'gamma' if part == 'weight' else 'beta'}"
    return name
