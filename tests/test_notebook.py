"""The notebook runs from the wheel in an empty folder, and its outputs are those that it keeps."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.wheel import ROOT

NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"


def kinds(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The kinds of each cell's outputs; progress and warnings on stderr aside."""
    return [
        sorted(kind for output in cell.get("outputs", []) for kind in output.get("data", {"text": ""}))
        for cell in notebook.cells
    ]


def add_kernel(name: str, python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let notebooks run with this Python, as the kernel `name`."""
    folder = Path("jupyter", "kernels", name).resolve()
    folder.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": command, "display_name": name}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder.parent.parent))
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.mark.slow
def test_the_notebook_runs(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_kernel("wheel", installed, monkeypatch)
    kept = nbformat.read(NOTEBOOK, as_version=4)
    made = nbformat.read(NOTEBOOK, as_version=4)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    made.cells.append(nbformat.v4.new_code_cell("import opensora; print(opensora.__file__)"))
    place = tmp_path / "empty"
    place.mkdir()
    resources = {"metadata": {"path": str(place)}}
    NotebookClient(made, kernel_name="wheel", timeout=300, resources=resources).execute()
    (where,) = made.cells.pop().outputs
    assert Path(where["text"].strip()).is_relative_to(installed.parent.parent)
    assert kinds(made) == kinds(kept) and any("text/html" in found for found in kinds(kept))
    assert NOTEBOOK.stat().st_size < 200_000
    assert (place / "elephant.mp4").is_file() and (place / "elephant.json").is_file()
