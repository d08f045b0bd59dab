"""All tensors of a release at once."""

from typing import Any

import numpy as np

from opensora.weights import open_weights


def load_weights(*source: Any, **expectations: Any) -> dict[str, np.ndarray]:
    """What `open_weights` finds, read."""
    return dict(open_weights(*source, **expectations))
