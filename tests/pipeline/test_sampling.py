"""The loop around the network, without any device."""

import numpy as np
import pytest

from opensora.diffusion import make_sampler
from opensora.pipeline.sampling import draw, sample, upstream_text
from tests import reference


def test_upstream_text_of_one_prompt_is_cut() -> None:
    case = reference.load("pipeline/mask_text")
    embeds, negative = upstream_text(case["emb1"][:, 0], case["mask1"], 2 * case["emb1"][:, 0])
    np.testing.assert_array_equal(embeds, case["out1"][:, 0])
    assert embeds.shape[1] == case["keep1"]
    np.testing.assert_array_equal(negative, 2 * case["out1"][:, 0])


def test_upstream_text_of_several_prompts_is_zeroed() -> None:
    case = reference.load("pipeline/mask_text")
    negative = np.ones_like(case["emb2"][:, 0])
    embeds, same = upstream_text(case["emb2"][:, 0], case["mask2"], negative)
    np.testing.assert_array_equal(embeds, case["out2"][:, 0])
    assert same is negative
    assert embeds.shape[1] == case["keep2"]
    assert upstream_text(embeds, None, None) == (embeds, None)


def test_guidance_acts_on_the_noise_half_and_timesteps_are_not_rounded() -> None:
    """A network that answers the positive half with x and the negative with zero, and 7 in the variance
    channels.
    """
    seen = []

    def network(x: np.ndarray, timestep: float) -> np.ndarray:
        seen.append(timestep)
        half = np.concatenate([x, np.full_like(x, 7.0)], 1)
        return np.concatenate([np.concatenate([0 * x, 0 * x], 1), half])

    latents = draw([np.random.default_rng(0)], (2, 1, 2, 2))
    steps: list[np.ndarray] = []
    result = sample(network, make_sampler("EulerDiscrete", 4), latents, 3.0, [], steps.append)
    sampler = make_sampler("EulerDiscrete", 4)
    expected = latents * np.float32(sampler.init_noise_sigma)
    for i in range(4):
        expected = sampler.step(3.0 * sampler.scale_model_input(expected, i), i, expected)
        np.testing.assert_allclose(steps[i], expected, rtol=1e-6)
    assert seen == list(sampler.timesteps) and seen[1] == 666.0
    assert result.dtype == np.float32
    seen.clear()
    sample(network, make_sampler("UniPC", 7), latents, 3.0, [], steps.append)
    assert any(timestep % 1 for timestep in seen)


@pytest.mark.parametrize("name", ["DDPM", "EulerAncestralDiscrete", "KDPM2AncestralDiscrete"])
def test_added_noise_is_each_video_s_own(name: str) -> None:
    def run(seeds: list[int]) -> np.ndarray:
        generators = [np.random.default_rng(seed) for seed in seeds]
        latents = draw(generators, (4, 1, 2, 2))
        return sample(
            lambda x, t: np.concatenate([0.1 * x, x], 1),
            make_sampler(name, 5),
            latents,
            1.0,
            generators,
            lambda x: None,
        )

    both = run([3, 5])
    np.testing.assert_array_equal(both[:1], run([3]))
    np.testing.assert_array_equal(both[1:], run([5]))
    assert not np.array_equal(both[0], both[1])


def test_numbers_that_explode_are_named() -> None:
    def network(x: np.ndarray, timestep: float) -> np.ndarray:
        return np.concatenate([np.zeros_like(x), x, x, x]).reshape(2, 8, 1, 2, 2)

    with (
        np.errstate(all="ignore"),
        pytest.raises(ValueError, match=r"guidance_scale 1e\+38 overflowed"),
    ):
        sample(
            network,
            make_sampler("DDIM", 3),
            np.full((1, 4, 1, 2, 2), 1e30, np.float32),
            1e38,
            [],
            lambda x: None,
        )
