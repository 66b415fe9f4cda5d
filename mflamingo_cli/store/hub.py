"""What lies in the Hugging Face cache: found, measured and removed without a network and without huggingface_hub. Sizes are bytes.

Other programs write there, and anything may lie in it: what is wrong with an entry is that entry's problem and hides no other.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mflamingo_cli.backends.options import EMBEDDED
from mflamingo_cli.errors import ModelError
from quant.errors import QuantError

if TYPE_CHECKING:  # the help of `models` is drawn without it
    from quant.families import Family

MAIN = "main"
FOLDER = "models--"  # of a model in the cache; the slash of its id is written as two hyphens
SHORT = 7  # digits of a commit that name it, as in git
ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
COMMIT = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True)
class CachedModel:
    """A model in the cache: all its revisions and unfinished files have `n_bytes` together; `directory` is None until one is complete.

    `problem` says why what is there cannot be used, though nothing is missing.
    """

    name: str
    revision: str | None
    n_bytes: int
    directory: Path | None
    problem: str | None = None


def hub_cache() -> Path:
    """The Hugging Face cache, by the same environment variables that its own library reads. Raises ModelError for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = os.environ.get("HF_HOME") or os.path.join(base, "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    folder = Path(os.path.expandvars(os.path.expanduser(cache)))
    if folder.parts[:1] == ("~",):  # expanduser found no home
        raise ModelError("there is no home folder to hold the Hugging Face cache; name a folder in HF_HOME")
    return folder


def repository(name: str) -> Path:
    """Where a model's files lie, or would."""
    return hub_cache() / (FOLDER + name.replace("/", "--"))


def _home(name: str) -> Path | None:
    """Where a model's files lie; None where there are none, or where others may not read them."""
    try:
        home = repository(name)
    except ModelError:
        return None
    return home if os.path.isdir(home) and os.access(home, os.R_OK | os.X_OK) else None


def hub_snapshot(name: str) -> Path:
    """Directory of a hub id, or of ID@REVISION, that was downloaded before, without the network. Raises ModelError when there is none."""
    base, _, revision = name.partition("@")
    is_hub_id = ID.fullmatch(base) is not None
    directory = _snapshot(base, revision) if is_hub_id else None
    pull = f"mflamingo models pull {base}{f' --revision {revision}' if revision else ''}"
    if directory is not None and not is_complete(directory):
        raise ModelError(f"model {name!r} is only partly downloaded; get the rest with `{pull}`")
    if directory is None:
        cure = f"download it with `{pull}`" if is_hub_id else f"embedded are {' and '.join(EMBEDDED)}"
        raise ModelError(f"model {name!r} is not a directory, a .gguf file or a downloaded checkpoint; {cure}")
    return directory


def _snapshot(name: str, revision: str) -> Path | None:
    """The revision that is asked for: a branch, a tag or the first digits of a commit; without one that of main, or the only one there.

    Raises QuantError for a branch that names no commit.
    """
    home = _home(name)
    if home is None:
        return None
    reference = home / "refs" / (revision or MAIN)
    if os.access(reference, os.R_OK) and os.path.lexists(reference) and not os.path.isdir(reference):
        directory = home / "snapshots" / _commit(reference)
        return directory if os.path.isdir(directory) else None
    there = [path for path in (home / "snapshots").glob("*") if os.path.isdir(path)]
    if revision:
        there = [path for path in there if path.name == revision or (len(revision) >= SHORT and path.name.startswith(revision))]
    return there[0] if len(there) == 1 else None


def _commit(reference: Path) -> str:
    """The commit that a branch or tag names. Raises QuantError where it names none."""
    from quant.json_files import read_text

    commit = read_text(reference).strip()
    if not COMMIT.fullmatch(commit):
        raise QuantError(f"{reference}: names no commit; download the model again")
    return commit


def is_complete(directory: Path) -> bool:
    """Whether all weights are there; a pull brings them last."""
    from quant.json_files import weight_map  # not above: the help of `models` is drawn without it
    from quant.layout import AUDIO_PREFIX, INDEX, SINGLE

    texts = [path for path in directory.glob("*.gguf") if not path.name.startswith(AUDIO_PREFIX) and path.exists()]
    if any(_has_audio(text) for text in texts):
        return True
    if not (directory / "config.json").exists():
        return False
    if (directory / SINGLE).exists() or not (directory / INDEX).exists():
        return (directory / SINGLE).exists()
    try:
        return all(os.path.exists(directory / shard) for shard in set(weight_map(directory / INDEX).values()))
    except QuantError:
        return False


def _has_audio(text: Path) -> bool:
    from quant.layout import audio_file

    try:
        return audio_file(text).exists()
    except QuantError:
        return False


def cached(name: str) -> CachedModel | None:
    """What is here of a hub id; None if nothing."""
    home = _home(name)
    if home is None:
        return None
    directory, problem = None, None
    try:
        directory = _snapshot(name, "")
        if directory is not None and family_of(directory) is None and is_complete(directory):
            problem = f"{directory}: not a Music Flamingo model"
    except QuantError as error:
        problem = str(error)
    whole = directory if directory is not None and problem is None and is_complete(directory) else None
    revision = directory.name if directory else None
    return CachedModel(name, revision, disk_bytes(home), whole, problem and problem.replace(f"{home}/", ""))


def music_flamingos() -> Iterator[CachedModel]:
    """Everything of the model's kind in the cache, and what is too damaged to tell, by name; other models are passed over."""
    try:
        cache = hub_cache()
    except ModelError:
        return
    for home in sorted(cache.glob(f"{FOLDER}*--*") if os.access(cache, os.R_OK | os.X_OK) else ()):
        name = home.name.removeprefix(FOLDER).replace("--", "/", 1)
        if ID.fullmatch(name) and any(map(_may_be_ours, (home / "snapshots").glob("*"))) and (found := cached(name)):
            yield found


def _may_be_ours(directory: Path) -> bool:
    try:
        return family_of(directory) is not None
    except QuantError:
        return True


def family_of(directory: Path) -> Family | None:
    """The family that config.json or the audio part of a GGUF pair names; None for other models. Raises QuantError for damaged files."""
    from quant.families import FAMILIES, of_projector
    from quant.json_files import read_json
    from quant.keys import KEY_PROJECTOR
    from quant.layout import AUDIO_PREFIX
    from quant.reader import read

    if (directory / "config.json").exists():
        model_type = read_json(directory / "config.json").get("model_type")
        return FAMILIES.get(model_type) if isinstance(model_type, str) else None
    found = (of_projector(read(path).keys.get(KEY_PROJECTOR)) for path in sorted(directory.glob(f"{AUDIO_PREFIX}*.gguf")) if path.exists())
    return next((family for family in found if family), None)


def disk_bytes(*paths: Path) -> int:
    """What files and the files in folders take together, each once; links, which only point to one of them, are not counted."""
    files = {file for path in paths for file in (path, *path.rglob("*")) if file.is_file() and not file.is_symlink()}
    return sum(file.stat().st_size for file in files)


def removal(name: str, revision: str = "") -> list[Path]:
    """What to delete to take a model out of the cache: all of it, or one revision with the files that no other one shares.

    In the order to do it: first what makes the model found, so that a removal that is stopped leaves nothing half.
    """
    home = repository(name)
    everything = [path for path in (home / "refs", home / "snapshots", home, hub_cache() / ".locks" / home.name) if os.path.exists(path)]
    if not revision:
        return everything
    gone = _snapshot(name, revision)
    others = [path for path in (home / "snapshots").glob("*") if path != gone]
    if gone is None or not others:
        return everything if gone else []
    named = [path for path in (home / "refs").rglob("*") if path.is_file() and path.read_bytes().strip() == os.fsencode(gone.name)]
    shared = {path.resolve() for other in others for path in other.rglob("*")}
    own = {path.resolve() for path in gone.rglob("*")} - shared
    return [*named, gone, *sorted(path for path in own if path.parent == (home / "blobs").resolve())]


def remove(paths: Sequence[Path]) -> None:
    """Delete files and folders in this order."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def size(n_bytes: float) -> str:
    """A size for people, in the hub's units of a thousand."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes:.0f} bytes"
