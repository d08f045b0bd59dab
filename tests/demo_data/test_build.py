import subprocess

import pytest

from opensora.demo_data import build as demo_build
from opensora.demo_data.render import Renderer
from tests.demo_data.conftest import SUBJECTS


def test_cache_is_cut_to_the_box_of_the_whole_animation(renderer):
    assert renderer.frames("elephant").shape == (9, 50, 66, 4)
    assert renderer.frames("elephant")[..., 3].any(axis=(0, 1)).all()


def test_missing_animation_is_named(archive, tmp_path):
    with pytest.raises(ValueError, match="no animation found for unicorn"):
        demo_build.build_from([archive], tmp_path, 16, {**SUBJECTS, "unicorn": "1f984"})
    assert not (tmp_path / "manifest.json").exists()


def test_build_keeps_a_complete_cache_and_repairs_a_damaged_one(archive, tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(demo_build, "fetch", lambda folder: fetched.append(folder) or [archive])
    cache = demo_build.build(tmp_path, resolution=16, subjects=SUBJECTS)
    demo_build.build(tmp_path, resolution=16, subjects=SUBJECTS)
    assert fetched == [tmp_path / "archives"]
    (cache / "1f418.npy").write_bytes(b"damaged")
    demo_build.build(tmp_path, archives="elsewhere", resolution=16, subjects=SUBJECTS)
    assert fetched[1:] == ["elsewhere"] and Renderer(cache).frames("elephant").shape[0] == 9


def test_fetch_uses_the_client_and_checks_the_archive(tmp_path, monkeypatch):
    commands = []

    def run(command, **options):
        commands.append(command)
        (tmp_path / demo_build.archive_name(command[2])).write_bytes(b"content")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(
        ValueError, match=r"lobehub-fluent-emoji-anim-1-1\.0\.0\.tgz has sha256 ed7002b4.*delete it"
    ):
        demo_build.fetch(tmp_path)
    assert commands == [
        ["npm", "pack", "@lobehub/fluent-emoji-anim-1@1.0.0", "--pack-destination", str(tmp_path)]
    ]


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (FileNotFoundError("npm"), "npm is not installed"),
        (
            subprocess.CalledProcessError(1, "npm", stderr="no network"),
            "could not download @lobehub/.*: no network",
        ),
    ],
)
def test_fetch_explains_a_failing_client(tmp_path, monkeypatch, failure, message):
    def run(command, **options):
        raise failure

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ValueError, match=message):
        demo_build.fetch(tmp_path)
