"""Activations in the forms that are fast and exact on every device."""

from opensora import runtime
from opensora.engine.tensor import Tensor

ms = runtime.mindspore()
ops = ms.ops
ON_CPU = runtime.device() == "CPU"


def silu(x: Tensor) -> Tensor:
    return x * ops.sigmoid(x)


def sigmoid(x: Tensor) -> Tensor:
    """The sigmoid of a few numbers, exact on a CPU.

    The CPU kernel is off by up to 1e-6 in float32, which later layers amplify, so it runs in float64.
    """
    return ops.sigmoid(x.astype(ms.float64)).astype(x.dtype) if ON_CPU else ops.sigmoid(x)


def log(x: Tensor) -> Tensor:
    """The natural logarithm, reproducible on a CPU.

    The last digit of the CPU kernel depends on how threads split the work, so it runs in float64.
    """
    return ops.log(x.astype(ms.float64)).astype(x.dtype) if ON_CPU else ops.log(x)


def prelu(x: Tensor, slopes: Tensor) -> Tensor:
    """PReLU (arXiv:1502.01852) of images (N, C, H, W): x if positive, else x times its channel's slope.

    slopes (C,).
    """
    return ops.relu(x) - ops.reshape(slopes, (1, -1, 1, 1)) * ops.relu(-x)


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    """x where it is positive, else x * slope."""
    return ops.relu(x) - slope * ops.relu(-x)


def gelu_erf(x: Tensor) -> Tensor:
    """GELU (arXiv:1606.08415), exact."""
    return 0.5 * x * (1.0 + ops.erf(0.7071067811865476 * x))


def quick_gelu(x: Tensor) -> Tensor:
    """GELU as CLIP approximates it."""
    return x * ops.sigmoid(1.702 * x)


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh approximation (arXiv:1606.08415), where 1 + tanh(z) = 2 sigmoid(2 z)."""
    return x * ops.sigmoid(1.5957691216057308 * x * (1.0 + 0.044715 * x * x))
