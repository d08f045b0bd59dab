"""What models are written in: `F` has the functions of tensors, in the form of the engine at work."""

from opensora.nn.functional import F

__all__ = ["F"]
