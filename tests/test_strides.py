"""An autoencoder with strides of 2x4x4 works everywhere: nothing else knows the release's 4x8x8."""

import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from opensora import Pipeline
from opensora.cli import main
from opensora.data.caches.latents import LatentCache
from opensora.models import CausalVAE, LatteT2V, T5Encoder, Tiling
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.models.spec import ModelSpec
from opensora.weights import load_config
from opensora.weights.folder import DEMO
from tests.data.material import write_set
from tests.small_model import DEFAULTS, LATTE, T5

VAE = CausalVAEConfig(
    hidden_size=8,
    hidden_size_mult=(1, 1, 1),
    num_res_blocks=1,
    norm_num_groups=4,
    encoder_resnet_blocks=("ResnetBlock2D", "ResnetBlock2D", "ResnetBlock3D"),
    encoder_spatial_downsample=("Downsample", "Downsample", ""),
    encoder_temporal_downsample=("", "TimeDownsampleRes2x", ""),
    decoder_resnet_blocks=("ResnetBlock2D", "ResnetBlock2D", "ResnetBlock3D"),
    decoder_spatial_upsample=("", "SpatialUpsample2x", "SpatialUpsample2x"),
    decoder_temporal_upsample=("", "", "TimeUpsampleRes2x"),
)


@pytest.fixture(scope="module")
def vae() -> CausalVAE:
    return CausalVAE.initialise(VAE, np.random.default_rng(0))


@pytest.fixture(scope="module")
def model(vae: CausalVAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose transformer was made for 3 latents of 4x4: 5 frames of 16x16."""
    folder, rng = tmp_path_factory.mktemp("strides") / "model", np.random.default_rng(1)
    config = LatteT2V.initialise(LATTE, rng)
    config.save_pretrained(folder / "5x16x16")
    vae.save_pretrained(folder / "vae")
    T5Encoder.initialise(T5, rng).save_pretrained(folder / "text_encoder")
    shutil.copy(DEMO / "text_encoder" / "spiece.model", folder / "text_encoder")
    (folder / "generate.yaml").write_text(DEFAULTS)
    return folder


def pixels(frames: int, side: int) -> ms.Tensor:
    rng = np.random.default_rng(frames)
    return ms.Tensor(rng.uniform(-1, 1, (1, 3, frames, side, side)).astype(np.float32))


def command(name: str, **options: object) -> None:
    assert main([name, *(f"--{key}={value}" for key, value in options.items())]) == 0


def test_latents_are_2x4x4_smaller(vae: CausalVAE) -> None:
    assert VAE.strides == (2, 4)
    latents = vae.encode(pixels(5, 20)).mode()
    assert latents.shape == (1, 4, 3, 5, 5) == vae.latent_shape((1, 3, 5, 20, 20))
    assert vae.decode(latents).shape == (1, 3, 5, 20, 20)
    with pytest.raises(ValueError, match="the frames are 18x18: height and width must be multiples of 4"):
        vae.encode(pixels(1, 18))


@pytest.mark.slow
@pytest.mark.usefixtures("operator_mode")
def test_chunks_and_tiles(vae: CausalVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    video = pixels(9, 28)
    results = {}
    for name, policy in (
        ("exact", VAEPolicy(chunked=False)),
        ("chunked", VAEPolicy(chunked=True)),
        ("tiled", VAEPolicy(False, Tiling(size=16, frames=5))),
    ):
        monkeypatch.setattr(vae, "policy", policy)
        latents = vae.encode(video).mode()
        results[name] = latents.asnumpy(), vae.decode(latents).asnumpy()
    for name in ("chunked", "tiled"):
        for found, expected in zip(results[name], results["exact"], strict=True):
            assert found.shape == expected.shape
    np.testing.assert_allclose(results["chunked"][1], results["exact"][1], rtol=1e-4, atol=1e-4)
    # The corner that no other tile touches is that of the first tile by itself.
    alone = vae.encode(video[:, :, :5, :16, :16]).mode().asnumpy()
    np.testing.assert_allclose(
        results["tiled"][0][:, :, :3, :3, :3], alone[..., :3, :3], rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="tile frames 4 is not a multiple of 2 plus one"):
        vae.tiling = Tiling(size=16, frames=4)


@pytest.mark.usefixtures("operator_mode")
def test_gradients_reach_every_weight(vae: CausalVAE) -> None:
    video = pixels(5, 8)
    loss, gradients = vae.value_and_grad(lambda r, p: ((r - video) ** 2).mean() + 1e-3 * p.kl().mean(), video)
    assert np.isfinite(loss.asnumpy()) and set(gradients) == set(vae.weights)


@pytest.mark.slow
def test_cache_training_and_a_video(model: Path, tmp_path: Path) -> None:
    spec = ModelSpec.find(model)
    assert (spec.native_size, spec.latent_shape((5, 16, 24))) == ((3, 16, 16), (4, 3, 4, 6))
    videos = write_set(tmp_path, 2)
    cut = {"num_frames": 5, "max_image_size": 24}
    command("encode-latents", video_data=videos, vae=model / "vae", output_path="latents", **cut)
    assert LatentCache(Path("latents")).moments(0).shape == (8, 3, 6, 6)
    for name, source in (("pixels", {}), ("cached", {"vae_latent_folder": "latents"})):
        command("train", model_path=model, video_data=videos, output_dir=name, max_train_steps=1,
                batch_size=2, lr_warmup_steps=1, **source, **cut)  # fmt: skip
        trained = load_config(Path(name))
        assert (trained["video_length"], trained["sample_size"]) == (3, [6, 6])

    pipe = Pipeline.from_pretrained(model, vae_policy=VAEPolicy(True, Tiling(size=16, frames=5)))
    assert pipe("a cat", num_frames=7, height=24, width=16, steps=1).frames.shape == (7, 24, 16, 3)
    assert pipe("a cat", num_frames=1, steps=1).frames.shape == (1, 16, 16, 3)
    assert pipe("a cat", num_frames=4, steps=1).frames.shape == (4, 16, 16, 3)
    with pytest.raises(
        ValueError, match=r"height 20 is not a multiple of 8 \(4 of the VAE times patches of 2\)"
    ):
        pipe("a cat", height=20)
