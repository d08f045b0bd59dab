"""Download the animations of the demo data set with npm and decode them once into a cache for `Renderer`.

Source: npm packages @lobehub/fluent-emoji-anim-1 and -2, MIT licence, art of Microsoft's Fluent Emoji.
"""

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from opensora.demo_data.render import demo_set, read_demo_manifest
from opensora.files import hash_file, write_atomic, write_json

PACKAGES = {
    "@lobehub/fluent-emoji-anim-1@1.0.0": "4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea",
    "@lobehub/fluent-emoji-anim-2@1.0.0": "e431da8172e394036c330faa77648d6fbbae1fd3b0be95637c4497c9075019c0",
}


def archive_name(package: str) -> str:
    """The file name of `npm pack`: "@scope/name@1.0.0" -> "scope-name-1.0.0.tgz"."""
    name, _, version = package.lstrip("@").rpartition("@")
    return f"{name.replace('/', '-')}-{version}.tgz"


def fetch(folder: str | Path) -> list[Path]:
    """Download the missing source archives (350 MB) to `folder` and check each against its pinned sha256.

    Raises ValueError if npm is missing or fails, or if an archive is not the pinned one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for package, expected in PACKAGES.items():
        path = folder / archive_name(package)
        if not path.exists():
            _download(package, folder)
        found = hash_file(path)
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
            "npm is not installed: install Node.js, or put the archives into the folder yourself"
        ) from error
    except subprocess.CalledProcessError as error:
        raise ValueError(f"npm could not download {package}: {error.stderr.strip()[-300:]}") from error


def build(
    destination: str | Path,
    archives: str | Path | None = None,
    resolution: int = 128,
    subjects: dict[str, str] | None = None,
) -> Path:
    """Build the cache: for each subject a .npy, premultiplied RGBA uint8 (N, h, w, 4), then manifest.json.

    The longer side of each subject's bounding box has `resolution` pixels. archives: folder with the source
    archives; by default they are downloaded to `destination`/archives. A complete cache with the same
    settings is kept.
    """
    destination = Path(destination)
    subjects = demo_set().subjects if subjects is None else subjects
    if not _is_complete(destination, resolution, subjects):
        paths = fetch(archives if archives is not None else destination / "archives")
        build_from(paths, destination, resolution, subjects)
    return destination


def build_from(paths: list[Path], destination: Path, resolution: int, subjects: dict[str, str]) -> None:
    """Decode `subjects` (name to file stem) from the archives at `paths`.

    Raises ValueError if one is in none of them.
    """
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
    """Decode an animation -> premultiplied RGBA uint8 (N, h, w, 4), max(h, w) = resolution.

    It is cropped to the smallest box that holds every frame's opaque pixels.
    """
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
    write_atomic(path, lambda file: np.save(file, frames))
    return {"file": path.name, "shape": list(frames.shape), "sha256": hash_file(path)}


def _is_complete(folder: Path, resolution: int, subjects: dict[str, str]) -> bool:
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return False
    content = read_demo_manifest(manifest)
    expected = {name: f"{stem}.npy" for name, stem in subjects.items()}
    found = {name: entry.file for name, entry in content.subjects.items()}
    same = content.resolution == resolution and expected == found
    return same and all(
        (folder / entry.file).is_file() and hash_file(folder / entry.file) == entry.sha256
        for entry in content.subjects.values()
    )
