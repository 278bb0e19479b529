"""Names say one thing once: what a room exports is not called as the module that holds it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "monai_medmerge"


def shadowed(room: Path) -> Iterator[str]:
    """Functions and classes that a room's `__init__` takes from a module of the same name."""
    modules = {path.stem for path in room.glob("*.py")} | {path.name for path in room.iterdir() if path.is_dir()}
    for node in ast.walk(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                imported = name.asname or name.name
                origin = PACKAGE.parent / str(node.module).replace(".", "/")
                is_module = (origin / f"{name.name}.py").exists() or (origin / name.name).is_dir()
                if imported in modules and not is_module:
                    yield f"{room.relative_to(PACKAGE.parent)}: {imported}"


def test_no_exported_name_is_that_of_a_module():
    rooms = [path.parent for path in PACKAGE.rglob("__init__.py")]
    assert len(rooms) > 20
    assert [name for room in rooms for name in shadowed(room)] == []


def test_a_shadowed_module_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "monai_medmerge")
    room = tmp_path / "monai_medmerge" / "room"
    room.mkdir(parents=True)
    (room / "fold.py").write_text("def fold(): ...\n")
    (room / "__init__.py").write_text("from monai_medmerge.room.fold import fold\n")
    assert list(shadowed(room)) == ["monai_medmerge/room: fold"]
