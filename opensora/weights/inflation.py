"""An autoencoder of images becomes one of videos: each 2-D kernel is the last time tap of a 3-D one, whose
other taps are zero.

The last tap reads the current frame. Kernels over time without a 2-D counterpart, which halve and double
time, pass the current frame on. So where nothing moves, every mix of interpolation and convolution is exact.
"""

import re
from collections.abc import Mapping

import numpy as np

from opensora.weights.files import Arrays, WeightsError
from opensora.weights.vae_2d import image_name

HALVING, DOUBLING = ".time_downsample.", ".time_upsample."
TIME_MIX = (HALVING, DOUBLING)
MIX_FACTOR = 2.0
"""The value of a fresh model: its sigmoid, 0.88, is the interpolation's share."""
MIX_OF_CLIPS = 0.3
MOTION_TAPS = 0.4
"""Deviation of the random taps, as a part of that of the kernel's sum."""
PIXELS = "decoder.conv_out.conv.weight"
"""Without random taps: what they add would be seen."""
NAMES_SHOWN = 5


def inflate(image: Arrays, expected: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The weights of a video autoencoder, `expected` by name and shape, from those of an image autoencoder.

    image: under latent diffusion's names, as `vae_2d.open_vae_2d` gives them. Raises WeightsError where the
    two do not belong together.
    """
    weights, faults, used = {}, [], set()
    for name, shape in expected.items():
        if any(part in name for part in TIME_MIX):
            weights[name] = _time_mix(name, shape)
            continue
        source = name if name in image else image_name(name)
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
            "the image autoencoder does not fit the video autoencoder's config.json "
            f"({'; '.join(faults[:NAMES_SHOWN])}{more}): name another with --model_config"
        )
    return weights


def collapse_time(weights: Arrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights that were trained on single frames, ready to learn clips. Still clips, of one frame too, come
    out the same.

    Of a kernel's time taps a single frame tells only the sum. It goes into one tap, the current frame's, so
    that frames do not blur. To all are added random taps that cancel where nothing moves: with zeros instead,
    neither half would learn of motion before the other shows it. Kernels take over most of what the mixes of
    interpolation and convolution pass on, so that their taps count.
    """
    kernels = {name: value for name, value in weights.items() if value.ndim == 5 and value.shape[2] > 1}
    last_halving = max((name for name in kernels if HALVING in name), default=None)
    collapsed = dict(weights)
    for name, value in kernels.items():
        current = value.sum(2)
        mix = re.sub(r"(\.conv)+\.weight$", ".mix_factor", name)
        if mix in weights:
            bias = name.replace(".weight", ".bias")
            current, collapsed[bias], collapsed[mix] = _take_over(current, weights[bias], weights[mix])
        # Frame 1 of three, then frame 2 of three such: about the middle of the frames that become one.
        tap = 1 if HALVING in name and name != last_halving else value.shape[2] - 1
        taps = np.zeros_like(value) if name == PIXELS else _motion_taps(current.std(), value.shape, rng)
        taps[:, :, tap] += current
        collapsed[name] = taps
    return collapsed


def _take_over(
    kernel: np.ndarray, bias: np.ndarray, mix_factor: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernel (out, in, kh, kw), bias and factor of a mix whose interpolation has the share MIX_OF_CLIPS, the
    same where nothing moves.
    """
    share = 1 / (1 + np.exp(-mix_factor))
    kernel, bias = (share - MIX_OF_CLIPS) * _identity(kernel.shape) + (1 - share) * kernel, (1 - share) * bias
    factor = np.full_like(mix_factor, np.log(MIX_OF_CLIPS / (1 - MIX_OF_CLIPS)))
    return kernel / (1 - MIX_OF_CLIPS), bias / (1 - MIX_OF_CLIPS), factor


def _motion_taps(deviation: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random taps (out, in, taps, kh, kw) whose sum over time is zero."""
    taps = MOTION_TAPS * deviation * rng.standard_normal(shape, np.float32)
    return taps - taps.mean(2, keepdims=True)


def _in_last_tap(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(out, in, kh, kw) -> (out, in, taps, kh, kw)."""
    inflated = np.zeros(shape, np.float32)
    inflated[:, :, -1] = kernel
    return inflated


def _time_mix(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel (channels, channels, 3, 3, 3) that passes the current frame on, its bias, or the factor of the
    mix.
    """
    if name.endswith("mix_factor"):
        return np.full(shape, MIX_FACTOR, np.float32)
    if len(shape) == 5:
        return _in_last_tap(_identity((*shape[:2], *shape[3:])), shape)
    return np.zeros(shape, np.float32)


def _identity(shape: tuple[int, ...]) -> np.ndarray:
    """A kernel (out, in, kh, kw) that changes nothing."""
    kernel = np.zeros(shape, np.float32)
    kernel[:, :, shape[2] // 2, shape[3] // 2] = np.eye(shape[0], shape[1])
    return kernel
