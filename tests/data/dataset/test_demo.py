from pathlib import Path

import numpy as np

from opensora.data.dataset import DemoDataset
from opensora.demo_data.render import DemoClips
from opensora.media.pixels import to_pixels
from tests.demo_data.demo_cache import make_cache


def test_clips_of_the_demo_data_set_are_its_items(tmp_path: Path) -> None:
    clips = DemoClips(make_cache(tmp_path), seed=3, frames=3, size=16)
    dataset = DemoDataset(clips, num_clips=5)
    clip = clips[2]
    assert (clips.pair(2), clips.scale(2)) == (clip.pair, clip.scale)
    assert len(dataset) == 5 and dataset.captions(2) == ([clip.caption], 0)
    assert np.array_equal(dataset.clip(2), clip.video)
    for seed in (0, 1):  # the generator of a run changes nothing
        visual = dataset.visual(2, np.random.default_rng(seed))
        assert visual.shape == (3, 3, 16, 16) and np.array_equal(visual, to_pixels(clip.video[None])[0])
