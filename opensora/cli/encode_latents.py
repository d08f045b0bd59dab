"""`opensora encode-latents`: precompute autoencoder latents for training."""

from opensora.data.options import EncodeLatentsOptions

OPTIONS = EncodeLatentsOptions
POSITIONAL = None


def run(options: EncodeLatentsOptions) -> None:
    from opensora.data.caches.encode import encode_latents
    from opensora.parallel.mesh import open_mesh

    # Processes that msrun started share the blocks of the cache.
    with open_mesh(timeout=options.rank_timeout) as mesh:
        encode_latents(options.of_job(mesh.rank, mesh.size))
