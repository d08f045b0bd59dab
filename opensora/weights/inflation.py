"""An autoencoder of images becomes one of videos: each 2-D kernel is the last time tap of a 3-D one, whose other taps are zero.

The last tap reads the current frame. Kernels over time that have no 2-D counterpart (the halving and doubling of time) pass the current
frame on: then every path through a mix of interpolation and convolution is exact where nothing moves, whatever the mix.
"""

from collections.abc import Mapping

import numpy as np

from opensora.weights.files import WeightsError

TIME_MIX = (".time_downsample.", ".time_upsample.")
MIX_FACTOR = 2.0
"""As in a fresh model: its sigmoid, 0.88, is the interpolation's share."""
NAMES_SHOWN = 5

Arrays = Mapping[str, np.ndarray]


def inflate(image: Arrays, expected: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The weights of a video autoencoder, `expected` by name and shape, from those of an image autoencoder.

    image: under latent diffusion's names, as `vae_2d.open_vae_2d` gives them. Raises WeightsError where the two do not belong together.
    """
    weights, faults, used = {}, [], set()
    for name, shape in expected.items():
        if any(part in name for part in TIME_MIX):
            weights[name] = _time_mix(name, shape)
            continue
        source = name if name in image else "".join(name.rsplit(".conv", 1))
        if source not in image:
            faults.append(f"{name} has no counterpart")
            continue
        used.add(source)
        value = image[source]
        if (*shape[:2], *shape[-2:]) != (*value.shape[:2], *value.shape[-2:]):
            faults.append(f"{source} is {list(value.shape)} for {list(shape)}")
            continue
        weights[name] = value if value.shape == shape else _in_last_tap(value, shape)
    faults += [f"{name} has no place" for name in image if name not in used]
    if faults:
        more = f" and {len(faults) - NAMES_SHOWN} more" if len(faults) > NAMES_SHOWN else ""
        raise WeightsError(
            f"the image autoencoder does not fit the video autoencoder's config.json ({'; '.join(faults[:NAMES_SHOWN])}{more}): "
            "name another with --model_config"
        )
    return weights


def collapse_time(weights: Arrays) -> dict[str, np.ndarray]:
    """Kernels over time with the sum of their taps in the last one; the rest as it is. A single frame comes out the same."""
    return {name: _in_last_tap(value.sum(2), value.shape) if value.ndim == 5 else value for name, value in weights.items()}


def _in_last_tap(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(out, in, kh, kw) -> (out, in, taps, kh, kw)."""
    inflated = np.zeros(shape, np.float32)
    inflated[:, :, -1] = kernel
    return inflated


def _time_mix(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel (channels, channels, 3, 3, 3) that passes the current frame on, its bias, or the factor of the mix."""
    if name.endswith("mix_factor"):
        return np.full(shape, MIX_FACTOR, np.float32)
    value = np.zeros(shape, np.float32)
    if len(shape) == 5:
        value[:, :, -1, shape[3] // 2, shape[4] // 2] = np.eye(shape[0], shape[1])
    return value
