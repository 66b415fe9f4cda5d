"""Laws of the package: everything that the program reads is installed with it, and nothing heavy is asked for."""

from __future__ import annotations

import tomllib

from tests.docs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = ("mflamingo_cli", "quant")
MAX_EMBEDDED_BYTES = 25_000_000  # what the embedded model may weigh, GGUF and safetensors together


def files(package: str) -> list:
    return [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts and path.name != "README.md"]


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


def test_the_embedded_model_is_light():
    assert sum(path.stat().st_size for path in files("mflamingo_cli") if "mini" in path.parts) <= MAX_EMBEDDED_BYTES


def test_constraints_name_every_direct_dependency():
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = PROJECT["project"]["dependencies"] + extras["torch"] + extras["train"] + extras["dev"]
    names = {item.split("=")[0].split(">")[0].split("<")[0].split("[")[0].lower() for item in wanted} - {"mflamingo-cli"}
    assert names <= pinned
