"""`opensora train-vae`: train the autoencoder."""

from opensora.runtime import set_device
from opensora.train.vae.options import TrainVAEOptions

OPTIONS = TrainVAEOptions
POSITIONAL = None


def run(options: TrainVAEOptions) -> int:
    options.require_source()
    set_device(options.device)
    from opensora.train.vae.setup import train_vae

    return train_vae(options)
