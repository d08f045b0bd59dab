"""A small cache of the demo data set, made from animations that are drawn here."""

import io
import tarfile

import pytest
from PIL import Image, ImageDraw

from opensora.demo_data import build as demo_build
from opensora.demo_data.render import Renderer
from tests.small_model import model, session_model

SUBJECTS = {"elephant": "1f418", "tiger": "1f405"}


def animation(frames: int = 9) -> bytes:
    """A red disc that moves to the right on nothing: 9 frames of 40 x 40, box 25 x 33."""
    pictures = []
    for number in range(frames):
        picture = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
        ImageDraw.Draw(picture).ellipse((2 + number, 5, 26 + number, 29), fill=(200, 10, 20, 255))
        pictures.append(picture)
    stream = io.BytesIO()
    pictures[0].save(stream, "WEBP", save_all=True, append_images=pictures[1:], duration=42, lossless=True)
    return stream.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "animations.tgz"
    with tarfile.open(path, "w:gz") as file:
        for stem in SUBJECTS.values():
            member = tarfile.TarInfo(f"package/assets/{stem}.webp")
            member.size = len(animation())
            file.addfile(member, io.BytesIO(animation()))
    return path


@pytest.fixture(scope="module")
def renderer(archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    demo_build.build_from([archive], folder, 66, SUBJECTS)
    return Renderer(folder)


__all__ = ["archive", "model", "renderer", "session_model"]
