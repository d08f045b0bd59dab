"""`opensora train`: train the transformer and its text encoder on cached latents."""

from opensora.train.options import TrainOptions

OPTIONS = TrainOptions
POSITIONAL = None


def run(options: TrainOptions) -> int:
    from opensora.train.start import train_t2v

    return train_t2v(options)
