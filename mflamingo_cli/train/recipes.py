"""The built-in recipes, and what each makes: the first sentence of its file."""

from __future__ import annotations

from pathlib import Path

RECIPES = Path(__file__).parent / "mini" / "recipes"


def built_in() -> dict[str, str]:
    """Return what each recipe makes, by its name."""
    return {path.stem: _first_sentence(path) for path in sorted(RECIPES.glob("*.toml"), key=lambda path: path.stem)}


def _first_sentence(path: Path) -> str:
    """Return the first sentence of the comment that a recipe begins with."""
    lines = path.read_text(encoding="utf-8").split("\n")
    comment = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    return " ".join(line.removeprefix("#").strip() for line in comment).partition(". ")[0].removesuffix(".")
