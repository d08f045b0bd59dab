"""What models are written in. `F` has functions of tensors, in the form of the engine that runs."""

from opensora.engine.tensor import Tensor
from opensora.nn.exchange import FrameExchange, WorkSharing
from opensora.nn.functional import F

__all__ = ["F", "FrameExchange", "Tensor", "WorkSharing"]
