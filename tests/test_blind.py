"""The blind reading: the sheet hides who wrote what, and the scores undo that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.bench.blind import places, sheet, wins


def test_rankings_are_counted_for_who_wrote_the_texts(tmp_path: Path) -> None:
    (tmp_path / "facts.txt").write_text("".join(f"song {n}\ttempo {n}\n" for n in range(12)), encoding="utf-8")
    for writer in ("old", "new", "grammar"):
        (tmp_path / f"{writer}.txt").write_text("".join(f"{writer}{n} says\n" for n in range(12)), encoding="utf-8")
    text, key = sheet(tmp_path, 1)
    assert len(set(key)) > 1
    (tmp_path / "key.json").write_text(json.dumps(key), encoding="utf-8")
    rows = []
    for number, order in enumerate(key, 1):  # a reader who loves the grammar, finds new truest and old always last
        letters = {writer: chr(65 + at) for at, writer in enumerate(order.split())}
        assert f"**{letters['old']}.** old{number - 1} says" in text
        truth, pleasure = (letters[first] + letters[second] + letters["old"] for first, second in (("new", "grammar"), ("grammar", "new")))
        rows.append(f"{number}\t{truth}\t{pleasure}")
    (tmp_path / "reader-1.tsv").write_text("\n".join(reversed(rows)) + "\n", encoding="utf-8")
    found = places(tmp_path)
    assert wins(found["truth"]["new"], found["truth"]["grammar"]) == (1.0, 1.0, 1.0)
    assert wins(found["pleasure"]["new"], found["pleasure"]["grammar"]) == (0.0, 0.0, 0.0)
    assert all(wins(found[asked][one], found[asked]["old"])[0] == 1 for asked in found for one in ("new", "grammar"))


def test_an_interval_of_wins_holds_the_share_and_is_narrower_with_more_songs() -> None:
    rng = np.random.default_rng(0)
    few, many = (wins(rng.integers(2, size=(3, n)), np.ones((3, n), int)) for n in (10, 1000))
    for share, low, high in (few, many):
        assert low <= share <= high
    assert many[2] - many[1] < few[2] - few[1]
