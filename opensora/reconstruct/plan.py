"""What a run of `opensora reconstruct` is to make: sources, results, and which of them exist already.

Beside each result lies `<result>.json`: the recipe (all that determines the frames), and the figures. Written before the result, it
makes an interrupted run continue where it stopped; a file whose recipe differs belongs to another request and is never touched.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opensora.data.clips import ClipShape
from opensora.data.lists.files import listed_files
from opensora.files import check_writable, hash_file, read_json
from opensora.media.formats import PICTURE_SUFFIXES, media_files
from opensora.media.reader import probe
from opensora.media.writer import WRITERS
from opensora.metrics.scores import check_metrics
from opensora.models.causal_vae.config import CausalVAEConfig
from opensora.models.causal_vae.policy import VAEPolicy
from opensora.reconstruct.options import ReconstructOptions
from opensora.weights import load_config
from opensora.weights.folder import find_autoencoder
from opensora.weights.sources import hash_folder

ORIGIN = "origin"
SUMMARY = "reconstruct.json"
COMMAND = "opensora reconstruct"


@dataclass(frozen=True)
class PlannedFile:
    """One file of a run. `figures` are those of an earlier run that finished it."""

    name: str  # of the source, inside its folder
    source: Path
    target: Path
    settings: dict[str, Any]
    figures: dict[str, Any] | None = None

    @property
    def sidecar(self) -> Path:
        return self.target.with_name(self.target.name + ".json")

    @property
    def origin(self) -> Path:
        return self.target.parent / ORIGIN / self.target.name

    def recipe(self) -> dict[str, Any]:
        """All that determines the result; reads the source. Raises ValueError for one that cannot be read."""
        if not self.source.is_file():
            raise ValueError(f"{self.source} does not exist")
        return {**self.settings, "source": self.name, "sha256": hash_file(self.source)}


@dataclass(frozen=True)
class ReconstructPlan:
    """A checked request: the files in order, how they are read, and the autoencoder's folder.

    vae_policy: how the autoencoder bounds its memory. `summary` is the file for the figures of a folder run, None for a single file.
    """

    options: ReconstructOptions
    files: list[PlannedFile]
    shape: ClipShape
    autoencoder: Path
    vae_policy: VAEPolicy
    metrics: list[str]
    summary: Path | None


def plan(options: ReconstructOptions) -> ReconstructPlan:
    """Check the options and find the files. Raises ValueError that names the option, the file in the way, and the remedy."""
    _check(options)
    policy = VAEPolicy.choose(
        options.device,
        options.vae_memory,
        enable_tiling=options.enable_tiling,
        enable_time_chunk=options.enable_time_chunk,
        overlap=options.tile_overlap_factor,
    )
    folder = find_autoencoder(options.ae_path or options.model_path)
    stride = CausalVAEConfig.from_dict(load_config(folder)).strides.space
    shape = ClipShape(
        num_frames=options.num_frames,
        sample_rate=options.sample_rate,
        resolution=options.resolution,
        crop_size=options.crop_size,
        multiple=stride,
    )
    metrics = ["psnr", "ssim"] + (["lpips"] if options.lpips_weights else [])
    check_metrics(metrics, options.lpips_weights, None)
    settings = _settings(options, folder, policy)
    files = [_planned(name, source, target, settings, options) for name, source, target in _sources(options)]
    return ReconstructPlan(options, files, shape, folder, policy, metrics, _summary(options))


def _check(options: ReconstructOptions) -> None:
    one, many = (options.video_path, options.rec_path), (options.real_video_dir, options.generated_video_dir)
    if (None in one) == (None in many) or any(one) == any(many):
        raise ValueError(
            "name either a file, --video_path and --rec_path, or folders, --real_video_dir and --generated_video_dir"
        )
    if options.data_file_path is not None and options.real_video_dir is None:
        raise ValueError("data_file_path lists files of a folder: name it with --real_video_dir")
    if options.fps is not None and options.sample_fps is not None and options.fps != options.sample_fps:
        raise ValueError(
            f"fps {options.fps} and sample_fps {options.sample_fps} are two names of one option: give one"
        )
    for name in ("fps", "sample_fps"):
        value = getattr(options, name)
        if value is not None and not 0 < value <= 1000:
            raise ValueError(f"{name} {value} cannot be played: use a number such as 24")
    for name, least in (("seed", 0), ("batch_size", 1), ("num_workers", 0)):
        if getattr(options, name) < least:
            raise ValueError(f"{name} {getattr(options, name)} is too small: use {least} or more")
    if options.device == "CPU" and options.precision != "fp32":
        raise ValueError(
            f"precision {options.precision} has no kernels on a CPU: use --precision fp32, or --device Ascend"
        )


def _sources(options: ReconstructOptions) -> list[tuple[str, Path, Path]]:
    """(name, source, target) of every file. Raises ValueError for results that cannot be written or would have one name."""
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
    found: dict[Path, Path] = {}
    for source in sources:
        target = results / source.relative_to(folder).with_suffix(_suffix(source))
        if target in found:
            raise ValueError(
                f"{found[target].name} and {source.name} in {folder} would both become {target}: rename one"
            )
        found[target] = source
    return [(source.relative_to(folder).as_posix(), source, target) for target, source in found.items()]


def _suffix(source: Path) -> str:
    """.png for a still picture, .mp4 for all else; what cannot be read is found out when its turn comes."""
    if source.suffix.lower() not in PICTURE_SUFFIXES:
        return ".mp4"
    try:
        return ".png" if probe(source).frames == 1 else ".mp4"
    except ValueError:
        return ".mp4"


def _settings(options: ReconstructOptions, folder: Path, policy: VAEPolicy) -> dict[str, Any]:
    """What of the options determines a result, the same for all files."""
    weights = {"vae": hash_folder(folder)}
    if options.lpips_weights:
        weights["lpips"] = {Path(path).name: hash_file(Path(path)) for path in options.lpips_weights}
    names = (
        "num_frames",
        "sample_rate",
        "dynamic_start_index",
        "resolution",
        "crop_size",
        "grid",
        "output_origin",
        "precision",
    )
    return {
        **{name: getattr(options, name) for name in names},
        "seed": options.seed if options.dynamic_start_index else None,
        "fps": options.fps if options.fps is not None else options.sample_fps,
        **policy.recipe(),
        "weights": weights,
    }


def _planned(
    name: str, source: Path, target: Path, settings: dict[str, Any], options: ReconstructOptions
) -> PlannedFile:
    """With the figures of an earlier run where it finished this file. Raises ValueError for a file in the way."""
    planned = PlannedFile(name, source, target, settings)
    places = [target, planned.sidecar, *([planned.origin] if options.output_origin else [])]
    in_the_way = next((path for path in places if path.exists()), None)
    if in_the_way is None:
        return planned
    content = read_json(planned.sidecar)
    if not source.is_file() or content.get("recipe") != planned.recipe():
        option = "--generated_video_dir" if options.real_video_dir is not None else "--rec_path"
        raise ValueError(
            f"{in_the_way} exists and was made otherwise: move it away, or name another place with {option}"
        )
    return PlannedFile(name, source, target, settings, content["figures"] if target.is_file() else None)


def _summary(options: ReconstructOptions) -> Path | None:
    """Raises ValueError for a file in its place that no such run wrote."""
    if options.generated_video_dir is None:
        return None
    path = Path(options.generated_video_dir) / SUMMARY
    if path.exists() and read_json(path).get("command") != COMMAND:
        raise ValueError(
            f"{path} exists and is not from `{COMMAND}`: move it away, or name another folder with --generated_video_dir"
        )
    return path
