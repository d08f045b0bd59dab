"""Checks of what the examples of docs/python.md made. `guide` holds their variables."""

import asyncio
from pathlib import Path
from typing import Any

import guide
import numpy as np

import opensora


async def serve(app: Any, *queries: bytes) -> list[list[dict[str, Any]]]:
    """The answers of a service to GET /video with these queries: the messages of ASGI."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    answers = []
    async with app.router.lifespan_context(app):
        for query in queries:
            sent: list[dict[str, Any]] = []

            async def send(message: dict[str, Any], sent: list[dict[str, Any]] = sent) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "GET", "path": "/video", "query_string": query, "headers": []}
            await app({"asgi": {"version": "3.0"}, "http_version": "1.1", **scope}, receive, send)
            answers.append(sent)
    return answers


assert "site-packages" in opensora.__file__
assert opensora.Video.read("elephant.mp4").frames.shape == (17, 64, 64, 3)
assert guide.rebuilt.shape == (17, 64, 64, 3)
first, _, last = guide.mixed
assert not np.array_equal(first.frames, last.frames)
np.testing.assert_allclose(guide.to_text.sum(-1), 1, rtol=1e-5)
assert Path("run/checkpoints/step-00000002/manifest.json").is_file()
assert Path("own/checkpoints/step-00000001/manifest.json").is_file()
made, refused = asyncio.run(serve(guide.app, b"seed=9&prompt=a+ghost", b"prompt=a+ghost&steps=0"))
assert made[0]["status"] == 200 and made[1]["body"][4:8] == b"ftyp"
assert refused[0]["status"] == 422 and b"steps 0 is out of range" in refused[1]["body"]
assert guide.app.state.pipe.closed
