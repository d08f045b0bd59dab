"""Classes of a model by name and number. Does not import MindSpore."""

from opensora.console import printable
from opensora.models.latte_class.config import LatteClassConfig
from opensora.weights.folder import did_you_mean

NAMES_SHOWN = 10


def find_label(config: LatteClassConfig, word: str) -> int:
    """The label of a class, given by its name or number. Raises ValueError for an unknown one."""
    if not config.num_classes:
        raise ValueError(
            f"label {printable(word)!r} has no effect: this model is unconditional, so leave it out"
        )
    if word in config.class_names:
        return config.class_names.index(word)
    if word.isascii() and word.isdecimal() and int(word) < config.num_classes:
        return int(word)
    names = config.class_names
    known = f"{', '.join(names[:NAMES_SHOWN])}{', ...' if len(names) > NAMES_SHOWN else ''}, or "
    raise ValueError(
        f"label {printable(word)!r} is unknown{did_you_mean(word, names)}: choose {known if names else ''}"
        f"a number from 0 to {config.num_classes - 1}"
    )


def label_name(config: LatteClassConfig, label: int) -> str:
    """The name of a class; where it has none "class 3", and "video" for an unconditional model."""
    if not config.num_classes:
        return "video"
    return config.class_names[label] if config.class_names else f"class {label}"
