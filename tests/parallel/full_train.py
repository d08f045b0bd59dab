"""Training by two and four processes against training by one, through the command line."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from opensora.cli import main
from tests.parallel import launch
from tests.parallel.runs import assert_same, metrics, words


@pytest.fixture
def data(place: Path) -> dict[str, object]:
    """What all runs learn."""
    return {
        "vae_latent_folder": place / "latents",
        "validation_latent_folder": place / "latents",
        "train_text_encoder": True,
    }


@pytest.mark.parametrize(("mode", "sp_size"), [("data", 1), ("optim", 1), ("data", 4), ("optim", 4)])
def test_four_processes(place: Path, data: dict[str, object], mode: str, sp_size: int) -> None:
    """Four samples a step, five latent frames each, shared by samples or by frames."""
    if not (place / "alone").exists():
        assert main(words(place, "alone", 10, batch_size=4, **data)) == 0
    name = f"four-{mode}-{sp_size}"
    shared = words(place, name, 10, batch_size=sp_size, sp_size=sp_size, parallel_mode=mode, **data)
    job = launch.run(4, ["-m", "opensora", *shared], place / f"{name}-logs")
    assert job.code == 0, job
    # Validation takes whole batches, of another size where samples are shared.
    assert_same(place / name, place / "alone", 10, ("loss",))


def test_four_processes_then_two_then_one(place: Path, data: dict[str, object]) -> None:
    """Four processes share frames, samples and optimizer states; two, then one, resume the run."""
    assert main(words(place, "one", 10, batch_size=4, **data)) == 0
    shared = {"parallel_mode": "optim", "gradient_accumulation_steps": 2, "batch_size": 1, **data}
    job = launch.run(
        4, ["-m", "opensora", *words(place, "fewer", 4, sp_size=2, **shared)], place / "four-logs"
    )
    assert job.code == 0, job
    folder = place / "fewer" / "checkpoints" / "step-00000004"
    sizes = [
        sum(array.nbytes for array in load_file(path).values())
        for path in sorted(folder.glob("optimizer-*-of-4.safetensors"))
    ]
    whole = load_file(place / "one" / "checkpoints" / "step-00000010" / "optimizer-0-of-1.safetensors")
    assert len(sizes) == 4 and max(sizes) <= sum(array.nbytes for array in whole.values()) / 4 + 64
    job = launch.run(2, ["-m", "opensora", *words(place, "fewer", 7, **shared)], place / "two-logs")
    assert job.code == 0, job
    assert main(words(place, "fewer", 10, batch_size=4, **data)) == 0
    assert_same(place / "fewer", place / "one", 10)

    assert main(["combine", f"--src={folder}", f"--dest={place}/whole"]) == 0
    assert (
        main(
            [
                "generate",
                "rain",
                f"--model_path={place}/model",
                f"--pretrained_ckpt={place}/whole",
                f"--save_img_path={place}/out",
            ]
        )
        == 0
    )
    assert list((place / "out").glob("*.mp4"))


def test_two_processes_then_one_train_an_autoencoder_and_its_discriminator(place: Path) -> None:
    """Norms, adaptive weight and optimizers are those of one process with all clips, also after a resume.

    The learning rate is small: at 1e-3 the two networks amplify rounding errors a thousandfold in two steps.
    """

    def words(run: str, steps: int, size: int, **options: object) -> list[str]:
        settings = {
            "video_path": place / "videos, all of them", "model_config": place / "model/vae",
            "output_dir": place / run,
            "max_train_steps": steps, "batch_size": size, "video_num_frames": 5, "resolution": 32,
            "num_validation_clips": 2, "lr_warmup_steps": 0, "learning_rate": 1e-4, "optim_eps": 1e-4,
            "log_interval": 1, "use_discriminator": True, "disc_start": 2,
            **options,
        }  # fmt: skip
        return ["train-vae", *(f"--{name}={value}" for name, value in settings.items())]

    assert main(words("vae-one", 6, 2)) == 0
    job = launch.run(
        2, ["-m", "opensora", *words("vae-two", 4, 1, parallel_mode="optim")], place / "vae-logs"
    )
    assert job.code == 0, job
    folder = place / "vae-two" / "checkpoints" / "step-00000004"
    shards = [path.name for path in sorted(folder.glob("discriminator-optimizer-*"))]
    assert shards == [
        "discriminator-optimizer-0-of-2.safetensors",
        "discriminator-optimizer-1-of-2.safetensors",
    ]
    sheets = [path.name for path in (place / "vae-two" / "samples").iterdir()]
    assert sheets == ["step-00000004.png"]
    assert main(["combine", f"--src={folder}", f"--dest={place}/vae-whole"]) == 0
    assert len(load_file(place / "vae-whole" / "discriminator-optimizer-0-of-1.safetensors")) > 2
    assert main(words("vae-two", 6, 2)) == 0
    for name in ("loss", "grad_norm", "disc_loss", "disc_grad_norm", "d_weight", "g_loss"):
        expected, found = metrics(place / "vae-one", name), metrics(place / "vae-two", name)
        np.testing.assert_allclose(found, expected, rtol=3e-4, err_msg=name)
    assert len(expected) == 4
