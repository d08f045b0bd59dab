from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.engine import open_engine
from opensora.engine.block import Block
from opensora.nn import F
from opensora.nn.convolution import causal_conv3d, conv2d, from_frames, to_frames
from opensora.nn.window import SAME, UNPADDED, ConvWindow

HALVING = ConvWindow((0, 1, 0, 1), 2)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def expected(video: np.ndarray, weight: np.ndarray, bias: np.ndarray, window: ConvWindow) -> np.ndarray:
    """The definition: (B, C, T, H, W), the first frame repeated before the video, zeros around each frame."""
    padding, stride, time_stride = window
    _, _, taps, height, width = weight.shape
    x = np.concatenate([video[:, :, :1]] * (taps - 1) + [video], 2)
    x = np.pad(x, ((0, 0), (0, 0), (0, 0), padding[:2], padding[2:]))
    windows = np.lib.stride_tricks.sliding_window_view(x, (taps, height, width), axis=(2, 3, 4))
    windows = windows[:, :, ::time_stride, ::stride, ::stride]  # (B, C, T', H', W', taps, kh, kw)
    return np.einsum("bcthwijk,ocijk->bothw", windows, weight) + bias[:, None, None, None]


def run(video: np.ndarray, weight: np.ndarray, bias: np.ndarray, window: ConvWindow = SAME) -> np.ndarray:
    x, w, b = (ms.Tensor(array.astype(np.float32)) for array in (video, weight, bias))
    return from_frames(causal_conv3d(to_frames(x), w, b, video.shape[0], window), video.shape[0]).asnumpy()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 5, 6])
@pytest.mark.parametrize(
    "window",
    [
        SAME,
        ConvWindow(time_stride=2),
        ConvWindow(UNPADDED.padding, 2),
        HALVING,
        ConvWindow(stride=2, time_stride=2),
    ],
    ids=str,
)
def test_causal_convolution(batch: int, frames: int, window: ConvWindow) -> None:
    video, weight, bias = random(batch, 3, frames, 7, 9), random(4, 3, 3, 3, 3), random(4)
    result = run(video, weight, bias, window)
    assert result.shape[2] == -(-frames // window.time_stride)
    np.testing.assert_allclose(result, expected(video, weight, bias, window), rtol=1e-5, atol=2e-5)


def test_kernels_of_one_tap_and_one_pixel() -> None:
    video, bias = random(2, 3, 4, 6, 6), random(5)
    for kernel, window in (((1, 1, 1), UNPADDED), ((1, 3, 3), SAME), ((3, 1, 1), UNPADDED)):
        weight = random(5, 3, *kernel)
        np.testing.assert_allclose(
            run(video, weight, bias, window),
            expected(video, weight, bias, window),
            rtol=1e-5,
            atol=2e-5,
        )


def test_no_frame_sees_a_later_one() -> None:
    video, weight, bias = random(1, 3, 5, 6, 6), random(4, 3, 3, 3, 3), random(4)
    changed = video.copy()
    changed[:, :, 3:] += 1
    before, after = run(video, weight, bias), run(changed, weight, bias)
    np.testing.assert_array_equal(before[:, :, :3], after[:, :, :3])
    assert (before[:, :, 3:] != after[:, :, 3:]).any()


def test_convolution_of_frames() -> None:
    x, weight, bias = random(2, 3, 1, 6, 8), random(4, 3, 1, 3, 3), random(4)
    result = conv2d(
        *(ms.Tensor(array.astype(np.float32)) for array in (x[:, :, 0], weight[:, :, 0], bias)),
        HALVING,
    )
    np.testing.assert_allclose(
        result.asnumpy(), expected(x, weight, bias, HALVING)[:, :, 0], rtol=1e-5, atol=2e-5
    )


def test_frames_first_and_back() -> None:
    video = random(2, 3, 4, 5, 6).astype(np.float32)
    frames = to_frames(ms.Tensor(video))
    np.testing.assert_array_equal(frames.asnumpy()[2 * 2 + 1], video[1, :, 2])
    np.testing.assert_array_equal(from_frames(frames, 2).asnumpy(), video)


@pytest.mark.parametrize(
    ("frames", "window"), [(1, SAME), (5, SAME), (5, ConvWindow(time_stride=2)), (3, HALVING)]
)
def test_gradients_of_the_causal_convolution(frames: int, window: ConvWindow) -> None:
    # The convolution is linear in each of its arguments: a step of any size gives the exact slope.
    arrays = [random(2, 3, frames, 5, 5), random(4, 3, 3, 3, 3), random(4)]
    by_output = random(*expected(*arrays, window).shape, seed=1)

    def loss(video: Any, weight: Any, bias: Any) -> Any:
        y = from_frames(causal_conv3d(to_frames(video), weight, bias, 2, window), 2)
        return (y * ms.Tensor(by_output.astype(np.float32))).sum()

    gradients = ms.grad(loss, (0, 1, 2))(*(ms.Tensor(array.astype(np.float32)) for array in arrays))
    for place, gradient in enumerate(gradients):
        direction = random(*arrays[place].shape, seed=2)
        moved = [array + direction if i == place else array for i, array in enumerate(arrays)]
        change = expected(*moved, window) - expected(*arrays, window)
        slope = float((change * by_output).sum())
        assert float((gradient.asnumpy() * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("engine", ["mindspore", "openvino"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_convolutions_of_doubled_pixels_and_frames(engine: str, batch: int, frames: int) -> None:
    """As if pixels or frames were doubled first, whatever is computed instead."""
    video = random(batch, 3, frames, 5, 7).astype(np.float32)
    weights = {
        "plane": random(4, 3, 1, 3, 3).astype(np.float32),
        "cube": random(4, 3, 3, 3, 3).astype(np.float32),
        "bias": random(4).astype(np.float32),
    }

    def network(run: Any, x: Any, batch: int) -> Any:
        return run(Block(convolved), ("",), x, batch)

    def convolved(w: Any, x: Any, batch: int) -> Any:
        rows = F.to_frames(x)
        return tuple(
            F.from_frames(result, batch)
            for result in (
                F.upsampling_conv(rows, w["plane"], w["bias"], batch),
                F.time_upsampling_conv(rows, w["cube"], w["bias"], batch),
            )
        )

    opened = open_engine(engine)
    pixels, times = opened.run(network, opened.weights(weights), opened.tensor(video), batch)
    doubled = video.repeat(2, 3).repeat(2, 4)
    wanted = expected(doubled, weights["plane"], weights["bias"], SAME)
    np.testing.assert_allclose(pixels.asnumpy(), wanted, rtol=1e-5, atol=2e-5)
    rest = np.concatenate([video[:, :, 1:2], video[:, :, 1:], video[:, :, -1:]], 2)
    middle, before, after = rest[:, :, 1:-1], rest[:, :, :-2], rest[:, :, 2:]
    pairs = np.stack([0.75 * middle + 0.25 * before, 0.75 * middle + 0.25 * after], 3)
    between = pairs.reshape(batch, 3, -1, 5, 7) if frames > 1 else video[:, :, 1:]
    wanted = expected(np.concatenate([video[:, :, :1], between], 2), weights["cube"], weights["bias"], SAME)
    np.testing.assert_allclose(times.asnumpy(), wanted, rtol=1e-5, atol=2e-5)
