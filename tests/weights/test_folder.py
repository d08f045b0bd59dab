"""Finding the parts of a model folder."""

from pathlib import Path

import pytest

from opensora.weights import WeightsError, find_model
from opensora.weights.folder import DEMO, find_autoencoder


def make(folder: Path, *parts: str) -> Path:
    for part in parts:
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text("{}")
    return folder


def test_the_only_version_and_the_encoder_inside_are_found(tmp_path: Path) -> None:
    model = find_model(make(tmp_path, "17x64x64", "vae", "text_encoder"))
    assert (model.transformer, model.vae, model.text_encoder) == (
        tmp_path / "17x64x64",
        tmp_path / "vae",
        tmp_path / "text_encoder",
    )


def test_an_encoder_elsewhere_or_none(tmp_path: Path) -> None:
    release = make(tmp_path / "release", "65x512x512", "221x512x512", "vae")
    assert find_model(release, "65x512x512").text_encoder is None
    encoder = make(tmp_path, "t5") / "t5"
    assert find_model(release, "221x512x512", str(encoder)).text_encoder == encoder


def test_the_version_for_a_number_of_frames(tmp_path: Path) -> None:
    release = make(tmp_path / "release", "65x512x512", "221x512x512", "vae")
    assert find_model(release, num_frames=65).transformer.name == "65x512x512"
    assert find_model(release, "65x512x512", num_frames=221).transformer.name == "65x512x512"
    with pytest.raises(WeightsError, match="choose one with --version"):
        find_model(release, num_frames=5)
    assert (
        find_model(make(tmp_path / "one", "65x512x512", "vae"), num_frames=5).transformer.name == "65x512x512"
    )


def test_an_autoencoder_by_itself_or_in_a_model(tmp_path: Path) -> None:
    release = make(tmp_path / "release", "65x512x512", "vae")
    assert find_autoencoder(release) == find_autoencoder(release / "vae") == release / "vae"
    assert find_autoencoder("demo") == DEMO / "vae"
    for folder, message in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "has no vae/config.json")):
        with pytest.raises(WeightsError, match=message):
            find_autoencoder(folder)


def test_faults(tmp_path: Path) -> None:
    release = make(tmp_path / "release", "65x512x512", "221x512x512", "vae")
    faults = {
        "model folder .*nowhere does not exist": (tmp_path / "nowhere", None, None),
        r"has no vae/config\.json": (make(tmp_path / "half", "65x512x512"), None, None),
        "holds 221x512x512, 65x512x512: choose one with --version": (release, None, None),
        r"no version '65x512' \(did you mean '65x512x512'\?\): it holds 221x512x512, 65x512x512": (
            release,
            "65x512",
            None,
        ),
        "text encoder folder .*t6 has no config": (release, "65x512x512", tmp_path / "t6"),
        "holds no transformer": (make(tmp_path / "only", "vae"), None, None),
    }
    for message, arguments in faults.items():
        with pytest.raises(WeightsError, match=message):
            find_model(*arguments)
