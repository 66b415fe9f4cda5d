"""Installed packages that bring ggml and llama.cpp: found, and their shared objects loaded, without importing their Python modules."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from quant.errors import QuantError

VARIABLE = "MFLAMINGO_LIBRARIES"  # chooses a provider by its name, where both are installed
ENDINGS: Mapping[str, tuple[str, str]] = {"darwin": ("lib", ".dylib"), "win32": ("", ".dll")}  # of a shared object's name; else lib….so


@dataclass(frozen=True)
class Provider:
    """A package on PyPI, with the folder and the names of its shared objects, each after those that it needs; `tested` are its versions."""

    name: str
    module: str
    folder: str
    libraries: tuple[str, ...]  # "*": a file name as it is
    tested: tuple[str, ...]

    @property
    def cure(self) -> str:
        """What to do where it does not work."""
        return f"install the tested version: pip install {self.name}=={self.tested[-1]}"

    @property
    def directory(self) -> Path | None:
        """The folder of its shared objects; None where it is not installed."""
        found = find_spec(self.module)  # of a package at the top: its file is found, nothing of it is run
        return None if found is None or found.origin is None else Path(found.origin).parent / self.folder

    def version(self) -> str:
        """Its version by the name of its metadata, "unknown" where that is not beside it."""
        folder = self.directory
        site = folder.parents[self.folder.count("/") + bool(self.folder)] if folder else Path()
        names = sorted(path.name for path in site.glob(f"{self.name.replace('-', '_')}-*.dist-info"))
        return names[-1].removesuffix(".dist-info").rpartition("-")[2] if names else "unknown"


# By preference: what is built for this machine (AVX-512, CUDA, Metal) before wheels, which are for any
PROVIDERS = (
    Provider("llama-cpp-python", "llama_cpp", "lib", ("ggml-base", "ggml", "llama"), ("0.3.36",)),
    Provider("xllamacpp", "xllamacpp", "", ("xllamacpp.abi3.so",), ("2026.9.11063",)),
)


class Libraries:
    """The loaded shared objects of a provider, as one: a function is looked up in each."""

    def __init__(self, provider: Provider, directory: Path) -> None:
        self.provider, self.directory = provider, directory
        self.paths = [directory / _file_name(name) for name in provider.libraries]
        try:
            if sys.platform == "win32":
                os.add_dll_directory(str(directory))
            self._loaded = [ctypes.CDLL(str(path)) for path in self.paths]
        except OSError as error:
            cure = "install it: apt-get install libgomp1, or dnf install libgomp" if "libgomp" in str(error) else provider.cure
            raise QuantError(f"{provider.name}: its libraries cannot be loaded ({error}); {cure}") from error

    def bind(self, prototypes: Mapping[str, tuple[Any, list[Any]]]) -> dict[str, Any]:
        """Return functions by name, with their result and arguments. Raises QuantError that names those which are missing."""
        functions = {name: next((f for library in self._loaded if (f := getattr(library, name, None))), None) for name in prototypes}
        if missing := [name for name, function in functions.items() if function is None]:
            raise QuantError(f"{self.provider.name} {self.provider.version()} lacks {', '.join(missing)}; {self.provider.cure}")
        for name, function in functions.items():
            function.restype, function.argtypes = prototypes[name]  # type: ignore[union-attr]
        return functions


def _file_name(name: str) -> str:
    first, last = ("", "") if "." in name else ENDINGS.get(sys.platform, ("lib", ".so"))
    return f"{first}{name}{last}"


def find() -> Provider:
    """Return the provider that is used: the one that is asked for, else the first that is installed. Raises QuantError."""
    wanted = os.environ.get(VARIABLE, "")
    names = {provider.name: provider for provider in PROVIDERS}
    if wanted and wanted not in names:
        raise QuantError(f"{VARIABLE}={wanted}: choose one of {', '.join(names)}")
    for provider in [names[wanted]] if wanted else PROVIDERS:
        if provider.directory is not None:
            return provider
    missing = names[wanted] if wanted else PROVIDERS[-1] if sys.platform != "win32" else PROVIDERS[0]
    raise QuantError(f"{missing.name}, which contains ggml and llama.cpp, is not installed; {missing.cure}")


@lru_cache(maxsize=1)
def libraries() -> Libraries:
    """Load the shared objects, once in a process. Raises QuantError with what helps."""
    provider = find()
    assert provider.directory is not None
    return Libraries(provider, provider.directory)
