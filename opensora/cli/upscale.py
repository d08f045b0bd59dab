"""`opensora upscale`: enlarge videos and pictures."""

from opensora.runtime import set_device
from opensora.upscale.options import UpscaleOptions

OPTIONS = UpscaleOptions
POSITIONAL = None


def run(options: UpscaleOptions) -> int:
    from opensora.upscale.plan import plan

    work = plan(options)
    if options.engine_here == "mindspore":
        # Imports MindSpore, which takes seconds: only after the options are checked.
        set_device(options.device)
    from opensora.upscale.run import upscale

    return upscale(work)
