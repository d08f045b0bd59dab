"""The validation loss of a denoiser."""

from collections.abc import Callable

from opensora.parallel.mesh import Mesh
from opensora.train.batches import BatchDrawer, HostBatch


class HeldOutLoss:
    """The mean squared error of the predicted noise on held-out samples.

    Noise and timesteps are the same at every validation.
    """

    def __init__(
        self,
        batches: BatchDrawer,
        error: Callable[[HostBatch, int], float],
        num_samples: int,
        batch_size: int,
        mesh: Mesh,
    ) -> None:
        """error: of a batch, whose number is that of its first sample; with several processes that share
        frames, the part in this process's frames.
        """
        self._batches, self._error, self._mesh = batches, error, mesh
        self._count, self._size = min(len(batches.data), num_samples), batch_size

    def __call__(self) -> float:
        """The mean over batches, which the teams of processes share out."""
        team, teams = self._mesh.data
        starts = range(0, max(self._count - self._size, 0) + 1, self._size)
        error = 0.0
        for first in starts[team::teams]:
            batch, _ = self._batches.draw(range(first, first + self._size), first)
            error += self._error(batch, first)
        return float(sum(self._mesh.world.agree(error))) / len(starts)
