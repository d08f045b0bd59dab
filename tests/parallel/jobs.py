"""What each process of a test's job does: `python -m tests.parallel.jobs <function> <arguments>`."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from opensora.engine.mindspore import Tape, set_jit
from opensora.models.causal_vae import chunked as causal_vae_chunked
from opensora.models.causal_vae.model import CausalVAE, CausalVAEConfig
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.latte.config import LatteConfig
from opensora.models.latte.model import LatteT2V
from opensora.nn.exchange import WorkSharing
from opensora.nn.flat import ParameterSharding
from opensora.parallel import collectives
from opensora.parallel.mesh import Mesh, open_mesh
from opensora.parallel.sequence import (
    ShardedFrameExchange,
    ShardedWorkSharing,
    gather_frames,
    local_batch,
    local_shard,
)
from opensora.parallel.zero import ReplicatedParameters, ShardedParameters
from opensora.runtime import mindspore
from opensora.train.loop import train
from opensora.train.muon import make_optimizer
from opensora.train.optim import Optimizer
from opensora.train.options import LoopOptions, OptimizerOptions
from opensora.train.t2v.step import step_gradients
from tests.parallel.files import check_files
from tests.parallel.norms import check_norms
from tests.train.toy import Toy

ms = mindspore()
TIMEOUT = 8.0
"""Seconds that a rank of a fragile job may stand still."""
TINY = LatteConfig(
    num_layers=1, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16, caption_channels=8,
    sample_size=(4, 6),
    video_length=5,
)  # fmt: skip


def together(processes: str, model: str, files: str, *cases: str) -> None:
    """`groups`, `gradients`, files shared out and batch norms of all clips, in one job."""
    with open_mesh(sequence=2) as mesh:
        check_groups(mesh, int(processes))
        check_files(mesh, Path(model), Path(files))
        check_frames(mesh.sequence, cases)
        check_norms(mesh.world)


def groups(processes: str) -> None:
    with open_mesh(sequence=2) as mesh:
        check_groups(mesh, int(processes))


def gradients(processes: str, *cases: str) -> None:
    with open_mesh(sequence=int(processes)) as mesh:
        check_frames(mesh.sequence, cases)


def check_groups(mesh: Mesh, processes: int) -> None:
    """Groups, collectives, their gradients, and optimizers that share their states."""
    assert mesh.size == processes and mesh.data == (mesh.rank // 2, mesh.size // 2)
    assert mesh.sequence.ranks == tuple(range(mesh.rank // 2 * 2, mesh.rank // 2 * 2 + 2)) == mesh.team.ranks
    check_collectives(mesh.world)
    check_collectives(mesh.sequence)
    check_gradients(mesh.sequence)
    check_optimizers(mesh)
    check_turns(mesh.sequence)


def check_collectives(group: collectives.ProcessGroup) -> None:
    n, rank = group.size, group.index
    everyone = np.stack(
        [np.random.default_rng(i).standard_normal((2 * n, 3), np.float32) for i in range(n)]
    )  # (n, 2n, 3)
    mine, sent = ms.Tensor(everyone[rank]), group.sent
    np.testing.assert_allclose(group.all_reduce(mine).asnumpy(), everyone.sum(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(group.all_gather(mine).asnumpy(), everyone.reshape(-1, 3))
    scattered = everyone.sum(0)[2 * rank : 2 * rank + 2]
    np.testing.assert_allclose(group.reduce_scatter(mine).asnumpy(), scattered, rtol=1e-6, atol=1e-6)
    exchanged = everyone.reshape(n, n, 2, 3)[:, rank].reshape(-1, 3)
    np.testing.assert_array_equal(group.all_to_all(mine).asnumpy(), exchanged)
    assert group.sent - sent == sum(
        int(share * mine.nbytes) for share in (2 * (n - 1) / n, n - 1, (n - 1) / n, (n - 1) / n)
    )
    assert group.agree(rank) == list(range(n))


def check_gradients(group: collectives.ProcessGroup) -> None:
    """<A x, y> = <x, A^T y>, summed over the group, for each collective A and its gradient A^T."""
    rng = np.random.default_rng(100 + group.index)
    for make in (
        collectives.all_reduce,
        collectives.all_gather,
        collectives.reduce_scatter,
        collectives.all_to_all,
    ):
        x, tape = ms.Tensor(rng.standard_normal((4, 3), np.float32)), Tape({})
        output = tape(make(group), "", x)
        y = rng.standard_normal(output.shape, np.float32)
        _, (by_x,) = tape.gradients([(output, ms.Tensor(y))], wanted=[x])
        forward, backward = float((output.asnumpy() * y).sum()), float((x.asnumpy() * by_x.asnumpy()).sum())
        totals = np.sum(group.agree([forward, backward]), 0)
        np.testing.assert_allclose(*totals, rtol=1e-5, atol=1e-5)


def check_optimizers(mesh: Mesh) -> None:
    """Three clipped steps with replicated and with sharded states give the weights of a single process.

    Once with AdamW for everything, once with Muon for one of the matrices, which has one moment only.
    """
    for name in ("adamw", "muon"):
        _check_optimizer(mesh, name)


# Length and number of moments of each group of weights in `_check_optimizer`.
MOMENTS = {"adamw": ((7, 2), (15 + 4, 2)), "muon": ((7, 2), (4, 2), (15, 1))}


def _check_optimizer(mesh: Mesh, name: str) -> None:
    shapes = {
        "mid.a.weight": (3, 5),
        "b.weight": (2, 2),
        "c.bias": (7,),
    }  # lengths that the ranks do not divide
    options = OptimizerOptions(
        optim=name, learning_rate=0.1, lr_warmup_steps=0, optim_eps=1e-4, max_grad_norm=0.5
    )
    ends = []
    for sharding in (ReplicatedParameters(mesh), ShardedParameters(mesh), ParameterSharding()):
        optimizer = make_optimizer(options, 3, sharding)
        weights = {name: ms.Tensor(np.ones(shape, np.float32)) for name, shape in shapes.items()}
        for step in range(3):
            each = [
                {
                    name: np.random.default_rng([step, rank, i]).standard_normal(shape)
                    for i, (name, shape) in enumerate(shapes.items())
                }
                for rank in range(mesh.size)
            ]
            # Ranks of a team hold summands, teams are averaged.
            mean = {name: sum(one[name] for one in each) / mesh.data[1] for name in shapes}
            chosen = (
                each[mesh.rank] if isinstance(sharding, ReplicatedParameters | ShardedParameters) else mean
            )
            norm, _ = optimizer.update(
                weights, {name: ms.Tensor(value.astype(np.float32)) for name, value in chosen.items()}
            )
            expected = np.sqrt(sum(float(np.square(value).sum()) for value in mean.values()))
            np.testing.assert_allclose(norm, expected, rtol=1e-5)
        ends.append(np.concatenate([value.asnumpy().ravel() for value in weights.values()]))
        expected = sum(-(-length // sharding.ranks) * moments for length, moments in MOMENTS[options.optim])
        assert _state_size(optimizer) == expected
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ends[0], ends[2], rtol=0, atol=1e-5)


def _state_size(optimizer: Optimizer) -> int:
    """Elements of the moments that this process holds, as its file of a checkpoint has them."""
    with tempfile.TemporaryDirectory() as folder:
        optimizer.write_shard(Path(folder))
        (file,) = Path(folder).iterdir()
        return sum(value.size for name, value in load_file(file).items() if name != "step")


def check_turns(group: collectives.ProcessGroup) -> None:
    """An autoencoder whose chunks of frames are shared gives the bytes of one that computes all of them."""
    causal_vae_chunked.CHUNK_BYTES = 4 * 16 * 16 * 16  # type: ignore[misc]  # a frame or two
    config = CausalVAEConfig(
        hidden_size=16, hidden_size_mult=(1, 1, 1, 1), num_res_blocks=1, norm_num_groups=4
    )
    rng = np.random.default_rng(0)
    vae = CausalVAE.initialise(config, rng)
    vae.policy = VAEPolicy(chunked=True)
    video = ms.Tensor(rng.standard_normal((1, 3, 13, 16, 16), np.float32))
    results = []
    for sharing in (WorkSharing(), ShardedWorkSharing(group)):
        vae.sharing = sharing
        moments = vae.encode(video).moments
        results.append((moments.asnumpy(), vae.decode(moments[:, :4]).asnumpy()))
    for alone, shared in zip(*results, strict=True):
        np.testing.assert_array_equal(alone, shared)


def check_frames(group: collectives.ProcessGroup, cases: Sequence[str]) -> None:
    """Loss and gradients with shared frames are those of one process. A case is `<frames>+<images>`."""
    set_jit(False)  # the blocks are not what is tested
    rng = np.random.default_rng(0)
    model = LatteT2V.initialise(TINY, rng)
    model.weights = {
        name: ms.Tensor(rng.normal(0, 0.2, value.shape).astype(np.float32))
        for name, value in model.weights.items()
    }
    for case in cases:
        frames, images = map(int, case.split("+"))
        check_shared_frames(model, random_batch(frames, images, rng), frames, group)
    video = rng.standard_normal((1, 2, 7, 3), np.float32)
    np.testing.assert_array_equal(gather_frames(local_shard(video, 2, group), 2, 7, group), video)


def random_batch(frames: int, images: int, rng: np.random.Generator) -> dict[str, Any]:
    size = (2, 4, frames + images, 4, 6)
    texts = (2, 1 + images, 7) if images else (2, 7)
    text_mask = (rng.random(texts) < 0.7).astype(np.float32)
    text_mask[..., 0] = 1.0
    return {
        "latents": rng.standard_normal(size, np.float32),
        "noise": rng.standard_normal(size, np.float32),
        "timestep": np.array([0, 700]),
        "text_embeds": rng.standard_normal((*texts, 8), np.float32),
        "text_mask": text_mask,
        "latent_mask": (rng.random((2, frames + images, 4, 6)) < 0.9).astype(np.float32),
        "num_images": images,
    }


def check_shared_frames(
    model: LatteT2V, batch: dict[str, Any], frames: int, group: collectives.ProcessGroup
) -> None:
    kept, sent = batch["num_images"] // 2, group.sent  # the last layers that keep what they compute
    exchange = ShardedFrameExchange(group, frames)
    terms, found, _ = step_gradients(
        model, local_batch(batch, group), exchange=exchange, num_no_recompute=kept
    )  # type: ignore[arg-type]
    # Five exchanges per layer of this rank's padded tokens: two forward, one recomputed, two backward.
    n, patches = group.size, 2 * 3
    tokens = 2 * -(-frames // n) * n * -(-patches // n)
    assert group.sent - sent == (5 - kept) * int((n - 1) / n * tokens * TINY.width * 4)
    names = sorted(found)
    total = {name: group.all_reduce(found[name]).asnumpy() for name in names}
    loss = group.all_reduce(terms["loss"]).asnumpy()
    if group.index == 0:
        one, expected, _ = step_gradients(model, batch)  # type: ignore[arg-type]
        np.testing.assert_allclose(loss, one["loss"].asnumpy(), rtol=1e-5)
        assert names == sorted(expected)
        largest = max(float(np.abs(value.asnumpy()).max()) for value in expected.values())
        distances = {name: np.abs(total[name] - expected[name].asnumpy()).max() / largest for name in names}
        assert max(distances.values()) <= 1e-5, distances
        print(
            f"{n} processes, {frames} frames: gradients within {max(distances.values()):.1e} of the largest",
            flush=True,
        )


class Fragile(Toy):
    """A toy run in which the second process, or the first, fails at step 5, or that takes its time."""

    def __init__(self, rank: int, how: str) -> None:
        super().__init__()
        self.how = how if rank == 1 or how == "slow" else ""
        if rank == 0 and how == "refused by the first":
            self.how = "bad input"

    def step(self, step: int, batch: np.ndarray) -> dict[str, float]:
        if step == 5 and self.how == "killed in a step":
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 5 and self.how == "suspended":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.how == "slow":
            time.sleep(0.3)
        if step == 5 and self.how == "bad input":
            raise ValueError("the fifth sample cannot be read")
        return super().step(step, batch)

    def write_shard(self, folder: Path) -> None:
        if len(self.steps) == 6 and self.how == "killed in a save":
            os.kill(os.getpid(), signal.SIGKILL)


def fragile(run: str, how: str) -> int:
    with open_mesh(timeout=TIMEOUT) as mesh:
        steps, every = (1000, 1000) if how == "slow" else (10, 2)
        options = LoopOptions(
            output_dir=run, max_train_steps=steps, checkpointing_steps=every, log_interval=1
        )
        return train(Fragile(mesh.rank, how), options, mesh)


if __name__ == "__main__":
    function: Callable[..., int | None] = globals()[sys.argv[1]]
    sys.exit(function(*sys.argv[2:]))
