from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from opensora.media.pixels import to_pixels
from opensora.metrics.metric import VideoPair
from opensora.metrics.networks import LPIPSMetric, VideoFeatures, square
from opensora.models import I3D, LPIPS


def video(seed: int, frames: int, height: int = 16, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def test_the_distance_of_frames_is_lpips_s_mean_whatever_the_batch(lpips_weights: Path) -> None:
    a, b = video(0, 5), video(1, 5)
    network = LPIPS.from_weights(load_file(lpips_weights))
    pixels = [
        ms.Tensor(np.ascontiguousarray(to_pixels(frames[None])[0].swapaxes(0, 1)[:2])) for frames in (a, b)
    ]
    first = network(*pixels).asnumpy().ravel()
    metric = LPIPSMetric([lpips_weights], batch_size=2)

    def score(real: np.ndarray, generated: np.ndarray) -> float:
        return metric.score(VideoPair(real, generated))

    assert score(b[:2], a[:2]) == pytest.approx(first.mean(), rel=1e-6)
    each = [score(b[i : i + 2], a[i : i + 2]) for i in (0, 2)] + [score(b[[4, 4]], a[[4, 4]])]
    assert score(b, a) == pytest.approx((2 * each[0] + 2 * each[1] + each[2]) / 5, rel=1e-6)


def test_vgg16_and_the_heads_may_lie_in_two_files(lpips_weights: Path) -> None:
    """Each under its own publisher's names."""
    weights = load_file(lpips_weights)
    heads = {name: value for name, value in weights.items() if name.startswith("lin")}
    # net.slice2.5.weight is torchvision's features.5.weight.
    vgg = {
        f"features.{name.split('.', 2)[2]}": value
        for name, value in weights.items()
        if name.startswith("net")
    }
    save_file({**vgg, "classifier.0.weight": np.full((2, 2), np.nan, np.float32)}, "vgg16.safetensors")
    save_file(heads, "vgg.safetensors")
    pair = VideoPair(video(0, 2), video(1, 2))
    two_files = LPIPSMetric(["vgg16.safetensors", "vgg.safetensors"], 2)
    assert two_files.score(pair) == LPIPSMetric([lpips_weights], 2).score(pair)
    with pytest.raises(ValueError, match=r"the weights of LPIPS lack lin0\.model\.1\.weight"):
        LPIPSMetric(["vgg16.safetensors"], 2)


def test_features_are_i3d_s_scores_of_the_prepared_video(i3d_weights: Path) -> None:
    frames = video(2, 9, 30, 20)
    features = VideoFeatures(i3d_weights)(frames)
    expected = I3D.from_weights(load_file(i3d_weights))(ms.Tensor(square(to_pixels(frames[None])))).asnumpy()
    assert features.shape == (5,) and np.array_equal(features, expected[0])
    with pytest.raises(ValueError, match="8 frames are too few for FVD: 9 are needed"):
        VideoFeatures(i3d_weights)(frames[:8])


def test_the_shorter_side_becomes_224_and_the_middle_stays() -> None:
    # 112 columns and 140 rows are doubled: outputs lie a quarter of a pixel beside the inputs, edges are
    # repeated.
    ramp = np.broadcast_to(np.arange(140, dtype=np.float32)[:, None], (1, 3, 2, 140, 112))
    result = square(ramp)
    assert result.shape == (1, 3, 2, 224, 224)
    doubled = np.clip((np.arange(280) + 0.5) / 2 - 0.5, 0, 139)
    np.testing.assert_allclose(result[0, 1, 1, :, 7], doubled[28:252], atol=1e-4)
    across = square(ramp.swapaxes(3, 4).copy())
    np.testing.assert_allclose(across, result.swapaxes(3, 4), atol=1e-4)
    # Halved without antialiasing: the mean of two neighbours, of four pixels in both directions.
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 3, 1, 448, 448)).astype(np.float32)
    blocks = pixels.reshape(1, 3, 1, 224, 2, 224, 2).mean((4, 6))
    np.testing.assert_allclose(square(pixels), blocks, atol=1e-5)


def test_a_size_that_rounds_badly_keeps_224() -> None:
    for side in (49, 107, 360, 1080):
        assert square(np.zeros((1, 3, 1, side, side + 3), np.float32)).shape[-2:] == (224, 224)
