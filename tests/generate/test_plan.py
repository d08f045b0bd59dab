"""Names, seeds and recipes, and what an earlier run left in the folder. No model is loaded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opensora.generate.options import GenerateJob, GenerateOptions, prepare
from opensora.generate.plan import PlannedVideo, plan
from opensora.generate.sidecar import sidecar_content


def job(model: Path, **changes: Any) -> GenerateJob:
    options = {
        "text_prompt": ["a cat", "a dog"],
        "model_path": str(model),
        "save_img_path": str(model.parent / "out"),
        **changes,
    }
    return prepare(GenerateOptions(**options))


def pretend_finished(video: PlannedVideo, request: GenerateJob) -> None:
    video.path.parent.mkdir(exist_ok=True)
    video.sidecar.write_text(json.dumps(sidecar_content(request, video.recipe, video.path.name, "openvino")))
    video.path.write_bytes(b"video")


def test_every_video_has_its_own_seed_and_name(model: Path) -> None:
    videos = plan(job(model, num_videos_per_prompt=2, seed=10))
    assert [(video.path.name, video.prompt, video.seed) for video in videos] == [
        ("0000-a_cat.mp4", "a cat", 10),
        ("0001-a_cat.mp4", "a cat", 11),
        ("0002-a_dog.mp4", "a dog", 12),
        ("0003-a_dog.mp4", "a dog", 13),
    ]
    assert plan(job(model, num_videos_per_prompt=2, seed=10, batch_size=3)) == videos
    assert not (model.parent / "out").exists()


def test_names_of_other_results(model: Path) -> None:
    assert plan(job(model, format="webp"))[0].path.name == "0000-a_cat.webp"
    assert plan(job(model, force_images=True))[0].path.name == "0000-a_cat.png"
    latents = plan(job(model, save_latents=True))[0]
    assert (latents.path.name, latents.sidecar.name) == ("0000-a_cat.latents.npy", "0000-a_cat.latents.json")
    assert "vae" not in latents.recipe["weights"]


def test_finished_videos_are_known_again(model: Path) -> None:
    request = job(model)
    first, second = plan(request)
    assert not first.finished
    pretend_finished(second, request)
    assert [video.finished for video in plan(request)] == [False, True]
    assert [
        video.finished for video in plan(replace(request, options=replace(request.options, batch_size=2)))
    ] == [False, True]
    second.path.unlink()  # interrupted between sidecar and video
    assert [video.finished for video in plan(request)] == [False, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"num_sampling_steps": 9},
        {"guidance_scale": 1.0},
        {"negative_prompt": "fog"},
        {"fps": 30},
        {"upstream": True},
        {"enable_tiling": True},
        {"vae_memory": "chunked"},
        {"text_prompt": ["a, cat", "a dog"]},
    ],
)
def test_another_request_never_overwrites(model: Path, changes: dict[str, Any]) -> None:
    request = job(model)
    pretend_finished(plan(request)[0], request)
    with pytest.raises(
        ValueError,
        match=r"0000-\w+\.mp4 exists and was made otherwise: move it away, or choose another --save_img_path",
    ):
        plan(job(model, **changes))


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, {"vae_memory": "exact"}),  # a small video
        ({"engine": "mindspore"}, {"engine": "mindspore", "vae_memory": "chunked"}),
        ({"enable_tiling": True}, {"vae_memory": "tiled"}),
        ({"device": "Ascend"}, {"device": "Ascend", "vae_memory": "exact"}),
    ],
)
def test_the_recipe_records_how_it_is_decoded(
    model: Path, changes: dict[str, Any], same: dict[str, Any]
) -> None:
    assert plan(job(model, **changes))[0].recipe == plan(job(model, **same))[0].recipe


def test_other_weights_are_another_request(model: Path) -> None:
    request = job(model)
    pretend_finished(plan(request)[0], request)
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="made otherwise"):
        plan(request)


@pytest.mark.parametrize("name", ["0001-a_dog.mp4", "0001-a_dog.json", "0001-a_dog.contact.png"])
def test_files_of_the_user_are_left_alone(model: Path, name: str) -> None:
    (model.parent / "out").mkdir()
    (model.parent / "out" / name).write_text("[1, 2]")
    with pytest.raises(ValueError, match=f"{name} exists and was made otherwise"):
        plan(job(model))


def test_latents_are_decoded_as_they_were_sampled(model: Path) -> None:
    first = job(model, save_latents=True, seed=40, num_sampling_steps=2)
    for video in plan(first):
        pretend_finished(video, first)
    videos = plan(job(model, decode_latents=True, fps=6))
    assert [(video.path.name, video.seed, video.recipe["num_sampling_steps"]) for video in videos] == [
        ("0000-a_cat.mp4", 40, 2),
        ("0001-a_dog.mp4", 41, 2),
    ]
    assert videos[0].recipe["fps"] == 6 and "vae" in videos[0].recipe["weights"]


def test_latents_that_are_missing_or_of_another_prompt(model: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"0000-a_cat\.latents\.json does not exist: first run the same prompts with --save_latents",
    ):
        plan(job(model, decode_latents=True))
    first = job(model, save_latents=True)
    video = plan(first)[0]
    pretend_finished(video, first)
    with pytest.raises(ValueError, match=r"0000-a_cat\.latents\.npy was made from another prompt, 'a cat'"):
        plan(job(model, decode_latents=True, text_prompt=["a: cat"]))
    video.path.unlink()
    with pytest.raises(ValueError, match=r"0000-a_cat\.latents\.npy does not exist"):
        plan(job(model, decode_latents=True, text_prompt=["a cat"]))
