"""`opensora embed-text`: precompute T5 caption embeddings for training."""

from opensora.data.options import EmbedTextOptions
from opensora.data.text.prompts import read_prompt_file

OPTIONS = EmbedTextOptions
POSITIONAL = None


def run(options: EmbedTextOptions) -> None:
    prompts = None if options.prompt_path is None else read_prompt_file(options.prompt_path)
    from opensora.data.caches.embed import embed_text
    from opensora.parallel.mesh import open_mesh

    # Processes that msrun started share the blocks of the cache.
    with open_mesh(timeout=options.rank_timeout) as mesh:
        embed_text(options.of_job(mesh.rank, mesh.size), prompts)
