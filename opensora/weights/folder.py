"""Where the parts of a model lie on the disk, in the release's layout or in the package (the demo model)."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from opensora.weights.files import WeightsError

DEMO = Path(__file__).parent.parent / "demo"


@dataclass(frozen=True)
class ModelFolder:
    """The folders of one model. `text_encoder` is None where none was given and none lies in `path`."""

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
    """The folders `<model_path>/<version>`, `<model_path>/vae` and the text encoder's; nothing of them is read yet.

    model_path: "demo" is the model that ships in the package. version: may be left out where there is only one, or one for videos
    of `num_frames` frames, such as 65x512x512.
    text_encoder: a folder; left out, `<model_path>/text_encoder` where it exists. Raises WeightsError for what is missing.
    """
    path = DEMO if str(model_path) == "demo" else Path(model_path)
    if not path.is_dir():
        raise WeightsError(
            f"model folder {path} does not exist: check the path, or use 'demo' for the model that ships"
        )
    if not (path / "vae" / "config.json").is_file():
        raise WeightsError(
            f"{path} has no vae/config.json: name the folder that holds vae/ and the transformer's folder beside it"
        )
    versions = sorted(
        item.parent.name
        for item in path.glob("*/config.json")
        if item.parent.name not in ("vae", "text_encoder")
    )
    if version is None:
        fitting = [name for name in versions if name.startswith(f"{num_frames}x")]
        versions = fitting if len(fitting) == 1 else versions
        if len(versions) != 1:
            found = (
                f"holds {', '.join(versions)}: choose one with --version"
                if versions
                else "holds no transformer: download it"
            )
            raise WeightsError(f"{path} {found}")
        version = versions[0]
    if version not in versions:
        raise WeightsError(
            f"{path} has no version {version!r}{did_you_mean(version, versions)}: it holds {', '.join(versions) or 'none'}"
        )
    if text_encoder is None and (path / "text_encoder").is_dir():
        text_encoder = path / "text_encoder"
    if text_encoder is not None and not (Path(text_encoder) / "config.json").is_file():
        raise WeightsError(
            f"text encoder folder {text_encoder} has no config.json: check the path, or download T5 into it"
        )
    return ModelFolder(
        path, path / version, path / "vae", None if text_encoder is None else Path(text_encoder)
    )


def find_autoencoder(path: str | Path) -> Path:
    """The folder of the autoencoder: `path`/vae of a model folder, or `path` itself. Raises WeightsError where there is none."""
    path = DEMO if str(path) == "demo" else Path(path)
    if not path.is_dir():
        raise WeightsError(
            f"model folder {path} does not exist: check the path, or use 'demo' for the model that ships"
        )
    found = next((folder for folder in (path / "vae", path) if (folder / "config.json").is_file()), None)
    if found is None:
        raise WeightsError(f"{path} has no vae/config.json: name a model folder, or the autoencoder's own")
    return found


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A remark in brackets about the choice that is spelled most alike, or nothing."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
