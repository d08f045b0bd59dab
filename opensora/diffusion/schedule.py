"""Float64 tables of the diffusion process: linear betas, respacing, and everything that follows from them."""

import numpy as np

TRAIN_STEPS = 1000
BETA_START = 1e-4
BETA_END = 0.02


def linear_betas(start: float = BETA_START, end: float = BETA_END, steps: int = TRAIN_STEPS) -> np.ndarray:
    """Variances of the forward process (DDPM, arXiv:2006.11239, section 4): (steps,)."""
    return np.linspace(start, end, steps, dtype=np.float64)


def space_timesteps(respacing: str, train_steps: int = TRAIN_STEPS) -> np.ndarray:
    """The training timesteps that a shortened process keeps, ascending: (n,) int64.

    `respacing` is "" (all), "ddimN" (N timesteps with one whole stride, as in DDIM, arXiv:2010.02502), or counts such as
    "10,15,20": the process is cut in as many equal sections and each keeps that many evenly spread timesteps, its ends
    included (Improved DDPM, arXiv:2102.09672, section 4). Raises ValueError when the timesteps cannot be spread so.
    """
    if respacing == "":
        return np.arange(train_steps)
    if respacing.startswith("ddim"):
        return _one_stride(_count(respacing[4:], respacing), train_steps, respacing)
    counts = [_count(part, respacing) for part in respacing.split(",")]
    base, longer = divmod(train_steps, len(counts))
    kept: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        size = base + (section < longer)
        if count > size:
            raise ValueError(
                f"respacing {respacing!r} asks for {count} timesteps out of a section of {size}: use at most {size}"
            )
        kept += _spread(start, size, count)
        start += size
    return np.array(kept, dtype=np.int64)


def _count(text: str, respacing: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(
            f"respacing {respacing!r} is not understood: use '' or counts such as '250', '10,15,20' or 'ddim25'"
        )
    return int(text)


def _one_stride(count: int, train_steps: int, respacing: str) -> np.ndarray:
    for stride in range(1, train_steps):
        kept = np.arange(0, train_steps, stride)
        if len(kept) == count:
            return kept
    raise ValueError(
        f"respacing {respacing!r}: no whole stride takes exactly {count} of {train_steps} timesteps; try 'ddim50' or '{count}'"
    )


def _spread(start: int, size: int, count: int) -> list[int]:
    stride = (size - 1) / (count - 1) if count > 1 else 1.0
    kept = []
    position = 0.0
    # Added up and rounded half to even as the reference does: a product would round some timesteps the other way.
    for _ in range(count):
        kept.append(start + round(position))
        position += stride
    return kept


class Schedule:
    """The tables of a forward process and its posterior, each (num_timesteps,) float64 (arXiv:2006.11239, equations 4 to 7).

    `timestep_map` holds the training timestep that each kept step stands for: it is what the network must be given.
    """

    def __init__(self, respacing: str = "") -> None:
        self.timestep_map = space_timesteps(respacing)
        kept = np.cumprod(1.0 - linear_betas())[self.timestep_map]
        self.num_timesteps = len(kept)
        self.betas = 1.0 - kept / np.append(1.0, kept[:-1])
        self.alphas_cumprod = np.cumprod(1.0 - self.betas)
        self.alphas_cumprod_prev = np.append(1.0, self.alphas_cumprod[:-1])
        self.alphas_cumprod_next = np.append(self.alphas_cumprod[1:], 0.0)

        self.sqrt_alphas_cumprod = np.sqrt(self.alphas_cumprod)
        self.sqrt_one_minus_alphas_cumprod = np.sqrt(1.0 - self.alphas_cumprod)
        self.log_one_minus_alphas_cumprod = np.log(1.0 - self.alphas_cumprod)
        self.sqrt_recip_alphas_cumprod = np.sqrt(1.0 / self.alphas_cumprod)
        self.sqrt_recipm1_alphas_cumprod = np.sqrt(1.0 / self.alphas_cumprod - 1.0)

        self.posterior_variance = self.betas * (1.0 - self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)
        # The first posterior variance is zero: its logarithm is replaced by the next one's.
        first = self.posterior_variance[1] if self.num_timesteps > 1 else self.betas[0]
        self.posterior_log_variance_clipped = np.log(np.append(first, self.posterior_variance[1:]))
        self.posterior_mean_coef1 = (
            self.betas * np.sqrt(self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)
        )
        self.posterior_mean_coef2 = (
            (1.0 - self.alphas_cumprod_prev) * np.sqrt(1.0 - self.betas) / (1.0 - self.alphas_cumprod)
        )
