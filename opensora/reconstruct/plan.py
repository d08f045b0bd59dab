"""The files of a run: sources, results, and which of them exist already. Sidecars also hold the scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opensora.config_files import checked
from opensora.data.clips import ClipShape
from opensora.data.lists.files import listed_files
from opensora.files import check_writable, hash_file, read_sidecar
from opensora.media.formats import PICTURE_SUFFIXES, is_picture, media_files
from opensora.media.reader import probe
from opensora.media.writer import WRITERS
from opensora.metrics.scores import check_metrics
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.pipeline.options import choose_vae_policy
from opensora.pipeline.results import PlannedFile, find_targets
from opensora.reconstruct.options import ReconstructOptions, check_options
from opensora.weights import CONFIG, load_config
from opensora.weights.folder import find_autoencoder
from opensora.weights.sources import hash_folder

ORIGIN = "origin"
SUMMARY = "reconstruct.json"
COMMAND = "opensora reconstruct"


@dataclass(frozen=True)
class Reconstruction(PlannedFile):
    """A file and its reconstruction. `scores` are those of an earlier run that finished it."""

    scores: dict[str, Any] | None = None

    @property
    def origin(self) -> Path:
        return self.target.parent / ORIGIN / self.target.name


@dataclass(frozen=True)
class ReconstructPlan:
    """A checked request: the files in order, how they are read, and the autoencoder's folder.

    vae_policy: how the autoencoder bounds its memory. summary: file for all scores of a folder, None for a
    single file.
    """

    options: ReconstructOptions
    files: list[Reconstruction]
    shape: ClipShape
    autoencoder: Path
    vae_policy: VAEPolicy
    metrics: list[str]
    summary: Path | None


def plan(options: ReconstructOptions) -> ReconstructPlan:
    """Check the options and find the files. ValueError names the option or file and the remedy."""
    check_options(options)
    policy = choose_vae_policy(options, options.device, options.engine_here)
    folder = find_autoencoder(options.ae_path or options.model_path)
    shape = ClipShape(
        num_frames=options.num_frames,
        sample_rate=options.sample_rate,
        resolution=options.resolution,
        crop_size=options.crop_size,
        multiple=CausalVAEConfig.from_dict(load_config(folder), folder / CONFIG).strides.space,
    )
    metrics = ["psnr", "ssim", *(["lpips"] if options.lpips_weights else [])]
    check_metrics(metrics, options.lpips_weights, None)
    settings = _settings(options, folder, policy)
    files = [Reconstruction(name, source, target, settings) for name, source, target in _sources(options)]
    files = [_with_earlier_scores(file, options, metrics) for file in files]
    return ReconstructPlan(options, files, shape, folder, policy, metrics, _summary(options))


def _sources(options: ReconstructOptions) -> list[tuple[str, Path, Path]]:
    """(name, source, target) of each file. ValueError for results that cannot be written or share a name."""
    if options.video_path is not None and options.rec_path is not None:
        source, target = Path(options.video_path), Path(options.rec_path)
        if target.suffix.lower() not in WRITERS:
            raise ValueError(
                f"rec_path {target} cannot be written: choose a name that ends in {', '.join(WRITERS)}"
            )
        check_writable(target.parent, "rec_path")
        return [(source.name, source, target)]
    folder, results = Path(str(options.real_video_dir)), Path(str(options.generated_video_dir))
    listing = options.data_file_path
    sources = media_files(folder) if listing is None else listed_files(listing, folder)
    check_writable(results, "generated_video_dir")
    return find_targets(sources, folder, results, _suffix)


def _suffix(source: Path) -> str:
    """.png for a picture, .mp4 for everything else; unreadable files are reported later."""
    if source.suffix.lower() not in PICTURE_SUFFIXES:
        return ".mp4"
    try:
        return ".png" if is_picture(source, probe(source).frames) else ".mp4"
    except ValueError:
        return ".mp4"


def _settings(options: ReconstructOptions, folder: Path, policy: VAEPolicy) -> dict[str, Any]:
    """The part of the recipe that all files share."""
    weights = {"vae": hash_folder(folder)}
    if options.lpips_weights:
        weights["lpips"] = {Path(path).name: hash_file(Path(path)) for path in options.lpips_weights}
    reading = ("num_frames", "sample_rate", "dynamic_start_index", "resolution", "crop_size")
    return {
        **{name: getattr(options, name) for name in (*reading, "grid", "output_origin", "precision")},
        "engine": options.engine_here,
        "seed": options.seed if options.dynamic_start_index else None,
        "fps": options.fps,
        **policy.recipe(),
        "weights": weights,
    }


def _with_earlier_scores(
    file: Reconstruction, options: ReconstructOptions, metrics: Sequence[str]
) -> Reconstruction:
    """Add the scores of an earlier run that finished the file. ValueError for results of another request."""
    option = "generated_video_dir" if options.real_video_dir is not None else "rec_path"
    content = file.earlier(option, *([file.origin] if options.output_origin else []))
    if content is None:
        return file
    return replace(file, scores=_scores(content.get("figures"), file.sidecar, metrics))


def _scores(figures: Any, sidecar: Path, metrics: Sequence[str]) -> dict[str, Any]:
    """The scores in a sidecar. Raises ValueError for a damaged one."""
    values = checked(dict[str, Any], figures, sidecar, "figures")
    kinds: dict[str, type] = {"frames": int, "height": int, "width": int, **dict.fromkeys(metrics, float)}
    return {name: checked(kind, values.get(name), sidecar, f"figures.{name}") for name, kind in kinds.items()}


def _summary(options: ReconstructOptions) -> Path | None:
    """Raises ValueError for a file of that name that is not a summary."""
    if options.generated_video_dir is None:
        return None
    path = Path(options.generated_video_dir) / SUMMARY
    if path.exists() and read_sidecar(path).get("command") != COMMAND:
        raise ValueError(
            f"{path} exists and is not from `{COMMAND}`: "
            "move it away, or choose another --generated_video_dir"
        )
    return path
