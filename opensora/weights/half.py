"""Arrays that are stored in 16 bits and read as float32."""

from collections.abc import Iterator, Mapping

import numpy as np

from opensora.weights.files import WeightsError, from_bfloat16, to_bfloat16

LARGEST_HALF = 65504.0


class HalfStorage(Mapping[str, np.ndarray]):
    """A copy of `arrays` in "fp16" or "bf16"; reading one gives a new float32 array.

    Raises WeightsError for values that float16 cannot hold.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], dtype: str) -> None:
        assert dtype in ("fp16", "bf16")
        self._halves = {
            name: to_bfloat16(arrays[name]) if dtype == "bf16" else _to_half(name, arrays[name])
            for name in arrays
        }

    def __getitem__(self, name: str) -> np.ndarray:
        value = self._halves[name]
        return from_bfloat16(value) if value.dtype == np.uint16 else value.astype(np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._halves)

    def __len__(self) -> int:
        return len(self._halves)


def _to_half(name: str, value: np.ndarray) -> np.ndarray:
    if value.size and max(value.max(), -value.min()) > LARGEST_HALF:
        raise WeightsError(
            f"{name} has values beyond {LARGEST_HALF:g}, which fp16 cannot hold: keep the weights as bf16"
        )
    return value.astype(np.float16)
