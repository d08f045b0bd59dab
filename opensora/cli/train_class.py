"""`opensora train-class`: train a class-conditional or unconditional Latte."""

from opensora.runtime import set_device
from opensora.train.latte_class.options import TrainClassOptions

OPTIONS = TrainClassOptions
POSITIONAL = None


def run(options: TrainClassOptions) -> int:
    options.require_data()
    set_device(options.device)
    from opensora.pipeline.classes import ClassPreview
    from opensora.train.latte_class.setup import train_class

    return train_class(options, ClassPreview)
