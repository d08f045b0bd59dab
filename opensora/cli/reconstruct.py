"""`opensora reconstruct`: what the autoencoder makes of videos and pictures, and how close it comes."""

from opensora.reconstruct.options import ReconstructOptions
from opensora.runtime import set_device

OPTIONS = ReconstructOptions
POSITIONAL = None


def run(options: ReconstructOptions) -> int:
    from opensora.reconstruct.plan import plan

    work = plan(options)
    # Brings MindSpore in, which takes seconds: only after the options were found good.
    set_device(options.device)
    from opensora.parallel.mesh import open_mesh
    from opensora.reconstruct.run import reconstruct

    with open_mesh() as mesh:
        return reconstruct(work, mesh)
