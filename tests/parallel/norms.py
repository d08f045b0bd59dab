"""A discriminator whose batch norms cover the clips of all processes gives the result of a single process."""

import numpy as np

from opensora.models.discriminator import Discriminator
from opensora.parallel.collectives import LinearMap, ProcessGroup
from opensora.runtime import mindspore

ms = mindspore()


def check_norms(group: ProcessGroup) -> None:
    rng = np.random.default_rng(0)
    discriminator = Discriminator.initialise(3, rng, layers=2, width=4)
    clips = rng.standard_normal((group.size, 3, 5, 24, 24), np.float32)
    slopes = rng.standard_normal((group.size, 1, 2, 6, 6), np.float32)
    expected = _pass(discriminator, clips, slopes)

    def mean(value: object) -> object:
        return group.all_reduce(value) / group.size

    discriminator.all_reduce_mean, discriminator.devices = LinearMap(mean, mean), group.size
    own = slice(group.index, group.index + 1)
    found = _pass(discriminator, clips[own], slopes[own])
    for name, value in expected.items():
        if name in ("logits", "by_clip"):
            value = value[own]
        if name.startswith("gradient "):  # each process has its summand
            found[name] = group.all_reduce(ms.Tensor(found[name])).asnumpy()
        np.testing.assert_allclose(
            found[name], value, rtol=0, atol=1e-5 * np.abs(expected[name]).max(), err_msg=name
        )


def _pass(discriminator: Discriminator, clips: np.ndarray, slopes: np.ndarray) -> dict[str, np.ndarray]:
    """Forward and backward, for a loss with these slopes by the logits."""
    video = ms.Tensor(clips)
    logits, statistics, tape = discriminator.forward_with_tape(video)
    gradients, (by_clip,) = tape.gradients([(logits, ms.Tensor(slopes))], wanted=[video])
    named = {"logits": logits, "by_clip": by_clip, **statistics}
    named |= {f"gradient {name}": value for name, value in gradients.items()}
    return {name: value.asnumpy() for name, value in named.items()}
