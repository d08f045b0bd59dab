"""Release folders: strict loading and atomic saving of a model's configuration and weights. Arrays in and out are numpy's."""

from opensora.weights.files import TensorFile, WeightsError
from opensora.weights.release import load_config, load_weights
from opensora.weights.saving import save_weights, write_atomic

__all__ = ["TensorFile", "WeightsError", "load_config", "load_weights", "save_weights", "write_atomic"]
