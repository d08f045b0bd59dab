"""Tables of the diffusion process in float64: linear betas, respacing, and what follows from them."""

from functools import lru_cache

import numpy as np

TRAIN_STEPS = 1000
BETA_START = 1e-4
BETA_END = 0.02


def linear_betas(start: float = BETA_START, end: float = BETA_END, steps: int = TRAIN_STEPS) -> np.ndarray:
    """Variances of the forward process (DDPM, arXiv:2006.11239, section 4): (steps,)."""
    return np.linspace(start, end, steps, dtype=np.float64)


def signal_and_noise(timesteps: np.ndarray) -> np.ndarray:
    """Factors of signal and noise in latents at training timesteps (B,): float32 (B, 2).

    They are sqrt(a) and sqrt(1 - a) of arXiv:2006.11239, equation 4; log a of a fractional timestep is
    interpolated.
    """
    logs = _log_alphas_cumprod()
    log = np.interp(timesteps, np.arange(len(logs)), logs)
    return np.stack((np.exp(log / 2), np.sqrt(-np.expm1(log))), -1).astype(np.float32)


@lru_cache(maxsize=1)
def _log_alphas_cumprod() -> np.ndarray:
    return np.cumsum(np.log1p(-linear_betas()))


def space_timesteps(respacing: str, train_steps: int = TRAIN_STEPS) -> np.ndarray:
    """The training timesteps of a shortened process, ascending: (n,) int64.

    respacing: one of
        ""          all timesteps
        "ddimN"     N timesteps with one integer stride (DDIM, arXiv:2010.02502)
        "10,15,20"  this many evenly spaced timesteps, ends included, from each of three equal sections
                    (Improved DDPM, arXiv:2102.09672, section 4); any number of sections

    Raises ValueError for a respacing that does not fit.
    """
    if respacing == "":
        return np.arange(train_steps)
    if respacing.startswith("ddim"):
        return _one_stride(_count(respacing[4:], respacing), train_steps, respacing)
    counts = [_count(part, respacing) for part in respacing.split(",")]
    base, longer = divmod(train_steps, len(counts))
    timesteps: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        size = base + (section < longer)
        if count > size:
            raise ValueError(
                f"respacing {respacing!r} takes {count} timesteps from a section of {size}: "
                f"use at most {size}"
            )
        timesteps += _evenly_spaced(start, size, count)
        start += size
    return np.array(timesteps, dtype=np.int64)


def _count(text: str, respacing: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(
            f"respacing {respacing!r} is invalid: use '', or counts such as '250', '10,15,20' or 'ddim25'"
        )
    return int(text)


def _one_stride(count: int, train_steps: int, respacing: str) -> np.ndarray:
    for stride in range(1, train_steps):
        timesteps = np.arange(0, train_steps, stride)
        if len(timesteps) == count:
            return timesteps
    raise ValueError(
        f"respacing {respacing!r}: no integer stride gives exactly {count} of {train_steps} timesteps; "
        f"use 'ddim50' or '{count}'"
    )


def _evenly_spaced(start: int, size: int, count: int) -> list[int]:
    stride = (size - 1) / (count - 1) if count > 1 else 1.0
    timesteps = []
    position = 0.0
    # A sum, rounded half to even, as in the reference: a product would round some timesteps the other way.
    for _ in range(count):
        timesteps.append(start + round(position))
        position += stride
    return timesteps


class Schedule:
    """Tables of the forward process and its posterior, each (num_timesteps,) float64.

    See arXiv:2006.11239, equations 4 to 7. `timestep_map` holds the training timestep of each step, which is
    the network's input.
    """

    def __init__(self, respacing: str = "") -> None:
        self.timestep_map = space_timesteps(respacing)
        self.num_timesteps = len(self.timestep_map)
        alphas_cumprod = np.cumprod(1.0 - linear_betas())[self.timestep_map]
        self.betas = 1.0 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
        self.alphas_cumprod = np.cumprod(1.0 - self.betas)
        self.alphas_cumprod_prev = np.append(1.0, self.alphas_cumprod[:-1])
        self.alphas_cumprod_next = np.append(self.alphas_cumprod[1:], 0.0)

        self.sqrt_alphas_cumprod = np.sqrt(self.alphas_cumprod)
        self.sqrt_one_minus_alphas_cumprod = np.sqrt(1.0 - self.alphas_cumprod)
        self.log_one_minus_alphas_cumprod = np.log(1.0 - self.alphas_cumprod)
        self.sqrt_recip_alphas_cumprod = np.sqrt(1.0 / self.alphas_cumprod)
        self.sqrt_recipm1_alphas_cumprod = np.sqrt(1.0 / self.alphas_cumprod - 1.0)

        self.posterior_variance = self.betas * (1.0 - self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)
        # The first posterior variance is zero, so the logarithm takes the second instead.
        first = self.posterior_variance[1] if self.num_timesteps > 1 else self.betas[0]
        self.posterior_log_variance_clipped = np.log(np.append(first, self.posterior_variance[1:]))
        self.posterior_mean_coef1 = (
            self.betas * np.sqrt(self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)
        )
        self.posterior_mean_coef2 = (
            (1.0 - self.alphas_cumprod_prev) * np.sqrt(1.0 - self.betas) / (1.0 - self.alphas_cumprod)
        )
