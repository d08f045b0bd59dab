"""`opensora interpolate`: raise the frame rate of videos."""

from opensora.interpolate.options import InterpolateOptions
from opensora.runtime import set_device

OPTIONS = InterpolateOptions
POSITIONAL = None


def run(options: InterpolateOptions) -> int:
    from opensora.interpolate.plan import plan

    work = plan(options)
    if options.weights is not None and options.engine_here == "mindspore":
        # Imports MindSpore, which takes seconds: only after the options are checked.
        set_device(options.device)
    from opensora.interpolate.run import interpolate

    return interpolate(work)
