"""`opensora train-vae`: train the autoencoder."""

from opensora.train.options import TrainVAEOptions

OPTIONS = TrainVAEOptions
POSITIONAL = None


def run(options: TrainVAEOptions) -> int:
    from opensora.train.start import train_vae

    return train_vae(options)
