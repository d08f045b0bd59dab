"""Class-conditional runs: labels, dropped labels, gradients of the reference, checkpoints and resuming."""

import json
from pathlib import Path

import numpy as np
import pytest

from opensora.cli import main
from opensora.data.caches.latents import LatentCache
from opensora.data.labels import ClassLabels, NoLabels
from opensora.data.loader import Loader
from opensora.data.setup import open_source
from opensora.models import Latte
from opensora.models.latte_class.config import LatteClassConfig
from opensora.train.latte_class import ClassTask, TrainClassOptions, step_gradients
from opensora.train.loss import Batch
from opensora.weights import load_config
from tests import reference
from tests.data.material import latent_cache
from tests.models.latte_class.cases import build, frames_second, tensors
from tests.small_model import VAE
from tests.train.small import command, words

NAMES = ("ant", "Bee", "cow")
LATTE = LatteClassConfig(
    num_layers=1, num_attention_heads=2, attention_head_dim=8, num_classes=len(NAMES), class_names=NAMES,
    sample_size=(4, 4), video_length=2,
)  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path) -> LatentCache:
    """Clip i is of the class i % 3 and has latents of mean i."""
    moments = np.zeros((6, 8, 2, 4, 4), np.float32)
    moments[:, :4] = np.arange(6, dtype=np.float32)[:, None, None, None, None]
    return latent_cache(tmp_path / "latents", [NAMES[i % 3] for i in range(6)], moments)


def task(cache: LatentCache, labels: ClassLabels, model: Latte, **changes: object) -> ClassTask:
    settings = {"ae_path": "", "vae_latent_folder": str(cache.folder), "batch_size": 6, **changes}
    options = TrainClassOptions(**settings)  # type: ignore[arg-type]
    source = open_source(
        options, options.seed, lambda opened: [labels] * len(opened), options.class_dropout_prob
    )
    return ClassTask(model, None, Loader(source), None, options)


def new_model(config: LatteClassConfig = LATTE) -> Latte:
    return Latte.initialise(config, np.random.default_rng(0))


def test_every_clip_has_the_label_of_its_class(cache: LatentCache) -> None:
    run = task(cache, ClassLabels(NAMES), new_model(), class_dropout_prob=0.0, sample_posterior=False)
    batch = run.batch(1)[0]
    clips = np.rint(batch["latents"].mean((1, 2, 3, 4)) / 0.18215).astype(int)
    assert batch["labels"][:, 0, 0].tolist() == [clip % 3 for clip in clips]
    assert sorted(clips) == list(range(6))


def test_labels_are_dropped_at_the_given_rate(cache: LatentCache) -> None:
    run = task(cache, ClassLabels(NAMES), new_model(), class_dropout_prob=0.25, batch_size=60)
    labels = np.concatenate([run.batch(step)[0]["labels"].ravel() for step in range(1, 16)])
    assert set(labels) == {0, 1, 2, 3}
    assert (labels == LATTE.null_label).mean() == pytest.approx(0.25, abs=0.05)


@pytest.mark.usefixtures("operator_mode")
def test_accumulated_batches_are_one_larger_batch(cache: LatentCache) -> None:
    results = []
    for size, parts in ((4, 1), (2, 2)):
        run = task(
            cache, ClassLabels(NAMES), new_model(), batch_size=size, gradient_accumulation_steps=parts,
            lr_warmup_steps=0,
        )  # fmt: skip
        terms = run.step(1, run.batch(1))
        results.append((terms["loss"], {name: value.asnumpy() for name, value in run.weights.items()}))
    (loss, weights), (same, accumulated) = results
    assert loss == pytest.approx(same, rel=1e-5)
    for name, value in weights.items():
        np.testing.assert_allclose(accumulated[name], value, atol=2e-7, err_msg=name)


@pytest.mark.usefixtures("operator_mode")
def test_a_checkpoint_continues_exactly(cache: LatentCache) -> None:
    first = task(cache, ClassLabels(NAMES), new_model(), lr_warmup_steps=0)
    first.step(1, first.batch(1))
    files = first.state_files()
    assert {"pos_embed", "temp_embed"} < set(files["model"])
    other = task(cache, ClassLabels(NAMES), new_model(), lr_warmup_steps=0)
    other.load_state_files(files)
    for run in (first, other):
        run.step(2, run.batch(2))
    for name, value in first.weights.items():
        np.testing.assert_array_equal(other.weights[name].asnumpy(), value.asnumpy())


@pytest.mark.usefixtures("operator_mode")
def test_an_unconditional_run_reads_no_classes(cache: LatentCache) -> None:
    run = task(cache, NoLabels(), new_model(LATTE.changed(num_classes=0, class_names=())))
    assert not run.batch(1)[0]["labels"].any()
    assert np.isfinite(run.step(1, run.batch(1))["loss"])
    assert not any(name.startswith("y_embedder") for name in run.weights)


@pytest.mark.usefixtures("operator_mode")
def test_gradients_of_the_reference_with_labels() -> None:
    found = tensors("dit")
    dropped = np.where(found["train.rand"] < 0.1, 11, found["train.y"])
    batch = Batch(
        latents=frames_second(found["train.x_start"]),
        noise=frames_second(found["train.noise"]),
        timestep=found["train.t"],
        labels=dropped,
    )
    terms, gradients = step_gradients(build("dit", "mindspore"), batch)
    np.testing.assert_allclose(terms["loss"].asnumpy(), found["train.loss"], rtol=1e-5)
    compare(gradients, found, "train.grad.")


@pytest.mark.usefixtures("operator_mode")
def test_gradients_of_the_reference_with_images() -> None:
    found = reference.load("latte_class/single_train")
    batch = Batch(latents=found["x_start"], noise=found["noise"], timestep=found["t"], num_images=2)
    terms, gradients = step_gradients(build("single", "mindspore"), batch)
    np.testing.assert_allclose(terms["vb"].asnumpy(), found["ckpt.vb"], rtol=1e-5)
    compare(gradients, found, "ckpt.grad.")


def compare(gradients: dict, found: dict[str, np.ndarray], prefix: str) -> None:
    names = [name for name in found if name.startswith(prefix)]
    assert len(names) == 8
    for name in names:
        difference = np.abs(gradients[name.removeprefix(prefix)].asnumpy() - found[name])
        assert difference.max() <= 1e-4 * np.abs(found[name]).max(), name


@pytest.mark.slow
@pytest.mark.usefixtures("operator_mode")
def test_the_command(cache: LatentCache, tmp_path: Path) -> None:
    """From cached latents to a run folder that is a model folder, with the names of the classes."""
    autoencoder, architecture = tmp_path / "vae", tmp_path / "tiny"
    for folder, config in ((autoencoder, vars(VAE)), (architecture, LATTE.to_dict())):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
    options = {
        "vae_latent_folder": cache.folder, "ae_path": autoencoder, "model": architecture, "batch_size": 2,
        "max_train_steps": 2, "output_dir": tmp_path / "run", "mode": 1,
    }  # fmt: skip
    command("train-class", **options)
    config = LatteClassConfig.from_dict(load_config(tmp_path / "run"))
    assert config.class_names == ("Bee", "ant", "cow") and config.num_classes == 3
    model = Latte.from_pretrained(tmp_path / "run", engine="openvino")
    assert set(model.weights) >= {"y_embedder.embedding_table.weight"}
    more = {**options, "output_dir": tmp_path / "more", "pretrained": tmp_path / "run"}
    command("train-class", **more, train_classcondition="true")


@pytest.mark.slow
def test_bad_requests(cache: LatentCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(message: str, **options: object) -> None:
        base = {"vae_latent_folder": cache.folder, "ae_path": "demo", "output_dir": tmp_path / "run"}
        assert main(words("train-class", **{**base, **options})) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]

    (tmp_path / "names.txt").write_text("ant\nBee\n")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps(vars(VAE)))
    fails("model 'Latte-XXL/122' is unknown", model="Latte-XXL/122", ae_path=tmp_path / "vae")
    fails("reads no labels", model="Latte-XL/122-v1.0.0", ae_path=tmp_path / "vae")
    fails(
        "the class 'cow' is unknown: this run has 2 classes",
        classes=tmp_path / "names.txt",
        ae_path=tmp_path / "vae",
    )
    fails("class list", classes=tmp_path / "none.txt")
    fails("take them from the videos with --use_img_from_vid", use_image_num=2, image_data="pictures.txt")
    fails("class_dropout_prob 2.0 is out of range", class_dropout_prob=2)
