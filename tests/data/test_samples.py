"""The draws of a run: a function of (seed, number), in every form a sample can have."""

from collections import Counter

import numpy as np
import pytest

from opensora.data.dataset import collate
from opensora.data.options import DataOptions
from opensora.data.samples import shuffled
from opensora.data.setup import make_source
from opensora.data.text.tokenizer import Tokenizer
from opensora.media.writer import write_video
from opensora.weights.folder import DEMO
from tests.data.material import grey, write_set

TOKENIZER = DEMO / "text_encoder"


def options(**changes: object) -> DataOptions:
    settings = {
        "num_frames": 5,
        "max_image_size": 16,
        "model_max_length": 8,
        "caption_dropout": 0.0,
        **changes,
    }
    return DataOptions(**settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    return {"video_data": str(write_set(folder, 6)), "image_data": str(write_set(folder, 5, "pictures"))}


def same(first: dict, second: dict) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return np.array_equal(first, second)


def test_a_draw_depends_on_seed_and_number_only(lists):
    setting = options(
        video_data=lists["video_data"], image_data=lists["image_data"], use_image_num=2, enable_flip=True
    )
    source, again = make_source(setting, 7, TOKENIZER), make_source(setting, 7, TOKENIZER)
    draws = [source.draw(number) for number in range(13)]
    assert all(same(again.draw(number), draws[number]) for number in reversed(range(13)))
    assert not same(make_source(setting, 8, TOKENIZER).draw(0), draws[0])
    assert not np.array_equal(draws[0]["video_data"]["video"], draws[6]["video_data"]["video"])


def test_every_video_and_every_picture_comes_once_an_epoch(lists):
    source = make_source(options(**lists, use_image_num=2), 0, TOKENIZER)
    assert len(source) == 6
    draws = [source.draw(number) for number in range(12)]
    for epoch in (draws[:6], draws[6:]):
        assert len({draw["paths"][0] for draw in epoch}) == 6
    pictures = [path for draw in draws for path in draw["paths"][1:]]
    assert len(set(pictures[:5])) == len(set(pictures[5:10])) == 5


def test_a_clip_is_consecutive_frames_of_the_range(tmp_path):
    data_list = write_set(tmp_path, 1, length=20)
    (tmp_path / "videos.json").write_text('[{"path": "clip, 0.mp4", "cap": "a", "frame_idx": "4:14"}]')
    source = make_source(options(video_data=str(data_list), sample_rate=2), 0, TOKENIZER)
    starts = set()
    for number in range(20):
        levels = (source.draw(number)["video_data"]["video"][0, :, 0, 0] + 1) * 127.5
        frames = np.rint(levels / 10).astype(int)
        assert (np.diff(frames) == 2).all() and frames[0] >= 4 and frames[-1] < 14
        starts.add(frames[0])
    assert starts == {4, 5}


def test_captions_are_cleaned_chosen_and_dropped(lists):
    source = make_source(options(video_data=lists["video_data"], caption_dropout=0.3), 0, TOKENIZER)
    texts = Counter()
    for number in range(60):
        text = source.draw(number)["video_data"]
        texts[tuple(text["input_ids"][0, : text["text_mask"].sum()])] += 1
    possible = ["", *(f"clip {i}{end}" for i in range(6) for end in ("", " again"))]
    ids, masks = Tokenizer.from_folder(TOKENIZER)(possible, 8)
    assert (
        set(texts) <= {tuple(row[: mask.sum()]) for row, mask in zip(ids, masks, strict=True)}
        and len(texts) > 8
    )
    assert 8 <= texts[(1,)] <= 28  # the end token alone: 0.3 of 60


def test_batches_are_what_collate_makes(lists):
    source = make_source(options(**lists, use_image_num=2, multi_scale=True), 0, TOKENIZER)
    samples = [source.draw(number) for number in range(3)]
    batch = source.join(samples)
    kinds = ("video_data", "image_data")
    renamed = [
        {kind: {**sample[kind], "cond_mask": sample[kind]["text_mask"]} for kind in kinds}
        for sample in samples
    ]
    expected = collate(renamed, max_image_size=16, num_frames=5, use_image_num=2)
    assert batch.keys() == {"pixels", "latent_mask", "input_ids", "text_mask"}
    assert np.array_equal(batch["pixels"], expected.pixels)
    assert np.array_equal(batch["latent_mask"], expected.attention_mask)
    assert np.array_equal(batch["input_ids"], expected.input_ids)
    assert np.array_equal(batch["text_mask"], expected.cond_mask)
    assert batch["pixels"].shape == (3, 3, 5 + 2, 16, 16) and batch["latent_mask"].shape == (3, 2 + 2, 2, 2)
    assert samples[0]["video_data"]["video"].shape == (3, 5, 10, 16)


def test_pictures_from_the_video(lists):
    source = make_source(
        options(video_data=lists["video_data"], use_image_num=3, use_img_from_vid=True), 0, TOKENIZER
    )
    sample = source.draw(4)
    video, pictures = sample["video_data"]["video"], sample["image_data"]["image"]
    assert all(
        np.array_equal(picture[:, 0], video[:, place])
        for picture, place in zip(pictures, (0, 2, 4), strict=True)
    )
    assert (sample["image_data"]["input_ids"] == sample["video_data"]["input_ids"]).all()
    assert source.join([sample])["input_ids"].shape == (1, 4, 8)


@pytest.mark.parametrize("names", [("image_data",), ("video_data",), ("video_data", "image_data")])
def test_pictures_alone(lists, names):
    source = make_source(
        options(**{name: lists[name] for name in names}, num_frames=1, use_image_num=2), 0, TOKENIZER
    )
    assert len(source) == (3 if names == ("video_data",) else 2)
    assert source.join([source.draw(0), source.draw(1)])["pixels"].shape == (2, 3, 2, 16, 16)


def test_flips_mirror_about_half(tmp_path, monkeypatch):
    data_list = write_set(tmp_path, 1)
    ramp = np.broadcast_to(np.arange(0, 192, 4, dtype=np.uint8)[:, None], (12, 32, 48, 3))
    monkeypatch.setattr(
        "opensora.data.clips.read_video", lambda path, num_frames, rate, start, fps: ramp[:num_frames]
    )
    source = make_source(options(video_data=str(data_list), enable_flip=True), 0, TOKENIZER)
    rows = [source.draw(number)["video_data"]["video"][0, 0, 0] for number in range(40)]
    assert 8 < sum(row[0] < row[-1] for row in rows) < 32
    assert all(np.array_equal(row, rows[0]) or np.array_equal(row, rows[0][::-1]) for row in rows)


def test_what_cannot_be_read_is_replaced_the_same_way_every_time(tmp_path):
    source = make_source(options(video_data=str(write_set(tmp_path, 6, broken=(2, 4)))), 0, TOKENIZER)
    first, again = ([source.draw(number) for number in range(6)] for _ in range(2))
    assert all(map(same, first, again))
    rejected = {path.rsplit("/", 1)[1]: reason for draw in first for path, reason in draw["rejected"]}
    assert set(rejected) == {"clip, 2.mp4", "clip, 4.mp4"} and rejected["clip, 2.mp4"].endswith(
        "clip, 2.mp4 cannot be read as a video: it has no video stream"
    )
    assert all(len(draw["paths"]) == 1 and draw["paths"][0][-5] not in "24" for draw in first)
    assert len({shuffled(number, 6, 0) for number in range(6)}) == 6


def test_nothing_readable_ends_with_the_reason(tmp_path):
    source = make_source(options(video_data=str(write_set(tmp_path, 2, broken=(0, 1)))), 0, TOKENIZER)
    with pytest.raises(
        ValueError, match=r"16 samples in a row could not be read, the last was .*clip, .*check-data"
    ):
        source.draw(0)


def test_short_videos_are_replaced_and_nonexistent_ones_left_out_on_request(tmp_path):
    data_list = write_set(tmp_path, 3)
    (tmp_path / "videos, all of them" / "clip, 1.mp4").unlink()
    (tmp_path / "videos, all of them" / "clip, 2.mp4").unlink()
    write_video(tmp_path / "videos, all of them" / "clip, 2.mp4", grey(4))
    kept = make_source(options(video_data=str(data_list), filter_nonexistent=True), 0, TOKENIZER)
    assert len(kept) == 2 and len(make_source(options(video_data=str(data_list)), 0, TOKENIZER)) == 3
    reasons = {reason for number in range(6) for _, reason in kept.draw(number)["rejected"]}
    assert len(reasons) == 1 and "5 frames are needed, the video has 4" in reasons.pop()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "there is no data"),
        ({"video_data": "list.txt", "use_image_num": 2}, "use_image_num needs pictures"),
        (
            {"video_data": "list.txt", "use_image_num": 9, "use_img_from_vid": True},
            "set it from 1 to 5, not 9",
        ),
        (
            {"video_data": "list.txt", "caption_dropout": 1.5},
            "caption_dropout 1.5 is out of range: use 0 to 1",
        ),
        ({"video_data": "list.txt", "num_frames": 0}, "num_frames 0 is out of range"),
        ({"vae_latent_folder": "latents", "text_embed_cache": True}, "needs a data list with three columns"),
    ],
)
def test_options_that_do_not_go_together(changes, message):
    with pytest.raises(ValueError, match=message):
        options(**changes).require_data()


def test_samples_that_are_too_large_are_named(lists):
    source = make_source(
        options(video_data=lists["video_data"], num_frames=12, max_image_size=512, max_rowsize=30),
        0,
        TOKENIZER,
    )
    with pytest.raises(ValueError, match=r"a sample takes 37\.7 MB, more than max_rowsize 30"):
        source.draw(0)
