"""Every reader of files in the project, with a folder of small valid files for it.

A reader takes the folder, in which one file is mutated. It may only raise ValueError, with a sentence that
names the file.
"""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

from opensora.cli import parse_command
from opensora.cli.info import InfoOptions, describe
from opensora.config_files import read_settings
from opensora.data.caches.cache import CacheWriter, Fingerprint
from opensora.data.caches.latents import LatentCache
from opensora.data.lists.beside import CaptionFinder
from opensora.data.lists.data_list import Entries, read_data_list
from opensora.data.lists.files import listed_files
from opensora.data.lists.prepare import _read_journal
from opensora.data.loader import Loader
from opensora.data.options import ClipOptions
from opensora.data.text.captions import TextEmbeddings, caption_key
from opensora.data.text.cleaning import clean_caption
from opensora.data.text.prompts import read_prompts
from opensora.data.text.tokenizer import Tokenizer
from opensora.demo_data.render import Renderer
from opensora.generate.latents import latents_content, read_latents, write_latents
from opensora.generate.sidecar import read_recipe, saved_recipe
from opensora.media.reader import iter_frames, probe
from opensora.media.writer import write_video
from opensora.models.convert import Conversion, convert
from opensora.models.formats import FORMATS, find_format
from opensora.models.latte.config import LatteConfig
from opensora.models.spec import ModelSpec
from opensora.train.plot import read_curves
from opensora.weights import load_config, open_file, save_tensors, weight_files
from opensora.weights.checkpoints import latest_checkpoint, read_manifest
from opensora.weights.folder import DEMO
from opensora.weights.mindspore_file import write_checkpoint
from opensora.weights.shards import ShardedState, save_shard

TORCH = Path(__file__).parents[1] / "reference" / "torch"
MOST_FRAMES, MOST_CAPTIONS = 500, 1000


class Reader(NamedTuple):
    """make: writes the valid files into a folder. read: reads them. mutated: patterns of the files to mutate.

    names_file: whether an error has to name the file; an option of a wrong type is named instead.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], object]
    mutated: tuple[str, ...] = ("*",)
    names_file: bool = True


def _pixels(count: int = 8) -> np.ndarray:
    ramp = np.arange(count * 32 * 48, dtype=np.uint32).reshape(count, 32, 48, 1)
    return (ramp * [1, 3, 7] // 5 % 256).astype(np.uint8)


def _copy(source: Path) -> Callable[[Path], object]:
    return lambda folder: shutil.copytree(source, folder, dirs_exist_ok=True)


def _write(**files: str) -> Callable[[Path], object]:
    """A maker of text files; the names have an underscore for the dot."""

    def make(folder: Path) -> None:
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")

    return make


def _only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


# --- weights ---


def _make_weights(folder: Path) -> None:
    weights = {
        "features.0.weight": np.ones((2, 3), np.float32),
        "lin0.model.1.weight": np.zeros(4, np.float32),
    }
    save_tensors(folder / "a.safetensors", weights, "bfloat16")
    with open(folder / "b.ckpt", "wb") as file:
        write_checkpoint(file, weights)
    for path in TORCH.glob("*.*"):
        if path.suffix in (".pt", ".bin"):
            shutil.copy(path, folder)


def _read_weights(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        file = open_file(path)
        for name in file.entries:
            file.read(name)


def _convert_weights(folder: Path) -> None:
    source = folder / "a.safetensors"
    convert(source, folder / "out.safetensors", Conversion())
    convert(source, folder / "out.ckpt", Conversion())


def _read_release(folder: Path) -> None:
    """What `info` and loading a model read, without computing."""
    options = InfoOptions(model_path=[str(folder)], device="Ascend")
    with redirect_stdout(io.StringIO()):
        describe(folder, options)
    spec = ModelSpec.find(folder)
    for part in (spec.paths.transformer, spec.paths.vae, spec.paths.text_encoder):
        assert part is not None
        kind = FORMATS[find_format(part)]
        for values in kind.open(part, load_config(part)).values():
            assert values.size >= 0


def _make_release(folder: Path) -> None:
    shutil.copytree(TORCH / "release", folder, dirs_exist_ok=True)
    (folder / "t2v.pt").unlink()
    for name in ("generate.yaml", "data_set.json"):
        shutil.copy(DEMO / name, folder)


def _make_tokenizer(folder: Path) -> None:
    shutil.copy(DEMO / "text_encoder" / "spiece.model", folder)


def _read_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    tokenizer(["an elephant on a sky blue background, é象", ""], 12)
    tokenizer.unread("an elephant on a sky blue background", 4)


def _make_checkpoint(folder: Path) -> None:
    step = folder / "checkpoints" / "step-00000007"
    step.mkdir(parents=True)
    shapes = {"a.weight": (2, 3)}
    for rank in range(2):
        part = {"exp_avg": np.ones(3, np.float32), "exp_avg_sq": np.ones(3, np.float32)}
        save_shard(step, rank, 2, [shapes], [part], {"step": np.zeros((), np.int64)})
    save_tensors(step / "model.safetensors", {"a.weight": np.ones((2, 3), np.float32)})
    (step / "state.json").write_text(json.dumps({"step": 7, "losses": [0.5]}))
    names = sorted(path.name for path in step.iterdir())
    facts = {name: {"bytes": (step / name).stat().st_size, "sha256": "0" * 64} for name in names}
    (step / "manifest.json").write_text(json.dumps(facts))


def _read_checkpoint(folder: Path) -> None:
    found = latest_checkpoint(folder)
    assert found is not None
    read_manifest(found)
    read_settings(found / "state.json")
    for path in weight_files(folder):
        file = open_file(path)
        for name in file.entries:
            file.read(name)
    state = ShardedState(found)
    for name in state:
        assert state[name].size >= 0


# --- configurations ---

LATTE = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8, "cross_attention_dim": 16}
OPTIONS = """model_path: [demo, "other"]
num_frames: 17
sampling:
  guidance_scale: 1e-1
  weights_dtype: bf16
json: true
"""


def _read_options(folder: Path) -> None:
    parse_command("info", ["--config", str(folder / "a.yaml")])


def _read_latte(folder: Path) -> None:
    LatteConfig.from_dict(read_settings(folder / "config.json"), folder / "config.json")


# --- texts and lists ---

RECORDS = [
    {"path": "a, b.mp4", "cap": "a cat"},
    {"path": "c.mp4", "cap": ["a dog", "two"], "frame_idx": "0:65"},
    {"path": "d.mp4", "cap": 'the 5" <i>"big"</i> one'},
]
TABLE = 'path,cap\n"a, b.mp4","a ""big"" cat, here"\nc.mp4,a 5" dog\nd.mp4,"two\nlines"\n'
PROMPTS = "a cat\na dog, running\n\nAn owl \u2028 here\n"


def _make_lists(folder: Path) -> None:
    (folder / "films").mkdir()
    (folder / "a.json").write_text(json.dumps(RECORDS))
    (folder / "b.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    (folder / "c.csv").write_text(TABLE)
    (folder / "list.txt").write_text("# data\nfilms, a.json\nfilms, b.jsonl\nfilms, c.csv\n")


def _read_lists(folder: Path) -> None:
    for entry in islice(Entries(read_data_list(folder / "list.txt")), MOST_CAPTIONS):
        for caption in entry.captions:
            clean_caption(caption)


def _read_listing(folder: Path) -> None:
    listed_files(_only(folder), "videos", repeats=True)


def _read_prompts(folder: Path) -> None:
    for prompt in read_prompts([str(_only(folder))]):
        clean_caption(prompt, sampling=True)


def _make_captions(folder: Path) -> None:
    (folder / "a.txt").write_text("a cat\na dog\n")
    (folder / "b.json").write_text('{"caption": ["a", "b"]}')
    (folder / "metadata.csv").write_text('file_name,text\nc.mp4,"x, y"\nd.mp4,z\n')
    (folder / "metadata.jsonl").write_text('{"file_name": "e.mp4", "text": "x"}\n')


def _read_captions(folder: Path) -> None:
    finder = CaptionFinder(folder)
    for name in "abcde":
        finder.captions(f"{name}.mp4")


# --- caches and journals ---


def _make_latents(folder: Path) -> None:
    settings = {"clip": asdict(ClipOptions(num_frames=5, max_image_size=16)), "clips_per_video": 1}
    writer = CacheWriter(folder, Fingerprint("latents", "digest", settings, "", 3, 2), "float16")
    for block, keys in enumerate(("01", "2")):
        items = [{"key": key, "path": f"{key}.mp4", "captions": ["a cat"], "source": 0} for key in keys]
        writer.write(block, items, {key: np.ones((8, 2, 2, 2)) for key in keys})


def _read_latents(folder: Path) -> None:
    cache = LatentCache(folder)
    for index in range(len(cache)):
        cache.latents(index, None)
        cache.place(index)


def _make_embeddings(folder: Path) -> None:
    writer = CacheWriter(
        folder, Fingerprint("text", "digest", {"model_max_length": 8}, "captions", 2, 1), "float16"
    )
    for block, caption in enumerate(("", "a cat")):
        key = caption_key(caption)
        writer.write(block, [{"key": key}], {key: np.ones((3, 4))})


def _read_embeddings(folder: Path) -> None:
    TextEmbeddings([folder], ["captions"], 8, "digest")(["", "a cat"], 0)


def _read_metrics(folder: Path) -> None:
    read_curves(folder)


def _read_quarantine(folder: Path) -> None:
    source: Any = None
    Loader(source, 0, folder / "quarantine.jsonl").close()


def _read_measured(folder: Path) -> None:
    _read_journal(folder / "measured.jsonl")


def _make_demo(folder: Path) -> None:
    np.save(folder / "0.npy", np.zeros((3, 8, 8, 4), np.uint8))
    content = {
        "resolution": 8,
        "subjects": {"elephant": {"file": "0.npy", "shape": [3, 8, 8, 4], "sha256": "0"}},
    }
    (folder / "manifest.json").write_text(json.dumps(content))


def _read_demo(folder: Path) -> None:
    renderer = Renderer(folder)
    for subject in renderer.files:
        renderer.render(subject, "red", frames=2, size=16, rng=np.random.default_rng(0))


RECIPE = {
    "prompt": "a cat", "negative_prompt": "", "num_frames": 5, "height": 32, "width": 32, "fps": 12,
    "num_sampling_steps": 3, "guidance_scale": 4.0, "sample_method": "PNDM", "seed": 1, "upstream": False,
    "precision": "fp32", "weights_dtype": "fp32", "weights": {"transformer": {"config.json": "0"}},
}  # fmt: skip


def _read_sidecar(folder: Path) -> None:
    (folder / "a.npy").touch()
    read_recipe(folder / "a.json")
    saved_recipe(folder / "a.npy", "a cat")


def _make_saved_latents(folder: Path) -> None:
    content, _ = latents_content(np.ones((4, 2, 4, 4), np.float32))
    write_latents(folder / "a.npy", content)
    (folder / "a.json").write_text(json.dumps({"recipe": RECIPE}))


def _read_saved_latents(folder: Path) -> None:
    saved_recipe(folder / "a.npy", "a cat")
    read_latents(folder / "a.npy", (4, 2, 4, 4))


# --- media ---


CODECS = {".webm": "libvpx", ".ts": "mpeg2video", ".mpg": "mpeg2video", ".flv": "flv", ".h264": "libx264"}
"""Codecs other than MPEG-4 that the containers take."""


def _make_media(suffix: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        path = folder / f"a{suffix}"
        if suffix in (".mp4", ".gif", ".webp", ".png"):
            write_video(path, _pixels(1 if suffix == ".png" else 8))
        elif suffix == ".jpg":
            Image.fromarray(_pixels(1)[0]).save(path)
        elif suffix == ".apng":
            first, *rest = map(Image.fromarray, _pixels())
            first.save(path, "PNG", save_all=True, append_images=rest, duration=40)
        elif suffix == ".y4m":
            head = b"YUV4MPEG2 W48 H32 F25:1 Ip A1:1 C420\n"
            path.write_bytes(head + b"".join(b"FRAME\n" + bytes([n]) * 2304 for n in range(4)))
        else:
            with av.open(str(path), "w", format="h264" if suffix == ".h264" else None) as container:
                options = {"flags": "+ildct+ilme"} if suffix == ".mpg" else {}  # interlaced
                stream: Any = container.add_stream(CODECS.get(suffix, "mpeg4"), rate=24, options=options)
                stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
                for frame in _pixels():
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
                container.mux(stream.encode())

    return make


def _read_media(folder: Path) -> None:
    path = _only(folder)
    info = probe(path)
    assert info.frames >= 0
    frames: Iterator[np.ndarray] = iter_frames(path)
    for _ in zip(range(MOST_FRAMES), frames, strict=False):
        pass
    for _ in islice(iter_frames(path, start=info.frames // 2), 3):
        pass


READERS = {
    "weights": Reader(_make_weights, _read_weights),
    "convert": Reader(_make_weights, _convert_weights, ("a.safetensors",)),
    "release": Reader(_make_release, _read_release, ("*/*", "*.yaml", "*.json")),
    "tokenizer": Reader(_make_tokenizer, _read_tokenizer),
    "checkpoint": Reader(_make_checkpoint, _read_checkpoint, ("checkpoints/*/*",)),
    "options": Reader(_write(a_yaml=OPTIONS), _read_options, names_file=False),
    "latte": Reader(_write(config_json=json.dumps(LATTE)), _read_latte),
    "lists": Reader(_make_lists, _read_lists, ("*.*",)),
    "listing-txt": Reader(_write(a_txt="a.mp4\nsub/b, c.avi\n"), _read_listing),
    "listing-csv": Reader(_write(a_csv='caption,video\nx,a.mp4\n"y, z",b.mp4\n'), _read_listing),
    "listing-json": Reader(_write(a_json='["a.mp4", {"path": "b.mp4"}]'), _read_listing),
    "prompts-txt": Reader(_write(a_txt=PROMPTS), _read_prompts),
    "prompts-csv": Reader(_write(a_csv='id,prompt\n1,"a cat, asleep"\n2,a 5" dog\n'), _read_prompts),
    "prompts-tsv": Reader(_write(a_tsv="id\tprompt\n1\ta cat, asleep\n"), _read_prompts),
    "prompts-json": Reader(_write(a_json='["a cat", {"prompt": "a dog"}]'), _read_prompts),
    "prompts-jsonl": Reader(_write(a_jsonl='{"prompt": "a cat"}\n"a dog"\n'), _read_prompts),
    "captions": Reader(_make_captions, _read_captions, names_file=False),
    "latents": Reader(_make_latents, _read_latents),
    "embeddings": Reader(_make_embeddings, _read_embeddings),
    "metrics": Reader(
        _write(metrics_jsonl='{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n'), _read_metrics
    ),
    "quarantine": Reader(_write(quarantine_jsonl='{"path": "a", "reason": "b"}\n'), _read_quarantine),
    "measured": Reader(
        _write(
            measured_jsonl='{"path": "a.mp4", "folder": "/x", "size": 3, "time": 4, "height": 32, '
            '"width": 48, "fps": 24.0, "scenes": [[0, 5, 1.5]]}\n'
        ),
        _read_measured,
    ),
    "demo": Reader(_make_demo, _read_demo),
    "sidecar": Reader(_write(a_json=json.dumps({"recipe": RECIPE})), _read_sidecar),
    "saved-latents": Reader(_make_saved_latents, _read_saved_latents),
    **{
        f"media{suffix.replace('.', '-')}": Reader(_make_media(suffix), _read_media)
        for suffix in (
            *(".mp4", ".avi", ".mkv", ".mov", ".webm", ".ts", ".mpg", ".flv", ".h264", ".y4m"),
            *(".gif", ".webp", ".apng", ".png", ".jpg"),
        )
    },
}
