"""Folders of a model's parts, in the layout of the release or in the package (the demo model)."""

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from opensora.weights.files import WeightsError

DEMO = Path(__file__).parent.parent / "demo"
HUB_NAME = re.compile(r"(?!\.+/)[\w.-]+/(?!\.+$)[\w.-]+")


@dataclass(frozen=True)
class ModelFolder:
    """The folders of one model. `text_encoder` is None if it was not given and is not in `path`."""

    path: Path
    transformer: Path
    vae: Path
    text_encoder: Path | None


def find_model(
    model_path: str | Path,
    version: str | None = None,
    text_encoder: str | Path | None = None,
    num_frames: int | None = None,
) -> ModelFolder:
    """Find the folders of a model; no weights are read.

    model_path: a folder with `vae/` and a folder for each version; "demo" is the model in the package, and
    a name on the Hub its copy in the Hub's cache. text_encoder may be such a name too.
    version: such as 65x512x512. Optional if there is one version, or one for videos of `num_frames` frames.
    text_encoder: a folder. Default: `<model_path>/text_encoder`, if it exists.
    Raises WeightsError for a folder or config.json that is missing.
    """
    path = DEMO if str(model_path) == "demo" else in_cache(model_path)
    if not path.is_dir():
        raise WeightsError(
            f"model folder {path} does not exist: check the path, or use 'demo' for the model that ships"
        )
    if not (path / "vae" / "config.json").is_file():
        raise WeightsError(
            f"{path} has no vae/config.json: "
            "name the folder that contains vae/ and the folder of the transformer"
        )
    versions = sorted(
        item.parent.name
        for item in path.glob("*/config.json")
        if item.parent.name not in ("vae", "text_encoder")
    )
    if version is None:
        version = _only_version(path, versions, num_frames)
    if version not in versions:
        raise WeightsError(
            f"{path} has no version {version!r}{did_you_mean(version, versions)}: "
            f"it holds {', '.join(versions) or 'none'}"
        )
    text_encoder = None if text_encoder is None else in_cache(text_encoder)
    if text_encoder is None and (path / "text_encoder").is_dir():
        text_encoder = path / "text_encoder"
    if text_encoder is not None and not (Path(text_encoder) / "config.json").is_file():
        raise WeightsError(
            f"text encoder folder {text_encoder} has no config.json: check the path, or download T5 into it"
        )
    return ModelFolder(
        path, path / version, path / "vae", None if text_encoder is None else Path(text_encoder)
    )


def _only_version(path: Path, versions: list[str], num_frames: int | None) -> str:
    if not versions:
        raise WeightsError(f"{path} holds no transformer: download it")
    fitting = [name for name in versions if name.startswith(f"{num_frames}x")]
    for names in (versions, fitting):
        if len(names) == 1:
            return names[0]
    raise WeightsError(f"{path} holds {', '.join(versions)}: choose one with --version")


def in_cache(path: str | Path) -> Path:
    """The path as it is, or for the name of a model on the Hub its files in the cache of the Hub's own tools.

    The name is that of a folder if there is one. Nothing is downloaded.
    """
    path = Path(path)
    if path.exists() or not HUB_NAME.fullmatch(str(path)):
        return path
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    model = cache / f"models--{str(path).replace('/', '--')}"
    reference = model / "refs" / "main"
    commit = reference.read_text(encoding="utf-8", errors="replace").strip() if reference.is_file() else ""
    snapshot = model / "snapshots" / commit
    return snapshot if re.fullmatch("[0-9a-f]{40}", commit) and snapshot.is_dir() else path


def find_autoencoder(path: str | Path) -> Path:
    """The folder of an autoencoder: `path`/vae of a model folder, or `path`.

    Raises WeightsError if there is none.
    """
    path = DEMO if str(path) == "demo" else in_cache(path)
    if not path.is_dir():
        raise WeightsError(
            f"model folder {path} does not exist: check the path, or use 'demo' for the model that ships"
        )
    found = next((folder for folder in (path / "vae", path) if (folder / "config.json").is_file()), None)
    if found is None:
        raise WeightsError(f"{path} has no vae/config.json: name a model folder or an autoencoder's folder")
    return found


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The choice with the most similar spelling as " (did you mean ...?)", or ""."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
