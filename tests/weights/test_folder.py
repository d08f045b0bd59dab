"""Finding the parts of a model folder."""

from pathlib import Path

import pytest

from opensora.weights import WeightsError, find_model
from opensora.weights.folder import DEMO, find_autoencoder, in_cache


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


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_names_on_the_hub_are_looked_up_in_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "cache"))
    commit = "0123456789" * 4
    model = tmp_path / "cache" / ("hub" if variable == "HF_HOME" else "") / "models--some--model"
    snapshot = model / "snapshots" / commit
    (snapshot / "vae").mkdir(parents=True)
    (snapshot / "vae" / "config.json").write_text("{}")
    assert in_cache("some/model") == Path("some/model")  # the cache names no commit
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    assert find_autoencoder("some/model") == snapshot / "vae"
    assert in_cache("other/model") == Path("other/model")
    (model / "refs" / "main").write_text("../..")
    assert in_cache("some/model") == Path("some/model")
    (tmp_path / "some" / "model").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    assert in_cache("some/model") == Path("some/model")  # a folder of this name comes first
