"""Caches are complete or refused with a reason; writers share the blocks and may stop at any point."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from opensora.data.caches.cache import Cache, CacheWriter, Fingerprint, Item, encoder_digest
from opensora.weights.folder import DEMO

PRINT = Fingerprint("text", "encoder one", {"model_max_length": 8}, "captions one", 5, 2)


def arrays(block: int) -> dict[str, np.ndarray]:
    return {
        str(key): np.full((key + 1, 3), key / 7, np.float32)
        for key in range(2 * block, min(2 * block + 2, 5))
    }


def fill(writer: CacheWriter, blocks: range = range(3)) -> list[int]:
    """Write the blocks that are wanted; which they were."""
    written = [block for block in blocks if writer.wants(block)]
    for block in written:
        writer.write(block, [{"key": key} for key in arrays(block)], arrays(block))
    return written


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_read_is_what_was_written(tmp_path, dtype):
    fill(CacheWriter(tmp_path / "cache", PRINT, dtype))
    cache = Cache(tmp_path / "cache", "text")
    assert [item.key for item in cache.items] == list("01234") and "4" in cache and "5" not in cache
    for key, value in (arrays(0) | arrays(1) | arrays(2)).items():
        assert cache.read(key).dtype == np.float32 and np.array_equal(
            cache.read(key), value.astype(dtype).astype(np.float32)
        )


def test_processes_share_the_blocks_and_a_stopped_one_continues(tmp_path):
    first, second = (CacheWriter(tmp_path / "cache", PRINT, "float16", rank, 2) for rank in (0, 1))
    assert fill(second) == [1]
    with pytest.raises(ValueError, match="incomplete, 2 of 3 blocks are missing: run its command again"):
        Cache(tmp_path / "cache", "text")
    assert fill(first, range(1)) == [0]
    assert fill(CacheWriter(tmp_path / "cache", PRINT, "float16")) == [
        2
    ]  # another number of processes finishes it
    assert len(Cache(tmp_path / "cache", "text").items) == 5


@pytest.mark.parametrize("ending", [".safetensors", ".json"])
def test_a_stop_while_a_block_is_written_leaves_it_missing(tmp_path, monkeypatch, ending):
    writer = CacheWriter(tmp_path / "cache", PRINT, "float16")
    real = os.replace

    def stop(source: str, target: str) -> None:
        if str(target).endswith(f"1{ending}"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        fill(writer)
    monkeypatch.undo()
    assert fill(CacheWriter(tmp_path / "cache", PRINT, "float16")) == [1, 2]
    assert len(Cache(tmp_path / "cache", "text").items) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "two"}, "was made with other encoder weights: make a new cache"),
        ({"settings": {"model_max_length": 9}}, r"other settings \(model_max_length 8, not 9\)"),
        ({"captions": "two"}, "was made with other captions"),
        ({"encoder": "two", "captions": "two"}, "other encoder weights and other captions"),
    ],
)
def test_a_stale_or_foreign_cache_is_refused_by_writer_and_reader(tmp_path, change, message):
    fill(CacheWriter(tmp_path / "cache", PRINT, "float16"))
    other = replace(PRINT, **change)
    with pytest.raises(ValueError, match=message):
        CacheWriter(tmp_path / "cache", other, "float16")
    cache = Cache(tmp_path / "cache", "text")
    cache.fingerprint.require(cache.folder, PRINT.encoder, PRINT.settings, PRINT.captions)
    with pytest.raises(ValueError, match=message):
        cache.fingerprint.require(cache.folder, other.encoder, other.settings, other.captions)


def test_items_without_an_array_are_told(tmp_path):
    writer = CacheWriter(tmp_path / "cache", replace(PRINT, count=1), "float16")
    writer.write(0, [{"key": "0", "path": "\ud800.mp4", "rejected": "it is broken"}], {})
    cache = Cache(tmp_path / "cache", "text")
    assert not cache.items and cache.rejected == [Item("0", path="\ud800.mp4", rejected="it is broken")]


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no cache: make one with"):
        Cache(tmp_path, "text")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "film.mp4").touch()
    with pytest.raises(ValueError, match="holds files that are not a cache"):
        CacheWriter(tmp_path / "mine", PRINT, "float16")
    CacheWriter(tmp_path / "cache", PRINT, "float16")
    with pytest.raises(ValueError, match="is a cache of text, not of latents"):
        Cache(tmp_path / "cache", "latents")
    with pytest.raises(ValueError, match=r"another block_size or number of items \(5\)"):
        CacheWriter(tmp_path / "cache", replace(PRINT, count=6), "float16")
    path = tmp_path / "cache" / "fingerprint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(ValueError, match="has cache format 99, this version reads 1"):
        Cache(tmp_path / "cache", "text")
    path.write_text("{")
    with pytest.raises(ValueError, match=r"fingerprint\.json is not valid JSON .* or make a new cache"):
        Cache(tmp_path / "cache", "text")


def test_damage_is_noticed(tmp_path):
    fill(CacheWriter(tmp_path / "cache", PRINT, "float32"))
    path = tmp_path / "cache" / "block-00000000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged at"):
        [Cache(tmp_path / "cache", "text").read(key) for key in "01"]
    (tmp_path / "cache" / "block-00000001.safetensors").write_bytes(content[:50])
    with pytest.raises(ValueError, match="truncated or damaged"):
        Cache(tmp_path / "cache", "text").read("2")


def test_caches_of_one_relative_name_are_told_apart(tmp_path, monkeypatch):
    for name, dtype in (("one", "float32"), ("other", "float16")):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        fill(CacheWriter("cache", PRINT, dtype))
        cache = Cache("cache", "text")
        assert np.array_equal(cache.read("1"), arrays(0)["1"].astype(dtype).astype(np.float32))


def test_a_cache_written_anew_is_read_anew(tmp_path):
    for dtype in ("float32", "float16"):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        fill(CacheWriter(tmp_path / "cache", PRINT, dtype))
        assert Cache(tmp_path / "cache", "text").read("1").max() == arrays(0)["1"].astype(dtype).max()


def test_values_that_cannot_be_stored_are_named(tmp_path):
    writer = CacheWriter(tmp_path / "cache", PRINT, "float16")
    with pytest.raises(ValueError, match="values for 0 that float16 cannot hold"):
        writer.write(0, [{"key": "0"}], {"0": np.array([1e6])})
    assert writer.wants(0)


def test_an_encoders_digest_follows_weights_and_tokenizer(tmp_path):
    shutil.copytree(DEMO / "text_encoder", tmp_path / "same")
    shutil.copytree(DEMO / "text_encoder", tmp_path / "other")
    (tmp_path / "same" / "README").touch()
    content = bytearray((tmp_path / "other" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "other" / "model.safetensors").write_bytes(content)
    assert (
        encoder_digest(DEMO / "text_encoder")
        == encoder_digest(tmp_path / "same")
        != encoder_digest(tmp_path / "other")
    )


def test_a_huge_count_is_refused_without_work(tmp_path):
    fill(CacheWriter(tmp_path / "cache", PRINT, "float16"))
    path = tmp_path / "cache" / "fingerprint.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"count": 10**12}))
    with pytest.raises(ValueError, match="incomplete, 499999999997 of 500000000000 blocks are missing"):
        Cache(tmp_path / "cache", "text")
    for change, message in (
        ({"count": -1}, "count = -1, where a number from 0"),
        ({"block_size": 0}, "block_size = 0, where a number from 1"),
        ({"settings": []}, r"settings = \[\], where an object belongs"),
        ({"kind": 3}, "kind = 3, where a text belongs"),
    ):
        path.write_text(json.dumps(content | change))
        with pytest.raises(ValueError, match=rf"fingerprint\.json says {message}"):
            Cache(tmp_path / "cache", "text")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("{}", "says its content = an object of 0 items, where a list belongs"),
        ('[{"key": 3}]', r"says key = 3, where a text belongs"),
        ('[{"key": "0", "crc32": -1}]', "says crc32 = -1, where a number from 0"),
        ("[3]", "= 3, where an object belongs"),
    ],
)
def test_damaged_descriptions_of_blocks_are_named(tmp_path, text, message):
    fill(CacheWriter(tmp_path / "cache", PRINT, "float16"))
    (tmp_path / "cache" / "block-00000001.json").write_text(text)
    with pytest.raises(ValueError, match=rf"block-00000001\.json.*{message}"):
        Cache(tmp_path / "cache", "text")


def test_keys_without_an_array_are_damage(tmp_path):
    fill(CacheWriter(tmp_path / "cache", PRINT, "float16"))
    path = tmp_path / "cache" / "block-00000001.json"
    path.write_text(path.read_text().replace('"2"', '"x"'))
    cache = Cache(tmp_path / "cache", "text")
    with pytest.raises(ValueError, match=r"block-00000001\.safetensors is damaged at x"):
        cache.read("x")
    with pytest.raises(ValueError, match="has no item y"):
        cache.read("y")
