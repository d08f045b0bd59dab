import mindspore as ms
import numpy as np
import pytest

from opensora.diffusion.guidance import guide, is_guided


def test_guidance_extrapolates_all_channels_from_negative_to_positive() -> None:
    output = np.random.default_rng(0).standard_normal((4, 8, 3, 2, 2)).astype(np.float32)
    negative, positive = output[:2], output[2:]
    guided = guide(ms.Tensor(output), 7.5).asnumpy()
    np.testing.assert_allclose(guided, negative + 7.5 * (positive - negative), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_no_negative_half_up_to_one(scale: float) -> None:
    output = ms.Tensor(np.ones((3, 8, 1, 2, 2), np.float32))
    assert not is_guided(scale)
    assert guide(output, scale) is output


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_scale_must_be_finite(scale: float) -> None:
    with pytest.raises(ValueError, match="guidance_scale"):
        is_guided(scale)
