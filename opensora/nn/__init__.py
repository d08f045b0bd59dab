"""The functions that models are written in: `F` has them in the form of the running engine."""

from opensora.engine.tensor import Tensor
from opensora.nn.exchange import FrameExchange, WorkSharing
from opensora.nn.functional import F

__all__ = ["F", "FrameExchange", "Tensor", "WorkSharing"]
