"""The notebook runs in an empty folder, and its outputs are those that it keeps."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "examples" / "first_steps.ipynb"


def kinds(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The kinds of each cell's outputs; progress and warnings on stderr aside."""
    return [
        sorted(kind for output in cell.get("outputs", []) for kind in output.get("data", {"text": ""}))
        for cell in notebook.cells
    ]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    kept = nbformat.read(NOTEBOOK, as_version=4)
    made = nbformat.read(NOTEBOOK, as_version=4)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(made, kernel_name="python3", timeout=300, resources=place).execute()
    assert kinds(made) == kinds(kept) and any("text/html" in found for found in kinds(kept))
    assert NOTEBOOK.stat().st_size < 200_000
    assert (tmp_path / "elephant.mp4").is_file() and (tmp_path / "elephant.json").is_file()
