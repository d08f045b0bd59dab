"""Fetches the animations of the demo data set with the registry's client and decodes them once into a cache that `demo.Renderer` reads.

Source: npm packages @lobehub/fluent-emoji-anim-1 and -2, MIT licence, art of Microsoft's Fluent Emoji.
"""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from opensora.demo_data.render import demo_set
from opensora.files import write_json

PACKAGES = {
    "@lobehub/fluent-emoji-anim-1@1.0.0": "4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea",
    "@lobehub/fluent-emoji-anim-2@1.0.0": "e431da8172e394036c330faa77648d6fbbae1fd3b0be95637c4497c9075019c0",
}


def archive_name(package: str) -> str:
    """The file name that `npm pack` gives: "@scope/name@1.0.0" -> "scope-name-1.0.0.tgz"."""
    name, _, version = package.lstrip("@").rpartition("@")
    return f"{name.replace('/', '-')}-{version}.tgz"


def fetch(folder: str | Path) -> list[Path]:
    """The source archives (350 MB) in `folder`, downloaded when missing, each checked against its pinned sha256.

    Raises ValueError when the client is missing or fails, or when an archive is not the pinned one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for package, expected in PACKAGES.items():
        path = folder / archive_name(package)
        if not path.exists():
            _download(package, folder)
        found = _sha256(path)
        if found != expected:
            raise ValueError(f"{path} has sha256 {found}, expected {expected}: delete it and run again")
        paths.append(path)
    return paths


def _download(package: str, folder: Path) -> None:
    try:
        subprocess.run(
            ["npm", "pack", package, "--pack-destination", str(folder)],
            check=True,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError as error:
        raise ValueError(
            "the program npm is not installed: install Node.js, or put the archives into the folder yourself"
        ) from error
    except subprocess.CalledProcessError as error:
        raise ValueError(f"npm could not download {package}: {error.stderr.strip()[-300:]}") from error


def build(
    destination: str | Path,
    archives: str | Path | None = None,
    resolution: int = 128,
    subjects: dict[str, str] | None = None,
) -> Path:
    """Make the cache folder: one .npy a subject (premultiplied RGBA uint8 (N, h, w, 4)) and manifest.json, written last.

    The longer side of each subject's bounding box becomes `resolution` pixels. `archives` is a folder with the source
    archives (default: `destination`/archives, downloaded when missing). A complete cache with the same settings is kept.
    """
    destination = Path(destination)
    subjects = demo_set().subjects if subjects is None else subjects
    if not _is_complete(destination, resolution, subjects):
        paths = fetch(archives if archives is not None else destination / "archives")
        build_from(paths, destination, resolution, subjects)
    return destination


def build_from(paths: list[Path], destination: Path, resolution: int, subjects: dict[str, str]) -> None:
    """Decode `subjects` (name to file stem) out of the archives at `paths`. Raises ValueError when one is in none of them."""
    destination.mkdir(parents=True, exist_ok=True)
    wanted = {f"package/assets/{stem}.webp": (name, stem) for name, stem in subjects.items()}
    entries: dict[str, Any] = {}
    for path in paths:
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.name in wanted else None
                if stream is not None:
                    name, stem = wanted[member.name]
                    entries[name] = _write_frames(
                        destination / f"{stem}.npy", decode(stream.read(), resolution)
                    )
    missing = [name for name in subjects if name not in entries]
    if missing:
        raise ValueError(
            f"no animation found for {', '.join(missing[:10])} in {', '.join(str(path) for path in paths)}"
        )
    write_json(
        destination / "manifest.json",
        {"resolution": resolution, "subjects": {name: entries[name] for name in subjects}},
    )


def decode(content: bytes, resolution: int) -> np.ndarray:
    """An animated picture -> premultiplied RGBA uint8 (N, h, w, 4), cut to the box that its alpha ever covers, max(h, w) = resolution."""
    image = Image.open(io.BytesIO(content))
    frames = []
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        frames.append(image.convert("RGBA").convert("RGBa"))
    boxes = [box for frame in frames if (box := frame.getchannel("a").getbbox()) is not None]
    left, top = (min(box[i] for box in boxes) for i in (0, 1))
    right, bottom = (max(box[i] for box in boxes) for i in (2, 3))
    scale = resolution / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    return np.stack(
        [
            np.asarray(frame.resize(size, Image.Resampling.HAMMING, box=(left, top, right, bottom)))
            for frame in frames
        ]
    )


def _write_frames(path: Path, frames: np.ndarray) -> dict[str, Any]:
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        np.save(file, frames)
    os.replace(temporary, path)
    return {"file": path.name, "shape": list(frames.shape), "sha256": _sha256(path)}


def _is_complete(folder: Path, resolution: int, subjects: dict[str, str]) -> bool:
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return False
    content = json.loads(manifest.read_text(encoding="utf-8"))
    entries = content["subjects"]
    same = content["resolution"] == resolution and {
        name: f"{stem}.npy" for name, stem in subjects.items()
    } == {name: entry["file"] for name, entry in entries.items()}
    return same and all(
        (folder / e["file"]).is_file() and _sha256(folder / e["file"]) == e["sha256"]
        for e in entries.values()
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
