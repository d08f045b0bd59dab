"""From options to the data and the autoencoder of a denoiser's training."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from opensora.data.loader import Loader
from opensora.data.options import ClipOptions
from opensora.data.samples import SampleSource
from opensora.data.setup import clip_options
from opensora.models.causal_vae.model import CausalVAE
from opensora.models.causal_vae.tiling import Tiling
from opensora.parallel.mesh import Mesh
from opensora.train.denoiser_options import DenoiserOptions, TilingOptions

Options = TypeVar("Options", bound=DenoiserOptions)


def with_scaled_rate(options: Options, mesh: Mesh) -> Options:
    """The options with the learning rate of a step, if it is given for a sample."""
    if not options.scale_lr:
        return options
    samples = options.samples_per_step * mesh.data[1]
    return replace(options, scale_lr=False, learning_rate=options.learning_rate * samples)


def without_training_data(options: Options) -> Options:
    """The options with the latents of the validation as the data."""
    return replace(
        options,
        vae_latent_folder=options.validation_latent_folder,
        video_data=None,
        image_data=None,
        image_latent_folder=None,
        use_image_num=0,  # the loss is that of the videos
        use_img_from_vid=False,
        enable_tiling=False,
    )


def open_data(source: SampleSource, options: DenoiserOptions, mesh: Mesh) -> Loader:
    """The loader of a run's samples, which notes what cannot be read in the run folder."""
    name = "quarantine.jsonl" if mesh.is_first else f"quarantine-{mesh.rank}.jsonl"
    quarantine = None if options.dry_run else Path(options.output_dir) / name
    return Loader(source, options.dataloader_num_workers, quarantine, options.max_bad_rate)


def with_clip_of(options: Options, source: SampleSource) -> Options:
    """The options with the clips as they are: a cache that is the data set knows how its clips were cut.

    Raises ValueError for an option that asks for other clips.
    """
    actual = {name: getattr(source.clip, name) for name in vars(clip_options(options))}
    defaults = vars(ClipOptions())
    for name, value in actual.items():
        given = getattr(options, name)
        if given not in (value, defaults[name]):
            raise ValueError(
                f"{name} {given} has no effect, because the clips of {options.vae_latent_folder} "
                f"were cut with {value}: leave it out, or make another cache with `opensora encode-latents`"
            )
    return replace(options, **actual)


def load_vae(folder: Path, options: TilingOptions) -> CausalVAE:
    """The autoencoder, with the tiles that the options ask for."""
    vae = CausalVAE.from_pretrained(folder)
    if options.enable_tiling:
        vae.tiling = Tiling(overlap=options.tile_overlap_factor)
    return vae
