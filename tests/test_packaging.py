"""Laws of the package: everything that the program reads is installed with it, and nothing heavy is asked for."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tomllib

import pytest

from mflamingo_cli.backends.options import EMBEDDED
from tests.docs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = ("mflamingo_cli", "quant")
# What command 1 may find beside Python; no compiler is among them
TOOLS = ("bash", "sh", "env")
MAX_INSTALL_S = 60.0  # of a processor, with an empty cache
MAX_EMBEDDED_BYTES = {"mini": 25_000_000, "small": 60_000_000}  # what an embedded model may weigh, GGUF and safetensors together


def files(package: str) -> list:
    return [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"]


def test_every_file_of_the_packages_is_installed():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["mflamingo_cli"]
    for package in PACKAGES:
        assert len(files(package)) > 10
        for path in files(package):
            inside = path.relative_to(ROOT / package)
            if path.suffix == ".py":
                assert (path.parent / "__init__.py").exists(), f"{path.parent} is no package"
            else:
                assert package == "mflamingo_cli", path
                assert any(inside.match(pattern) for pattern in patterns), f"{path} is not in package-data"


def test_man_pages_and_completions_are_installed_where_shells_look():
    listed = PROJECT["tool"]["setuptools"]["data-files"]
    assert set(listed) == {
        "share/man/man1",
        "share/bash-completion/completions",
        "share/zsh/site-functions",
        "share/fish/vendor_completions.d",
    }
    assert all(patterns and all(list(ROOT.glob(pattern)) for pattern in patterns) for patterns in listed.values())


def test_the_default_road_asks_for_nothing_heavy():
    names = {item.split("=")[0].split(">")[0].split("<")[0] for item in PROJECT["project"]["dependencies"]}
    assert not names & {"torch", "transformers", "librosa", "scipy", "numba", "matplotlib", "huggingface_hub"}


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_model_is_light(name):
    assert (
        0
        < sum(path.stat().st_size for path in files("mflamingo_cli") if ROOT / "mflamingo_cli" / name in path.parents)
        <= MAX_EMBEDDED_BYTES[name]
    )


def test_constraints_name_every_direct_dependency():
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = PROJECT["project"]["dependencies"] + extras["torch"] + extras["train"] + extras["dev"]
    names = {item.split("=")[0].split(">")[0].split("<")[0].split("[")[0].lower() for item in wanted} - {"mflamingo-cli"}
    assert names <= pinned


@pytest.mark.slow
def test_command_1_needs_no_compiler(tmp_path):
    """The README's first command in a copy of the tree, with an empty cache, where only Python and a shell are found."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\0")
    if not any(tracked):
        pytest.skip("no git checkout here")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "tree" / name)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    (tmp_path / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    [command] = re.findall(r"<!-- command 1 -->\n```sh\n(.+)\n```", (ROOT / "README.md").read_text(encoding="utf-8"))
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MFLAMINGO_LIBRARIES", "CC", "CXX")}
    env |= {"PATH": str(tmp_path / "bin"), "PIP_NO_CACHE_DIR": "1", "HOME": str(tmp_path)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path / "tree", env=env, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if re.search("NewConnectionError|Temporary failure in name resolution|Network is unreachable", done.stderr):
        pytest.skip("no package index is reachable here")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "BPM" in done.stdout
    assert "xllamacpp" in done.stdout  # pip says what it is doing
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < MAX_INSTALL_S
