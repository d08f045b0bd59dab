"""Processes share captions, clips and reconstructions; the files are those of one process, to the byte."""

from pathlib import Path

from opensora.data.caches.embed import embed_text
from opensora.data.caches.encode import encode_latents
from opensora.data.options import EmbedTextOptions, EncodeLatentsOptions
from opensora.parallel.mesh import Mesh
from opensora.reconstruct.options import ReconstructOptions
from opensora.reconstruct.plan import SUMMARY, plan
from opensora.reconstruct.run import reconstruct


def check_files(mesh: Mesh, model: Path, place: Path) -> None:
    """place: what `tests.data.material.write_set` left, one of its videos broken."""
    for command in (_embed, _encode, _reconstruct):
        shared, alone = (place / f"{command.__name__}{how}" for how in ("-shared", "-alone"))
        command(model, place, shared, mesh)
        mesh.world.agree()  # all have written
        if mesh.is_first:
            command(model, place, alone, Mesh())
            assert len(_contents(alone)) > 2 and _contents(shared) == _contents(alone), shared


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != SUMMARY
    }  # which names the folder


def _embed(model: Path, place: Path, target: Path, mesh: Mesh) -> None:
    options = EmbedTextOptions(
        data_file_path=f"{place}/videos.json",
        text_encoder_name=f"{model}/text_encoder",
        output_path=str(target),
        block_size=2,
    )
    embed_text(options.of_job(mesh.rank, mesh.size))


def _encode(model: Path, place: Path, target: Path, mesh: Mesh) -> None:
    options = EncodeLatentsOptions(
        video_data=f"{place}/videos.txt",
        vae=f"{model}/vae",
        output_path=str(target),
        block_size=1,
        num_frames=5,
        max_image_size=32,
    )
    encode_latents(options.of_job(mesh.rank, mesh.size))


def _reconstruct(model: Path, place: Path, target: Path, mesh: Mesh) -> None:
    videos = next(path for path in place.iterdir() if path.is_dir() and path.name.startswith("videos"))
    options = ReconstructOptions(
        real_video_dir=str(videos), generated_video_dir=str(target), ae_path=f"{model}/vae", num_frames=5
    )
    assert reconstruct(plan(options), mesh) == 1  # all know that one is left out
