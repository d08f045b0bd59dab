"""`opensora reconstruct`: what the autoencoder makes of videos and pictures, and how close it comes."""

from opensora.pipeline.reconstruct_options import ReconstructOptions

OPTIONS = ReconstructOptions
POSITIONAL = None


def run(options: ReconstructOptions) -> int:
    from opensora.pipeline.reconstruct_plan import plan

    work = plan(options)
    # Brings MindSpore in, which takes seconds: only after the options were found good.
    from opensora.pipeline.reconstruct import reconstruct

    return reconstruct(work)
