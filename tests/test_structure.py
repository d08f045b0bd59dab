"""The map of the repository is right: every room has its row, and imports only what the row says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "opensora"
ROW = re.compile(r"^\| ((?:`\w+(?:\.py|/)`(?:, )?)+) \| .* \| (.*) \|$", re.MULTILINE)
TEXT = (ROOT / "docs" / "structure.md").read_text(encoding="utf-8")
IMPORTS = {room: imports for names, imports in ROW.findall(TEXT) for room in re.findall(r"`(\w+)", names)}
ROOMS = list(IMPORTS)
SHARED = {room for room, imports in IMPORTS.items() if imports == "nothing, shared"}


def allowed(room: str) -> set[str]:
    """Rooms that the row of `room` lets it import."""
    found = {room} | SHARED
    for entry in IMPORTS[room].split(", "):
        name = entry.removesuffix(" and below")
        if name == "all below":
            found |= set(ROOMS[ROOMS.index(room) :])
        elif name not in ("nothing", "shared"):
            assert name in ROOMS[ROOMS.index(room) :], f"{name} is not below {room} in docs/structure.md"
            found |= set(ROOMS[ROOMS.index(name) :]) if name != entry else {name}
    return found


def imported(path: Path) -> set[str]:
    """Rooms that a file imports, also inside functions. `from opensora import x` counts as the room x."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"opensora.{name.name}" for name in node.names]
                if node.module == "opensora"
                else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("opensora.")}
    return found


def rooms_on_disk() -> set[str]:
    rooms = {
        path.parent.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.glob("*/**/*")
        if path.suffix in (".py", ".yaml", ".json")
    }
    return rooms | {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")}


def test_every_room_has_a_row() -> None:
    assert rooms_on_disk() == set(ROOMS)


def test_the_map_fits_one_screen() -> None:
    lines = TEXT.splitlines()
    assert len(lines) <= 45 and max(map(len, lines)) <= 110


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room: str) -> None:
    files = (
        [PACKAGE / f"{room}.py"]
        if (PACKAGE / f"{room}.py").is_file()
        else sorted((PACKAGE / room).rglob("*.py"))
    )
    for path in files:
        upward = imported(path) - allowed(room)
        assert not upward, (
            f"{path.relative_to(ROOT)} imports {upward}, which its row in docs/structure.md does not allow"
        )
