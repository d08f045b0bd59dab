"""`opensora upscale`, top to bottom: load the network, read frames, write them enlarged."""

from opensora.console import counted
from opensora.engine import choose_engine
from opensora.media.reader import iter_frames, probe
from opensora.pipeline.results import PlannedFile, make_files, write_planned
from opensora.upscale.frames import open_upscaler
from opensora.upscale.plan import COMMAND, UpscalePlan


def upscale(work: UpscalePlan) -> int:
    """Make the results of a plan. Returns 1 if files of a folder were skipped, else 0.

    Raises ValueError for a file that cannot be read, and for weights that do not fit.
    """
    options = work.options
    engine = choose_engine(options.engine_here, options.precision)
    enlarge = open_upscaler(options.weights, options.factor, options.denoise, engine)

    def make(file: PlannedFile) -> None:
        info = probe(file.source)
        frames = counted(enlarge(iter_frames(file.source)), file.name, info.frames)
        write_planned(file, COMMAND, frames, info.fps)

    return make_files(work.files, work.folder, make)
