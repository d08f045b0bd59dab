"""Every example of docs/python.md runs from the wheel, in its order, in an empty folder."""

import re
import shutil
from pathlib import Path

import pytest

from tests.wheel import ROOT, run

PAGE = ROOT / "docs" / "python.md"
EXAMPLE = re.compile(r"^## (\d+)\.|^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_every_example_runs(installed: Path) -> None:
    parts = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    assert [int(number) for number, _ in parts if number] == list(range(1, 13))
    Path("guide.py").write_text("".join(f"# {number}\n{code}\n" for number, code in parts), encoding="utf-8")
    shutil.copy(ROOT / "tests" / "guide_checks.py", "checks.py")
    done = run(installed, "checks.py")
    assert done.returncode == 0, done.stdout + done.stderr
