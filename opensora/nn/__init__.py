"""What models are written in. `F` has functions of tensors, in the form of the engine that runs."""

from opensora.nn.exchange import FrameExchange, WorkSharing
from opensora.nn.functional import F
from opensora.nn.tensor import Tensor

__all__ = ["F", "FrameExchange", "Tensor", "WorkSharing"]
