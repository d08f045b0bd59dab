"""Model folders: strict loading and atomic saving of configurations and weights as numpy arrays."""

from opensora.weights.checkpoints import latest_checkpoint
from opensora.weights.files import Arrays, Shapes, TensorFile, WeightsError, WeightsFile
from opensora.weights.folder import ModelFolder, did_you_mean, find_model
from opensora.weights.half import HalfStorage
from opensora.weights.release import CONFIG, TensorSource, load_config, open_weights, read_config
from opensora.weights.saving import save_config, save_tensors, save_weights
from opensora.weights.sources import config_folder, open_file, trained_text_encoder, weight_files

__all__ = [
    "CONFIG",
    "Arrays",
    "HalfStorage",
    "ModelFolder",
    "Shapes",
    "TensorFile",
    "TensorSource",
    "WeightsError",
    "WeightsFile",
    "config_folder",
    "did_you_mean",
    "find_model",
    "latest_checkpoint",
    "load_config",
    "open_file",
    "open_weights",
    "read_config",
    "save_config",
    "save_tensors",
    "save_weights",
    "trained_text_encoder",
    "weight_files",
]
