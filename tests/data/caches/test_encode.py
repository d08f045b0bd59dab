"""embed-text and encode-latents as commands; and runs that use both caches, one or none."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from opensora.cli import main
from opensora.data.caches.cache import Cache
from opensora.data.caches.latents import LatentCache
from opensora.data.clips import read_clip
from opensora.data.inputs import batch_latents
from opensora.data.lists.data_list import Entries, read_data_list
from opensora.data.options import ClipOptions, DataOptions
from opensora.data.setup import make_source
from opensora.data.text.captions import caption_key
from opensora.data.text.tokenizer import Tokenizer
from opensora.media.reader import read_video
from opensora.media.writer import write_video
from opensora.models import CausalVAE, T5Encoder
from opensora.models.causal_vae.config import LATENT_SCALE
from opensora.models.causal_vae.model import CausalVAEConfig
from opensora.models.t5.model import T5Config
from opensora.runtime import mindspore
from opensora.weights.folder import DEMO
from tests.data.material import write_set

ms = mindspore()
pytestmark = pytest.mark.slow

COUNT = 5
CUT = {"num_frames": 5, "max_image_size": 16}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos (one is broken), pictures, an autoencoder, a text encoder, and both kinds of caches."""
    place = tmp_path_factory.mktemp("encode")
    write_set(place, COUNT, broken=(3,))
    write_set(place, 3, "pictures")
    config = CausalVAEConfig(
        hidden_size=8,
        hidden_size_mult=(1, 1, 1, 1),
        num_res_blocks=1,
        norm_num_groups=4,
        decoder_resnet_blocks=("ResnetBlock2D",) * 4,
    )
    rng = np.random.default_rng(0)
    CausalVAE.initialise(config, rng).save_pretrained(place / "vae")
    T5Encoder.initialise(
        T5Config(vocab_size=32128, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2), rng
    ).save_pretrained(place / "t5")
    shutil.copy(DEMO / "text_encoder" / "spiece.model", place / "t5")
    for kind in ("videos", "pictures"):
        (folder,) = (source.folder for source in read_data_list(place / f"{kind}.txt"))
        (place / f"{kind}.txt").write_text(f"{folder}, {place / f'text of {kind}'}, {place / kind}.json\n")
    embed(place, "videos", batch_size=4)
    embed(place, "pictures")
    encode(place, "latents", video_data=place / "videos.txt", num_frames=5)
    encode(place, "pictures", image_data=place / "pictures.txt", num_frames=5, use_image_num=2)
    return place


def command(name: str, **options: object) -> int:
    return main([name, *(f"--{key}={value}" for key, value in options.items())])


def embed(place: Path, kind: str, **changes: object) -> None:
    settings = {
        "text_encoder_name": place / "t5",
        "model_max_length": 8,
        "dtype": "float32",
        "batch_size": 2,
        "block_size": 3,
        **changes,
    }
    assert (
        command(
            "embed-text",
            data_file_path=place / f"{kind}.json",
            output_path=place / f"text of {kind}",
            **settings,
        )
        == 0
    )


def encode(place: Path, name: str, **changes: object) -> None:
    settings = {"max_image_size": 16, "batch_size": 2, "block_size": 2, "dtype": "float32", **changes}
    assert command("encode-latents", vae=place / "vae", output_path=place / name, **settings) == 0


def source(place: Path, **changes: object):
    settings = {
        **CUT,
        "video_data": str(place / "videos.txt"),
        "model_max_length": 8,
        "caption_dropout": 0.3,
        **changes,
    }
    return make_source(DataOptions(**settings), 0, place / "t5", place / "vae")


def test_cached_text_is_what_the_encoder_says(place: Path) -> None:
    cache, encoder = Cache(place / "text of videos", "text"), T5Encoder.from_pretrained(place / "t5")
    captions = ["", *(f"clip {number}{end}" for number in range(COUNT) for end in ("", " again"))]
    assert sorted(item.key for item in cache.items) == sorted(map(caption_key, captions))
    input_ids, mask = Tokenizer.from_folder(place / "t5")(captions, 8)
    expected = encoder(ms.Tensor(input_ids), ms.Tensor(mask)).asnumpy()
    for caption, row, kept in zip(captions, expected, mask.sum(1), strict=True):
        np.testing.assert_allclose(cache.read(caption_key(caption)), row[:kept], rtol=1e-5, atol=1e-6)


def test_cached_latents_are_what_the_autoencoder_says(place: Path) -> None:
    cache, vae = LatentCache(place / "latents"), CausalVAE.from_pretrained(place / "vae")
    entries = Entries(read_data_list(place / "videos.txt"))
    assert [item.key for item in cache.items] == list("0124")
    assert cache.rejected[0].key == "3" and cache.rejected[0].rejected.endswith(
        "clip, 3.mp4 cannot be read as a video: it has no video stream"
    )
    for index, item in enumerate(cache.items):
        number = int(item.key)
        assert item.captions == entries[number].captions
        video = read_clip(entries[number].segment, ClipOptions(**CUT), np.random.default_rng([0, number]))
        expected = vae.encode(ms.Tensor(np.stack([video] * 2))).moments.asnumpy()[0]
        np.testing.assert_allclose(cache.moments(index), expected, rtol=1e-4, atol=1e-4)
    draws = np.stack([cache.latents(0, np.random.default_rng(i)) for i in range(200)]) / LATENT_SCALE
    mean, logvar = np.split(cache.moments(0), 2)
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * np.exp(logvar.max() / 2) / 200**0.5)
    np.testing.assert_array_equal(cache.latents(0, None), mean * np.float32(LATENT_SCALE))


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("latents", [False, True])
def test_a_run_uses_either_cache_both_or_none(place: Path, text: bool, latents: bool) -> None:
    changes: dict[str, object] = {
        "text_embed_cache": text,
        "image_data": str(place / "pictures.txt"),
        "use_image_num": 2,
    }
    if latents:
        changes |= {
            "vae_latent_folder": str(place / "latents"),
            "image_latent_folder": str(place / "pictures"),
        }
    made = source(place, **changes)
    batch = made.join([made.draw(number) for number in range(4)])
    assert batch["text_mask"].shape == (4, 3, 8) and batch["latent_mask"].shape == (4, 4, 2, 2)
    if latents:
        assert batch["latents"].shape == (4, 4, 2 + 2, 2, 2) and "pixels" not in batch
    else:
        assert batch["pixels"].shape == (4, 3, 5 + 2, 16, 16)
    if text:
        assert batch["text_embeds"].shape == (4, 3, 8, 8)
        assert (np.abs(batch["text_embeds"]).sum(-1) > 0).astype(int).tolist() == batch["text_mask"].tolist()
    else:
        assert batch["input_ids"].shape == (4, 3, 8)


def test_captions_do_not_depend_on_the_text_cache(place: Path) -> None:
    plain, cached = source(place), source(place, text_embed_cache=True)
    encoder = T5Encoder.from_pretrained(place / "t5")
    for number in range(6):
        ids, embeds = plain.draw(number)["video_data"], cached.draw(number)["video_data"]
        assert np.array_equal(ids["text_mask"], embeds["text_mask"]) and np.array_equal(
            ids["video"], embeds["video"]
        )
        expected = (
            encoder(ms.Tensor(ids["input_ids"]), ms.Tensor(ids["text_mask"])).asnumpy()
            * ids["text_mask"][..., None]
        )
        np.testing.assert_allclose(embeds["text_embeds"], expected, rtol=1e-5, atol=1e-6)


def test_pixels_are_encoded_picture_by_picture_and_drawn_from_the_posterior(place: Path) -> None:
    vae = CausalVAE.from_pretrained(place / "vae")
    made = source(place, image_data=str(place / "pictures.txt"), use_image_num=2, caption_dropout=0.0)
    batch = made.join([made.draw(0), made.draw(1)])
    latents = batch_latents(batch, 2, vae, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    for frames, places, length in (
        (slice(0, 5), slice(0, 2), 2),
        (slice(5, 6), slice(2, 3), 1),
        (slice(6, 7), slice(3, 4), 1),
    ):
        posterior = vae.encode(ms.Tensor(np.ascontiguousarray(batch["pixels"][:, :, frames])))
        noise = rng.standard_normal((2, 4, length, 2, 2), np.float32)
        expected = posterior.mean.asnumpy() + np.exp(posterior.logvar.asnumpy() / 2) * noise
        np.testing.assert_allclose(latents[:, :, places], expected * LATENT_SCALE, rtol=1e-4, atol=1e-5)
    assert batch_latents({"latents": latents}, 2, None, rng) is latents
    mean = vae.encode(ms.Tensor(np.ascontiguousarray(batch["pixels"][:, :, :5]))).mean.asnumpy()
    np.testing.assert_allclose(
        batch_latents(batch, 2, vae, None)[:, :, :2], mean * LATENT_SCALE, rtol=1e-4, atol=1e-5
    )


def test_a_cache_alone_is_a_data_set(place: Path) -> None:
    made = make_source(
        DataOptions(vae_latent_folder=str(place / "latents"), model_max_length=8), 0, place / "t5"
    )
    assert len(made) == 4 and made.clip == ClipOptions(**CUT)
    assert made.join([made.draw(0)])["latents"].shape == (1, 4, 2, 2, 2)
    options = DataOptions(
        vae_latent_folder=str(place / "latents"),
        image_latent_folder=str(place / "pictures"),
        use_image_num=2,
        model_max_length=8,
    )
    made = make_source(options, 0, place / "t5")
    assert made.join([made.draw(0)])["latents"].shape == (1, 4, 2 + 2, 2, 2)


def test_pictures_cut_from_videos_are_cached_behind_them(place: Path) -> None:
    setting = {"num_frames": 5, "use_image_num": 2, "use_img_from_vid": True}
    encode(place, "cut", video_data=place / "videos.txt", **setting)
    cache, vae = LatentCache(place / "cut"), CausalVAE.from_pretrained(place / "vae")
    entry = Entries(read_data_list(place / "videos.txt"))[0]
    video = read_clip(entry.segment, ClipOptions(**CUT), np.random.default_rng([0, 0]))
    expected = vae.encode(ms.Tensor(np.stack([video[:, :1], video[:, 4:]]))).moments.asnumpy()
    np.testing.assert_allclose(
        cache.moments(0)[:, 2:], np.concatenate(list(expected), 1), rtol=1e-4, atol=1e-4
    )
    made = source(place, vae_latent_folder=str(place / "cut"), **setting)
    sample = made.draw(0)
    assert sample["video_data"]["latents"].shape == (4, 2, 2, 2) and len(sample["image_data"]["latents"]) == 2
    assert made.join([sample])["latents"].shape == (1, 4, 4, 2, 2)


def test_sizes_that_differ_are_encoded_as_a_run_would_pad_them(place: Path) -> None:
    encode(place, "scaled", video_data=place / "videos.txt", num_frames=5, multi_scale=True)
    made = source(place, vae_latent_folder=str(place / "scaled"), multi_scale=True)
    batch = made.join([made.draw(0)])
    assert batch["latents"].shape == (1, 4, 2, 2, 2) and batch["latent_mask"][0, 0].tolist() == [
        [1, 1],
        [1, 1],
    ]
    assert LatentCache(place / "scaled").moments(0).shape == (
        8,
        2,
        2,
        2,
    )  # 10x16 pixels fill two rows of latents in part


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 9}, r"other settings \(num_frames 5, not 9\)"),
        ({"enable_flip": True}, r"other settings \(enable_flip False, not True\)"),
        (
            {"model_max_length": 9, "text_embed_cache": True, "vae_latent_folder": None},
            r"other settings \(model_max_length 8, not 9\)",
        ),
        (
            {"video_data": "changed captions", "text_embed_cache": True, "vae_latent_folder": None},
            "text of videos was made with other captions",
        ),
        ({"video_data": "other clips"}, r"other settings \(clips "),
    ],
)
def test_stale_caches_are_refused(
    place: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    records = json.loads((place / "videos.json").read_text())
    records[0]["cap" if changes.get("video_data") == "changed captions" else "frame_idx"] = "0:7"
    (tmp_path / "changed.json").write_text(json.dumps(records))
    (tmp_path / "changed.txt").write_text(
        (place / "videos.txt").read_text().replace(str(place / "videos.json"), str(tmp_path / "changed.json"))
    )
    if "video_data" in changes:
        changes = {**changes, "video_data": str(tmp_path / "changed.txt")}
    with pytest.raises(ValueError, match=message):
        source(place, **{"vae_latent_folder": str(place / "latents"), **changes})


def test_changed_captions_leave_the_latents(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = json.loads((place / "videos.json").read_text())
    records[0]["cap"] = "a new caption"
    (tmp_path / "changed.json").write_text(json.dumps(records))
    changed = (
        (place / "videos.txt").read_text().replace(str(place / "videos.json"), str(tmp_path / "changed.json"))
    )
    (tmp_path / "changed.txt").write_text(changed)
    made = source(place, vae_latent_folder=str(place / "latents"), video_data=str(tmp_path / "changed.txt"))
    assert made.videos is not None and made.videos.dataset.captions(0) == (("a new caption",), 0)

    shutil.copytree(place / "latents", tmp_path / "latents")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "latents").glob("*.safetensors")}
    with caplog.at_level("INFO", "opensora"):
        encode(place, str(tmp_path / "latents"), video_data=tmp_path / "changed.txt", num_frames=5)
    assert caplog.messages == ["the captions of 2 clips are up to date, their latents stay"]
    assert LatentCache(tmp_path / "latents").items[0].captions == ("a new caption",)
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_a_replaced_file_is_encoded_again(place: Path, tmp_path: Path) -> None:
    write_set(tmp_path, 3)
    words = {"video_data": tmp_path / "videos.txt", "num_frames": 5, "block_size": 1}
    encode(place, str(tmp_path / "latents"), **words)
    before = [LatentCache(tmp_path / "latents").moments(index) for index in range(3)]
    first, second, _ = (Path(item.path) for item in LatentCache(tmp_path / "latents").items)
    write_video(first, read_video(second)[::-1])
    encode(place, str(tmp_path / "latents"), **words)
    after = [LatentCache(tmp_path / "latents").moments(index) for index in range(3)]
    assert [np.array_equal(*pair) for pair in zip(before, after, strict=True)] == [False, True, True]


def test_embeddings_need_captions_and_take_the_models_length(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("path,text\na.mp4,a cat\n")
    words = {"data_file_path": tmp_path / "a.csv", "output_path": tmp_path / "text"}
    assert command("embed-text", **words) == 2
    assert "there is no text encoder: name it with --model_path" in capsys.readouterr().err
    assert command("embed-text", **words, model_path=DEMO) == 2
    assert (
        "a.csv has no caption under 'cap': name the column with --caption_column" in capsys.readouterr().err
    )
    (tmp_path / "a.csv").write_text("path,text\na.mp4," + "long " * 40 + "\nb.mp4,a cat <![ \n")
    assert command("embed-text", **words, model_path=DEMO, caption_column="text") == 0
    assert "1 of these 3 captions have more than 24 tokens" in capsys.readouterr().err
    assert Cache(tmp_path / "text", "text").fingerprint.settings["model_max_length"] == 24


def test_caches_of_other_weights_are_refused(place: Path, tmp_path: Path) -> None:
    for part in ("vae", "t5"):
        shutil.copytree(place / part, tmp_path / part)
        (path,) = (tmp_path / part).glob("*.safetensors")
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)
    options = {**CUT, "video_data": str(place / "videos.txt"), "model_max_length": 8}
    with pytest.raises(ValueError, match="latents was made with other encoder weights"):
        make_source(
            DataOptions(**options, vae_latent_folder=str(place / "latents")),
            0,
            place / "t5",
            tmp_path / "vae",
        )
    with pytest.raises(ValueError, match="text of videos was made with other encoder weights"):
        make_source(DataOptions(**options, text_embed_cache=True), 0, tmp_path / "t5")
    words = {
        "video_data": place / "videos.txt",
        "num_frames": 5,
        "max_image_size": 16,
        "dtype": "float32",
        "block_size": 2,
    }
    assert command("encode-latents", vae=tmp_path / "vae", output_path=place / "latents", **words) == 2


def test_several_processes_make_one_cache(place: Path) -> None:
    settings = {
        "text_encoder_name": place / "t5",
        "model_max_length": 8,
        "dtype": "float32",
        "batch_size": 2,
        "block_size": 3,
    }
    for rank in (1, 0):
        words = {
            **settings,
            "rank": rank,
            "world_size": 2,
            "data_file_path": place / "videos.json",
            "output_path": place / "shared",
        }
        assert command("embed-text", **words) == 0
    shared, alone = Cache(place / "shared", "text"), Cache(place / "text of videos", "text")
    assert [item.key for item in shared.items] == [item.key for item in alone.items]
    for item in alone.items:
        np.testing.assert_allclose(shared.read(item.key), alone.read(item.key), rtol=1e-5, atol=1e-6)


def test_a_killed_command_continues(place: Path) -> None:
    prompts = place / "prompts.txt"
    prompts.write_text("\n".join(f"prompt number {number}" for number in range(60)))
    words = {
        "prompt_path": prompts,
        "text_encoder_name": place / "t5",
        "model_max_length": 8,
        "batch_size": 1,
        "block_size": 1,
    }
    arguments = [f"--{key}={value}" for key, value in words.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "opensora", "embed-text", *arguments, f"--output_path={place / 'killed'}"]
    )
    deadline = time.monotonic() + 120
    while len(list((place / "killed").glob("block-*.json"))) < 4 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in (place / "killed").glob("block-*.json")}
    assert 0 < len(before) < 61
    assert command("embed-text", **words, output_path=place / "killed") == 0
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    keys = [item.key for item in Cache(place / "killed", "text").items]
    assert keys == [caption_key(text) for text in ("", *prompts.read_text().splitlines())]
