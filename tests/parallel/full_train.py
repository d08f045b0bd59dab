"""Training by two and four processes against training by one, through the command line."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from opensora.cli import main
from tests.parallel import launch
from tests.parallel.runs import assert_same, metrics, words


def test_four_processes_then_two_then_one(place: Path) -> None:
    """Frames, samples and the optimizer's states shared by four; the run goes on with samples and states shared by two, then alone."""
    # The latents were made up, and by no autoencoder: the model's own is not asked.
    data = {
        "ae_path": place / "model",
        "vae_latent_folder": place / "latents",
        "validation_latent_folder": place / "latents",
        "train_text_encoder": True,
    }
    assert main(words(place, "one", 10, batch_size=4, **data)) == 0
    shared = {"parallel_mode": "optim", "gradient_accumulation_steps": 2, "batch_size": 1, **data}
    job = launch.run(4, ["-m", "opensora", *words(place, "fewer", 4, sp_size=2, **shared)], place / "four-logs")
    assert job.code == 0, job
    folder = place / "fewer" / "checkpoints" / "step-00000004"
    sizes = [sum(array.nbytes for array in load_file(path).values()) for path in sorted(folder.glob("optimizer-*-of-4.safetensors"))]
    whole = load_file(place / "one" / "checkpoints" / "step-00000010" / "optimizer-0-of-1.safetensors")
    assert len(sizes) == 4 and max(sizes) <= sum(array.nbytes for array in whole.values()) / 4 + 64
    job = launch.run(2, ["-m", "opensora", *words(place, "fewer", 7, **shared)], place / "two-logs")
    assert job.code == 0, job
    assert main(words(place, "fewer", 10, batch_size=4, **data)) == 0
    assert_same(place / "fewer", place / "one", 10)

    assert main(["combine", f"--src={folder}", f"--dest={place}/whole"]) == 0
    assert (
        main(["generate", "rain", f"--model_path={place}/model", f"--pretrained_ckpt={place}/whole", f"--save_img_path={place}/out"]) == 0
    )
    assert list((place / "out").glob("*.mp4"))


def test_two_processes_train_an_autoencoder_and_its_discriminator(place: Path) -> None:
    """Before the discriminator counts the losses are those of one process; then its batch norms see other clips, and they are close."""
    common = ["train-vae", f"--video_path={place}/videos, all of them", f"--model_config={place}/model/vae", "--max_train_steps=4"]
    common += ["--video_num_frames=5", "--resolution=32", "--num_validation_clips=2", "--lr_warmup_steps=0", "--learning_rate=1e-3"]
    common += ["--use_discriminator", "--disc_start=3", "--log_interval=1", "--optim_eps=1e-4"]
    assert main([*common, f"--output_dir={place}/vae-one", "--batch_size=2"]) == 0
    shared = [*common, f"--output_dir={place}/vae-two", "--batch_size=1", "--parallel_mode=optim"]
    job = launch.run(2, ["-m", "opensora", *shared], place / "vae-logs")
    assert job.code == 0, job
    expected, found = metrics(place / "vae-one", "nll_loss"), metrics(place / "vae-two", "nll_loss")
    np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-4)
    np.testing.assert_allclose(found[3], expected[3], rtol=1e-2)
    assert len(metrics(place / "vae-two", "disc_loss")) == 1
    sheets = [path.name for path in (place / "vae-two" / "samples").iterdir()]
    assert sheets == ["step-00000004.png"]
