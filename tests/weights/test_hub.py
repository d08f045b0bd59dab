"""`opensora download` from a small server on the loopback."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from opensora.cli import main

NAME = "some/model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "README.md": b"# A model\n",
    "vae/config.json": b"{}\n",
    "vae/weights.safetensors": bytes(range(256)) * 4000,
    "65x512x512/weights.safetensors": b"other",
}


class Hub:
    """The server's state. cut: bytes after which an answer breaks off. ranges: of the requests, in order."""

    def __init__(self) -> None:
        self.files = dict(FILES)
        self.names = {name: name for name in FILES}
        self.cut: int | None = None
        self.ranges: list[str | None] = []

    def index(self) -> bytes:
        siblings = []
        for name, shown in self.names.items():
            content = FILES[name]
            blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            entry: dict[str, Any] = {"rfilename": shown, "size": len(content), "blobId": blob}
            if name.endswith(".safetensors"):
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest()}
            siblings.append(entry)
        return json.dumps({"sha": COMMIT, "siblings": siblings}).encode()


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            revisions = [f"/api/models/{NAME}/revision/{revision}" for revision in ("main", COMMIT)]
            prefix = f"/{NAME}/resolve/{COMMIT}/"
            if path in revisions:
                self.answer(state.index())
            elif path.startswith(prefix) and path.removeprefix(prefix) in state.files:
                content = state.files[path.removeprefix(prefix)]
                asked = self.headers.get("Range")
                state.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
                self.answer(content[start:], 206 if asked else 200)
            else:
                self.send_error(404)

        def answer(self, content: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            is_cut = state.cut is not None and "resolve" in self.path
            self.wfile.write(content[: state.cut] if is_cut else content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "*")
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def run(*words: str, name: str = NAME) -> int:
    return main(["download", name, *words])


def held(folder: str = "model") -> dict[str, bytes]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file() and path.name != "download.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_all_files_or_some(hub: Hub) -> None:
    assert run("--include", "vae", "*.md", "--output_path", "part") == 0
    assert set(held("part")) == {"README.md", "vae/config.json", "vae/weights.safetensors"}
    assert run() == 0
    assert held() == FILES
    record = json.loads(Path("model/download.json").read_text())
    assert record == {"repository": NAME, "revision": "main", "commit": COMMIT}
    hub.ranges.clear()
    assert run() == 0 and not hub.ranges  # all is there


def test_a_broken_download_continues(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    hub.cut = 5000
    assert run("--include", "vae/weights.safetensors") == 2
    assert "start" in capfd.readouterr().err
    assert held() == {"vae/weights.safetensors.part": FILES["vae/weights.safetensors"][:5000]}
    hub.cut = None
    assert run("--include", "vae/weights.safetensors") == 0
    assert hub.ranges == [None, "bytes=5000-"]
    assert held() == {"vae/weights.safetensors": FILES["vae/weights.safetensors"]}


@pytest.mark.parametrize("name", ["vae/config.json", "vae/weights.safetensors"])
def test_a_file_that_differs_from_the_index(hub: Hub, capfd: pytest.CaptureFixture[str], name: str) -> None:
    hub.files[name] = b"x" * len(FILES[name])
    assert run("--include", name) == 2
    assert f"{name} is not what the index says" in capfd.readouterr().err and not held()


def test_files_of_the_user_stay(capfd: pytest.CaptureFixture[str]) -> None:
    Path("model").mkdir()
    Path("model/README.md").write_text("mine")
    assert run() == 2
    assert "README.md exists and is another file" in capfd.readouterr().err
    assert held() == {"README.md": b"mine"}


def test_a_folder_holds_one_commit(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--include", "README.md") == 0
    assert run("--revision", "v2") == 2
    assert f"model holds {NAME} at {COMMIT}: choose another --output_path" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "vae/../../escape", "a\\b", "./README.md"])
def test_names_that_lead_out_of_the_folder(hub: Hub, capfd: pytest.CaptureFixture[str], name: str) -> None:
    hub.names["README.md"] = name
    assert run() == 2
    assert "the index of some/model cannot be read (it names" in capfd.readouterr().err
    assert not Path("model").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["other/model"], "refuses other/model (404 Not Found): check the name"),
        (["model"], "name one model"),
        (["../model"], "name one model"),
        (["owner/.."], "name one model"),
        ([], "name one model"),
        ([NAME, "--include", "unet"], "has no file for --include unet: it has 65x512x512, README.md, vae"),
    ],
)
def test_bad_input(capfd: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["download", *words]) == 2
    assert message in capfd.readouterr().err


def test_no_server(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert run() == 2
    assert "http://127.0.0.1:9 does not answer" in capfd.readouterr().err
