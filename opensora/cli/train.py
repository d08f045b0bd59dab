"""`opensora train`: train the transformer."""

from opensora.runtime import set_device
from opensora.train.t2v.options import TrainOptions

OPTIONS = TrainOptions
POSITIONAL = None


def run(options: TrainOptions) -> int:
    options.require_data()
    set_device(options.device)
    from opensora.pipeline.preview import PromptPreview
    from opensora.train.t2v.setup import train_t2v

    return train_t2v(options, PromptPreview)
