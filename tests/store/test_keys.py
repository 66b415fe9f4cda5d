"""What decides a record is in the program's stamp: the pipeline imports nothing of ours that is not."""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path

from mflamingo_cli.backends import find_model
from mflamingo_cli.store.keys import DECIDE, content_digest
from tests.docs import ROOT

DECIDE_NOTHING = {  # the store itself, files and their errors; the prompts of styles stand in a request, which is hashed by itself
    *("mflamingo_cli/__init__.py", "mflamingo_cli/errors.py", "mflamingo_cli/files.py", "mflamingo_cli/styles.py"),
    *("mflamingo_cli/store/cache.py", "mflamingo_cli/store/keys.py", "mflamingo_cli/store/hub.py"),
}


def imported(path: str) -> set[str]:
    """Files of ours that a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        names = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            base = name.replace(".", "/")
            found |= {file for file in (f"{base}.py", f"{base}/__init__.py") if (ROOT / file).is_file()}
    return found


def test_what_the_pipeline_imports_is_in_the_stamp():
    reached, waiting = set(), {"mflamingo_cli/pipeline.py"}
    while waiting:
        path = waiting.pop()
        reached.add(path)
        waiting |= imported(path) - reached if path != "mflamingo_cli/__init__.py" else set()  # which binds the public names lazily
    assert len(reached) > 40
    assert {path for path in reached if not path.startswith(DECIDE)} == DECIDE_NOTHING


def test_a_model_is_the_same_wherever_its_files_lie(tmp_path: Path) -> None:
    first, copy = tmp_path / "first", tmp_path / "elsewhere" / "copy"
    first.mkdir()
    (first / "config.json").write_text("{}")
    (first / "model.safetensors").write_bytes(bytes(range(256)))
    shutil.copytree(first, copy, copy_function=shutil.copyfile)
    os.utime(copy / "model.safetensors", ns=(1, 1))
    assert content_digest(find_model(str(copy))) == content_digest(find_model(str(first)))
    (copy / "model.safetensors").write_bytes(bytes(reversed(range(256))))  # as long, of other weights
    assert content_digest(find_model(str(copy))) != content_digest(find_model(str(first)))
