"""`opensora reconstruct`: reconstruct videos and measure the error."""

from opensora.reconstruct.options import ReconstructOptions
from opensora.runtime import set_device

OPTIONS = ReconstructOptions
POSITIONAL = None


def run(options: ReconstructOptions) -> int:
    from opensora.reconstruct.plan import plan

    work = plan(options)
    if options.engine_here == "mindspore":
        # Imports MindSpore, which takes seconds: only after the options are checked.
        set_device(options.device)
    from opensora.parallel.mesh import open_mesh
    from opensora.reconstruct.run import reconstruct

    with open_mesh(timeout=options.rank_timeout) as mesh:
        return reconstruct(work, mesh)
