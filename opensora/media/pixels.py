"""Convert frames of files to the autoencoder's pixels and back."""

import numpy as np


def to_pixels(frames: np.ndarray) -> np.ndarray:
    """uint8 (B, T, H, W, 3) -> float32 (B, 3, T, H, W) in [-1, 1], the autoencoder's input."""
    return np.ascontiguousarray(frames.transpose(0, 4, 1, 2, 3), dtype=np.float32) / 127.5 - 1.0


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """float (B, 3, T, H, W) in [-1, 1] -> uint8 (B, T, H, W, 3), clipped and rounded down (the reference)."""
    return (np.clip(pixels / 2 + 0.5, 0.0, 1.0) * 255).astype(np.uint8).transpose(0, 2, 3, 4, 1)


def on_white(frame: np.ndarray) -> np.ndarray:
    """Put a picture with an alpha channel on white: uint8 (H, W, 4) -> (H, W, 3)."""
    alpha = frame[..., 3:].astype(np.uint16)
    return ((frame[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
