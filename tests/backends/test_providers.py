"""Where ggml and llama.cpp come from: each provider that is installed gives the same words, and what does not fit is refused."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mflamingo_cli.backends.ggml import binding, llama_abi
from mflamingo_cli.errors import ModelError
from quant import providers
from quant.errors import QuantError
from tests.docs import ROOT

INSTALLED = [provider.name for provider in providers.PROVIDERS if provider.directory is not None]
SAME = ("tests/backends/test_layouts.py", "tests/test_golden.py", "tests/quant/test_encoding.py")  # run once more on the other provider


def test_the_preferred_provider_is_the_first_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(providers.VARIABLE, raising=False)
    assert providers.find().name == INSTALLED[0]
    for name in INSTALLED:
        monkeypatch.setenv(providers.VARIABLE, name)
        assert providers.find().name == name
        assert providers.find().version() in providers.find().tested


def test_an_unknown_provider_is_refused_with_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(providers.VARIABLE, "libggml")
    with pytest.raises(QuantError, match="choose one of llama-cpp-python, xllamacpp"):
        providers.find()


def test_a_machine_without_any_is_told_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(providers.VARIABLE, raising=False)
    monkeypatch.setattr(providers, "find_spec", lambda name: None)
    with pytest.raises(QuantError, match="pip install xllamacpp=="):
        providers.find()


@pytest.mark.parametrize(
    ("default", "kind", "rows"),
    [
        ("llama_model_default_params", llama_abi.ModelParams, llama_abi.MODEL_ROWS),
        ("llama_context_default_params", llama_abi.ContextParams, llama_abi.CONTEXT_ROWS),
    ],
)
def test_a_structure_that_has_moved_is_refused(default: str, kind: Any, rows: tuple[llama_abi.Row, ...]) -> None:
    """One field more, as a next version may have it, wherever it is: the fields behind it read back wrong."""
    made = bytes(getattr(binding.library(), default)())
    for name in [name for name, _, value in rows if value not in (0, None)][:-1]:
        at = getattr(kind, name).offset
        moved = made[:at] + bytes(8) + made[at:]
        with pytest.raises(ModelError, match=rf"{name}.*pip install"):
            llama_abi.check_layout(providers.libraries(), kind.from_buffer_copy(moved[: ctypes.sizeof(kind)]), rows)


@pytest.mark.parametrize("name", INSTALLED)
def test_no_python_module_of_a_provider_is_imported(name: str) -> None:
    code = """
import json, sys
from mflamingo_cli.backends import open_backend
with open_backend("mini") as backend:
    from mflamingo_cli.backends.ggml.binding import library
    print(json.dumps([library().provider.name, sorted({"llama_cpp", "xllamacpp"} & set(sys.modules))]))
"""
    env = {**os.environ, providers.VARIABLE: name, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [name, []]


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED[1:])
def test_the_other_provider_passes_the_same_tests(name: str, tmp_path: Path) -> None:
    """In a process of its own, because the libraries of one provider stay loaded."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'runs'}", *SAME]
    done = subprocess.run(command, env={**os.environ, providers.VARIABLE: name}, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


HIDE = """
set -e
real=$(readlink -f "$1")
folder=$(dirname "$real")
mount -t tmpfs none "$2"
mkdir "$2/upper" "$2/work"
mount -t overlay none -o "lowerdir=$folder,upperdir=$2/upper,workdir=$2/work" "$folder"
rm -f "$folder/$3"*
shift 3
exec "$@"
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED)
def test_a_machine_without_libgomp_is_told_which_package_brings_it(name: str, tmp_path: Path) -> None:
    """Slim images lack it. It is taken away for one process only: in name spaces of its own, behind an overlay."""
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False).stdout.split()
    place = next((path for path in listed if path.endswith("/libgomp.so.1")), None)
    hidden = ["unshare", "-rm", "sh", "-c", HIDE, "sh", str(place), str(tmp_path), "libgomp.so.1"]
    env = {**os.environ, providers.VARIABLE: name, "PYTHONPATH": str(ROOT)}
    if place is None or subprocess.run([*hidden, "true"], capture_output=True, check=False).returncode:
        pytest.skip("the system lets nothing be hidden from a process")
    reason = "libgomp.so.1: cannot open shared object file: No such file or directory"
    cure = f"{name}: its libraries cannot be loaded ({reason}); install it: apt-get install libgomp1, or dnf install libgomp"
    asked = [sys.executable, "-m", "mflamingo_cli", "ask", "What is the mood?", "--no-cache", str(ROOT / "tests" / "data" / "ocean.opus")]
    done = subprocess.run([*hidden, *asked], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (69, "")
    assert f"mflamingo: {cure}" in done.stderr
    doctor = [sys.executable, "-m", "mflamingo_cli", "doctor", "--json"]
    done = subprocess.run([*hidden, *doctor], env=env, capture_output=True, text=True, check=False)
    [finding] = [row for row in json.loads(done.stdout) if row["name"] == "ggml, llama.cpp"]
    assert (done.returncode, finding["ok"]) == (69, False)
    assert cure in finding["value"]
