import numpy as np
import pytest

from opensora.data.dataset import collate
from tests.reference import load

SETTINGS = {
    "max_image_size": 32,
    "ae_stride": 8,
    "ae_stride_t": 4,
    "patch_size": 2,
    "num_frames": 9,
    "use_image_num": 2,
}


@pytest.fixture(scope="module")
def reference():
    return load("extras/collate")


@pytest.fixture
def samples(reference):
    masks = reference["out.cond_mask"]
    return [
        {
            "video_data": {
                "video": reference[f"in{i}.video"],
                "input_ids": reference[f"in{i}.vid_ids"],
                "cond_mask": masks[i, :1],
            },
            "image_data": {
                "image": [reference[f"in{i}.image{n}"] for n in range(2)],
                "input_ids": reference[f"in{i}.img_ids"],
                "cond_mask": masks[i, 1:],
            },
        }
        for i in range(2)
    ]


def test_videos_with_images_match_the_reference(samples, reference):
    batch = collate(samples, **SETTINGS)
    for name, value in batch._asdict().items():
        expected = reference[f"out.{name}"]
        assert value.dtype == expected.dtype and np.array_equal(value, expected), name


def test_videos_alone(samples, reference):
    batch = collate(samples, **{**SETTINGS, "use_image_num": 0})
    assert np.array_equal(batch.pixels, reference["out.pixels"][:, :, :9])
    assert np.array_equal(batch.attention_mask, reference["out.attention_mask"][:, :3])
    assert np.array_equal(batch.input_ids, reference["out.input_ids"][:, :1])


def test_images_alone(samples, reference):
    batch = collate(samples, **{**SETTINGS, "num_frames": 1})
    assert np.array_equal(batch.pixels, reference["out.pixels"][:, :, 9:])
    assert np.array_equal(batch.attention_mask, reference["out.attention_mask"][:, 3:])
    assert np.array_equal(batch.cond_mask, reference["out.cond_mask"][:, 1:])


def test_short_videos_are_padded_in_time(samples):
    samples[1]["video_data"]["video"] = samples[1]["video_data"]["video"][:, :4]
    batch = collate(samples, **{**SETTINGS, "use_image_num": 0})
    assert batch.pixels.shape == (2, 3, 9, 32, 32) and not batch.pixels[1, :, 4:].any()
    assert batch.attention_mask[1].max(axis=(1, 2)).tolist() == [1, 1, 0]


def test_sizes_that_do_not_divide_grow_to_whole_patches(samples):
    batch = collate(samples, **{**SETTINGS, "max_image_size": 33, "num_frames": 10})
    assert batch.pixels.shape == (2, 3, 13 + 2, 48, 48) and batch.attention_mask.shape == (2, 4 + 2, 6, 6)


def test_samples_that_are_too_large_are_explained(samples):
    with pytest.raises(ValueError, match="9x32x20 is larger than the batch's 9x16x16"):
        collate(samples, **{**SETTINGS, "max_image_size": 16})
