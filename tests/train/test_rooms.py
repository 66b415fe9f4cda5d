"""The rooms of training: what serves every checkpoint knows nothing of the embedded one."""

from __future__ import annotations

import ast
from pathlib import Path

from mflamingo_cli import train

FOLDER = Path(train.__file__).parent
CORE = sorted(FOLDER.glob("*.py"))


def imported(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found |= {name.name for name in node.names} if isinstance(node, ast.Import) else set()
        found |= {node.module} if isinstance(node, ast.ImportFrom) and node.module else set()
    return found


def test_the_core_imports_nothing_of_mini_or_of_evaluation() -> None:
    assert {path.stem for path in CORE} >= {"loop", "objectives", "rows"}
    for path in CORE:
        assert not [name for name in imported(path) if name.startswith(("mflamingo_cli.train.mini", "mflamingo_cli.train.evaluate"))], path


def test_the_front_end_of_mini_is_named_in_its_own_room_only() -> None:
    product = FOLDER.parent
    named = {path for path in product.rglob("*.py") if "MINI_MEL" in path.read_text(encoding="utf-8")}
    assert named, "the name that is looked for has changed"
    assert [path for path in sorted(named) if not path.is_relative_to(FOLDER / "mini")] == []
