"""Which frames, images and captions a rank holds, and what it is worth."""

from typing import Any

import mindspore as ms
import numpy as np
import pytest

from opensora.parallel.collectives import ProcessGroup
from opensora.parallel.sequence import (
    ShardedWorkSharing,
    expand_to_all_captions,
    local_batch,
    local_frames,
    local_shard,
    valid_frames,
)


def ranks(size: int) -> list[ProcessGroup]:
    return [ProcessGroup(range(size), rank) for rank in range(size)]


@pytest.mark.parametrize(
    ("frames", "images", "size"), [(5, 2, 2), (7, 0, 4), (17, 3, 4), (1, 0, 2), (3, 1, 4)]
)
def test_every_frame_and_image_is_held_once(frames: int, images: int, size: int) -> None:
    numbers = np.arange(1, frames + images + 1)
    parts = [local_frames(numbers, 0, frames, group) for group in ranks(size)]
    assert len({len(part) for part in parts}) == 1
    places = [valid_frames(frames, images, group) for group in ranks(size)]
    held = np.concatenate([part[place] for part, place in zip(parts, places, strict=True)])
    assert sorted(held) == numbers.tolist()
    assert all((part[~place] == 0).all() for part, place in zip(parts, places, strict=True))
    videos = np.concatenate([local_shard(numbers[:frames], 0, group) for group in ranks(size)])
    assert videos[:frames].tolist() == numbers[:frames].tolist() and not videos[frames:].any()


def test_shares_of_a_sample_add_up_to_one_and_captions_follow_their_images() -> None:
    rng = np.random.default_rng(0)
    mask = (rng.random((2, 8, 4, 4)) < 0.5).astype(np.float32)
    text = rng.standard_normal((2, 4, 6, 3), np.float32)  # one for the video, three for images
    batch = {
        "latents": np.ones((2, 4, 8, 4, 4), np.float32), "noise": np.ones((2, 4, 8, 4, 4), np.float32),
        "timestep": np.array([1, 2]),
        "latent_mask": mask, "text_embeds": text, "num_images": 3,
    }  # fmt: skip
    own = [local_batch(batch, group) for group in ranks(2)]
    np.testing.assert_allclose(sum(part["share"] for part in own), 1.0, rtol=1e-6)
    assert sum(part["latent_mask"].sum() for part in own) == mask.sum()
    for part in own:
        assert (
            part["latents"].shape[2] == 3 + 2
            and part["num_images"] == 2
            and part["text_embeds"].shape[1] == 3
        )
        np.testing.assert_array_equal(part["text_embeds"][:, 0], text[:, 0])
    np.testing.assert_array_equal(own[1]["text_embeds"][:, 1], text[:, 3])
    together = sum(
        expand_to_all_captions(part["text_embeds"], 3, group)
        for part, group in zip(own, ranks(2), strict=True)
    )
    np.testing.assert_array_equal(together[:, 1:], text[:, 1:])
    np.testing.assert_array_equal(together[:, 0], 2 * text[:, 0])


def test_shared_work_keeps_its_order_and_a_short_last_turn_repeats_an_item() -> None:
    computed = []

    class Last(ProcessGroup):
        """Rank 2 of three, where ranks 0 and 1 computed the items before its own."""

        def all_gather(self, x: Any) -> Any:
            return ms.ops.concat([x - 2 + rank for rank in range(3)])

    def compute(item: int) -> tuple[np.ndarray]:
        computed.append(item)
        return (np.array([float(item)]),)

    found = list(ShardedWorkSharing(Last((0, 1, 2), 2)).map(compute, range(4)))
    assert computed == [2, 3] and [item for item, _ in found] == [0, 1, 2, 3]
    assert [value[0].item() for _, value in found[:3]] == [0.0, 1.0, 2.0]
