"""`opensora interpolate`, top to bottom: find the cuts, read frames, write them with others between them."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from opensora.console import counted, say
from opensora.data.lists.scenes import find_scenes
from opensora.engine import Engine, choose_engine
from opensora.interpolate.frames import Method, interpolated
from opensora.interpolate.motion import NAME, motion_compensated
from opensora.interpolate.plan import COMMAND, InterpolatePlan
from opensora.media.reader import iter_frames, probe
from opensora.metrics.pixels import psnr
from opensora.pipeline.results import PlannedFile, make_files, write_planned

log = logging.getLogger(__name__)


def interpolate(work: InterpolatePlan) -> int:
    """Make the results of a plan, or measure. Returns 1 if files of a folder were skipped, else 0.

    Raises ValueError for a file that cannot be read, and for weights that do not fit.
    """
    options = work.options
    method = open_method(options.weights, lambda: choose_engine(options.engine_here, options.precision))
    if work.options.check:
        return _check(work.sources, method)

    def make(file: PlannedFile) -> None:
        info, factor = probe(file.source), work.options.factor
        cuts = find_cuts(file.source)
        frames = counted(iter_frames(file.source), file.name, info.frames)
        write_planned(file, COMMAND, interpolated(frames, factor, method, cuts), info.fps * factor)

    return make_files(work.files, work.folder, make)


def open_method(weights: str | None, get_engine: Callable[[], Engine]) -> Method:
    """The way to interpolate: AMT with these weights, or FFmpeg's filter without weights.

    get_engine: called if there are weights.
    """
    if weights is None:
        log.info("motion compensation by FFmpeg's filter %s; weights of AMT-G can be named instead", NAME)
        return motion_compensated
    from opensora.interpolate.network import ByNetwork
    from opensora.models.amt import AMT

    return ByNetwork(AMT.from_pretrained(weights, engine=get_engine()))


def find_cuts(path: Path) -> list[int]:
    """The first frames of all scenes but the first."""
    return [scene.start for scene in find_scenes(path)[1:]]


def _check(sources: list[Path], method: Method) -> int:
    """Print how close interpolated frames come to those of each file that are left out."""
    for source in sources:
        scores = _scores(source, method)
        if not scores:
            raise ValueError(f"{source} is too short to be checked: at least 3 frames of a scene are needed")
        say(
            f"{source}: PSNR {np.mean(scores):.2f} dB, at least {min(scores):.2f}, of {len(scores)} frames "
            "that were left out"
        )
    return 0


def _scores(source: Path, method: Method) -> list[float]:
    """The PSNR of every second frame, interpolated from its neighbours. Those at cuts are left out."""
    total, cuts = probe(source).frames, find_cuts(source)
    kept_cuts = sorted({(cut + 1) // 2 for cut in cuts})  # by number among the frames that are kept
    kept = counted(iter_frames(source, sample_rate=2), source.name, (total + 1) // 2)
    found = interpolated(kept, 2, method, kept_cuts)
    at_cuts = {2 * cut - 1 for cut in kept_cuts}
    pairs = enumerate(zip(found, iter_frames(source), strict=False))
    return [
        psnr(frame, target)
        for number, (frame, target) in pairs
        if number % 2 and number not in at_cuts and number < total - 1
    ]
