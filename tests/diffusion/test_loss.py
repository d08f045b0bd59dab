import mindspore as ms
import numpy as np
import pytest

from opensora.diffusion import GaussianDiffusion
from opensora.diffusion.loss import loss_terms
from opensora.engine import ENGINES, choose_training_engine
from opensora.engine.block import Block, Weights
from tests import reference

TENSORS = reference.load("diffusion/gaussian")
T = TENSORS["t"]
MODES = [("clip", True), ("noclip", False)]


@Block
def loss_block(w: Weights, *inputs: ms.Tensor) -> tuple[ms.Tensor, ...]:
    return loss_terms(*inputs)


def tensor(name: str) -> ms.Tensor:
    return ms.Tensor(TENSORS[name])


def close(value: ms.Tensor, name: str, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(value.asnumpy(), TENSORS[name], rtol=rtol, atol=atol)


@pytest.fixture(scope="module")
def diffusion() -> GaussianDiffusion:
    return GaussianDiffusion()


@pytest.mark.parametrize("case", ["nokw", "ones"])
@pytest.mark.parametrize("engine", [None, *ENGINES])
def test_loss_terms(diffusion: GaussianDiffusion, case: str, engine: str | None) -> None:
    """Operator by operator, and compiled by each engine."""
    mask = ms.ops.ones((6, 5, 8, 8), ms.float32) if case == "ones" else None
    inputs = (
        tensor("model_output"),
        tensor("x_start"),
        tensor("noise"),
        diffusion.loss_coefficients(T),
        mask,
    )
    if engine is None:
        terms = loss_terms(*inputs)
    else:
        terms = choose_training_engine(engine).call(loss_block, {}, *inputs)
    for name, value in zip(("loss", "mse", "vb"), terms, strict=True):
        close(value, f"{case}.{name}", atol=0.0)


def test_padded_loss_is_the_mean_over_kept_elements(diffusion: GaussianDiffusion) -> None:
    # The reference divides the masked sum by the count of all elements.
    kept = TENSORS["mask_padded"].mean(axis=(1, 2, 3))
    terms = diffusion.loss(
        tensor("model_output"), tensor("x_start"), ms.Tensor(T), tensor("noise"), tensor("mask_padded")
    )
    for name, value in zip(("loss", "mse", "vb"), terms, strict=True):
        np.testing.assert_allclose(value.asnumpy(), TENSORS[f"padded.{name}"] / kept, rtol=1e-5)


def test_sample_without_kept_elements_has_no_loss(diffusion: GaussianDiffusion) -> None:
    mask = np.ones((6, 5, 8, 8), np.float32)
    mask[2] = 0.0
    loss = diffusion.loss(tensor("model_output"), tensor("x_start"), T, tensor("noise"), ms.Tensor(mask))[
        0
    ].asnumpy()
    assert loss[2] == 0.0
    assert np.isfinite(loss).all()


def loss_per_element(schedule: GaussianDiffusion, output: np.ndarray, detached: np.ndarray) -> np.ndarray:
    """The loss in float64: mse of `output` plus the bound, whose mean comes from the noise in `detached`."""
    t = T.reshape(-1, 1, 1, 1, 1)
    x_start, noise = TENSORS["x_start"].astype(np.float64), TENSORS["noise"].astype(np.float64)
    x_t = schedule.sqrt_alphas_cumprod[t] * x_start + schedule.sqrt_one_minus_alphas_cumprod[t] * noise
    pred = schedule.sqrt_recip_alphas_cumprod[t] * x_t - schedule.sqrt_recipm1_alphas_cumprod[t] * detached
    coef1, coef2 = schedule.posterior_mean_coef1[t], schedule.posterior_mean_coef2[t]
    mean, true_mean = coef1 * pred + coef2 * x_t, coef1 * x_start + coef2 * x_t
    low, high = schedule.posterior_log_variance_clipped[t], np.log(schedule.betas[t])
    place = (output[:, 4:] + 1.0) / 2.0
    log_variance = place * high + (1.0 - place) * low
    divergence = 0.5 * (
        -1.0
        + log_variance
        - low
        + np.exp(low - log_variance)
        + (true_mean - mean) ** 2 * np.exp(-log_variance)
    )

    def cdf(x: np.ndarray) -> np.ndarray:
        return 0.5 * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))

    upper = cdf(np.exp(-0.5 * log_variance) * (x_start - mean + 1.0 / 255.0))
    lower = cdf(np.exp(-0.5 * log_variance) * (x_start - mean - 1.0 / 255.0))
    probability = np.where(x_start < -0.999, upper, np.where(x_start > 0.999, 1.0 - lower, upper - lower))
    bound = np.where(
        t == 0, -np.log(np.where(probability.real > 1e-12, probability, 1e-12)), divergence
    ) / np.log(2.0)
    return (output[:, :4] - noise) ** 2 + bound


@pytest.mark.parametrize("jitted", [False, True])
def test_gradient_of_the_loss(diffusion: GaussianDiffusion, jitted: bool) -> None:
    output = TENSORS["model_output"].astype(np.float64)
    coefficients = diffusion.loss_coefficients(T)

    def total(
        model_output: ms.Tensor, x_start: ms.Tensor, noise: ms.Tensor, coefficients: ms.Tensor
    ) -> ms.Tensor:
        return loss_terms(model_output, x_start, noise, coefficients)[0].mean()

    function = ms.value_and_grad(total)
    loss, gradient = (ms.jit(function) if jitted else function)(
        tensor("model_output"), tensor("x_start"), tensor("noise"), coefficients
    )
    np.testing.assert_allclose(loss.asnumpy(), TENSORS["nokw.loss"].mean(), rtol=1e-5)

    # Complex-step derivatives. Elements are independent, so all of a half of the channels move at once.
    for half in (slice(0, 4), slice(4, 8)):
        moved = output.astype(np.complex128)
        moved[:, half] += 1e-30j
        wanted = loss_per_element(diffusion, moved, output[:, :4]).imag / 1e-30 / output[:, :4].size
        for i in range(len(T)):
            error = np.abs(gradient.asnumpy()[i, half] - wanted[i]).max()
            assert error <= 1e-5 * np.abs(wanted[i]).max(), (T[i], half)


def test_bound_is_detached_from_the_noise_prediction(diffusion: GaussianDiffusion) -> None:
    def term(index: int) -> np.ndarray:
        def total(model_output: ms.Tensor) -> ms.Tensor:
            return diffusion.loss(model_output, tensor("x_start"), T, tensor("noise"))[index].sum()

        return ms.grad(total)(tensor("model_output")).asnumpy()

    mse, bound = term(1), term(2)
    assert (bound[:, :4] == 0.0).all()
    assert np.abs(bound[:, 4:]).max() > 0.0
    assert (mse[:, 4:] == 0.0).all()


def test_loss_stays_finite_for_a_bad_prediction(diffusion: GaussianDiffusion) -> None:
    output = ms.Tensor(TENSORS["model_output"] * 30.0)

    def total(model_output: ms.Tensor) -> ms.Tensor:
        return diffusion.loss(model_output, tensor("x_start"), T, tensor("noise"))[0].mean()

    loss, gradient = ms.value_and_grad(total)(output)
    assert np.isfinite(loss.asnumpy())
    assert np.isfinite(gradient.asnumpy()).all()


def test_min_snr_weights_count_what_is_noisy_alike_and_have_mean_one(diffusion: GaussianDiffusion) -> None:
    weight = diffusion.snr_weight(np.arange(1000), gamma=5.0)
    ratio = diffusion.alphas_cumprod / (1 - diffusion.alphas_cumprod)
    assert weight.mean() == pytest.approx(1.0, rel=1e-5)
    assert np.ptp(weight[ratio < 5]) == 0
    np.testing.assert_allclose((weight * ratio)[ratio > 5], 5 * weight[-1], rtol=1e-5)


def test_q_sample(diffusion: GaussianDiffusion) -> None:
    close(diffusion.q_sample(tensor("x_start"), ms.Tensor(T), tensor("noise")), "q_sample")


def test_q_posterior(diffusion: GaussianDiffusion) -> None:
    values = diffusion.q_posterior(tensor("x_start"), tensor("q_sample"), T)
    for name, value in zip(("mean", "variance", "log_variance"), values, strict=True):
        close(value, f"q_posterior.{name}")


@pytest.mark.parametrize(("mode", "clip"), MODES)
def test_p_mean_variance(diffusion: GaussianDiffusion, mode: str, clip: bool) -> None:
    out = diffusion.p_mean_variance(tensor("model_output"), tensor("q_sample"), T, clip_denoised=clip)
    for name, value in out.items():
        close(value, f"p_mean_variance.{mode}.{name}", atol=0.0 if name == "variance" else 1e-6)


@pytest.mark.parametrize(("mode", "clip"), MODES)
def test_p_sample(diffusion: GaussianDiffusion, mode: str, clip: bool) -> None:
    noise = tensor(f"p_sample.{mode}.noise")
    out = diffusion.p_sample(tensor("model_output"), tensor("q_sample"), T, clip_denoised=clip, noise=noise)
    close(out["sample"], f"p_sample.{mode}.sample")
    close(out["pred_xstart"], f"p_mean_variance.{mode}.pred_xstart")


@pytest.mark.parametrize(("mode", "clip"), MODES)
@pytest.mark.parametrize(("name", "eta"), [("eta0", 0.0), ("eta05", 0.5)])
def test_ddim_sample(diffusion: GaussianDiffusion, mode: str, clip: bool, name: str, eta: float) -> None:
    noise = tensor(f"p_sample.{mode}.noise") if eta else None
    out = diffusion.ddim_sample(
        tensor("model_output"), tensor("q_sample"), T, clip_denoised=clip, eta=eta, noise=noise
    )
    close(out["sample"], f"ddim_sample.{mode}.{name}")


def test_ddim_sample_without_its_noise(diffusion: GaussianDiffusion) -> None:
    with pytest.raises(ValueError, match=r"eta 0\.5 adds noise"):
        diffusion.ddim_sample(tensor("model_output"), tensor("q_sample"), T, eta=0.5)


def test_prior_bpd(diffusion: GaussianDiffusion) -> None:
    close(diffusion.prior_bpd(tensor("x_start")), "prior_bpd", atol=0.0)


def test_respaced_sampling_loop_gives_the_network_training_timesteps() -> None:
    respaced = GaussianDiffusion("10")
    seen = []

    def network(x: ms.Tensor, timesteps: ms.Tensor) -> ms.Tensor:
        seen.append(int(timesteps.asnumpy()[0]))
        x = x.asnumpy()
        return ms.Tensor(
            np.concatenate([0.1 * x * np.cos(np.float32(seen[-1] / 1000)), 0.5 * np.tanh(x)], axis=1)
        )

    x = tensor("loop.x_T")
    for i, wanted in enumerate(TENSORS["loop.samples"]):
        noise = ms.Tensor(TENSORS["loop.noises"][i])
        x = respaced.p_sample(network, x, np.array([9 - i]), clip_denoised=False, noise=noise)["sample"]
        np.testing.assert_allclose(x.asnumpy(), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    assert seen == TENSORS["loop.model_t"].tolist()
