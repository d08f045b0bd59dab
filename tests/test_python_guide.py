"""Every example of docs/python.md runs, in its order, in an empty folder."""

import asyncio
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opensora.pipeline.video import Video

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
EXAMPLE = re.compile(r"^## (\d+)\..*?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_every_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("guide")
    monkeypatch.setitem(sys.modules, "guide", module)  # for the annotations of the service
    names: dict[str, Any] = vars(module)
    examples = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    assert [int(number) for number, _ in examples] == list(range(1, 13))
    for number, code in examples:
        exec(compile(code, f"example {number}", "exec"), names)

    assert Video.read("elephant.mp4").frames.shape == (17, 64, 64, 3)
    assert names["rebuilt"].shape == (17, 64, 64, 3)
    first, _, last = names["mixed"]
    assert not np.array_equal(first.frames, last.frames)
    maps = names["to_text"]
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    assert Path("run/checkpoints/step-00000002/manifest.json").is_file()
    made, refused = asyncio.run(serve(names["app"], b"seed=9&prompt=a+ghost", b"prompt=a+ghost&steps=0"))
    assert made[0]["status"] == 200 and made[1]["body"][4:8] == b"ftyp"
    assert refused[0]["status"] == 422 and b"steps 0 is out of range" in refused[1]["body"]
    assert names["app"].state.pipe.closed


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
