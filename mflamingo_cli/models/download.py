"""Models from the Hugging Face hub into its cache: one revision, only the files needed, resumed at the byte where it stopped.

huggingface_hub forgets an unfinished file or leaves it behind, so all are fetched through its `http_get` into a file of ours, with which
the next run goes on. Sizes are bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mflamingo_cli.errors import ModelError, UsageError
from mflamingo_cli.files import open_growing, write_atomic
from mflamingo_cli.store import hub
from quant.checkpoint import DTYPES
from quant.families import FAMILIES
from quant.layout import AUDIO_PREFIX, INDEX, SINGLE, audio_name
from quant.types import TYPES, mix

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256, GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
SETTINGS = re.compile(  # what transformers, the GGUF conversion and our own back ends read beside the weights
    r"((|generation_|processor_|preprocessor_|tokenizer_)config|mflamingo|chat_template|tokenizer|special_tokens_map|added_tokens|vocab)"
    r"\.json|chat_template\.jinja|merges\.txt"
)
TERMS = re.compile(r"(licen[sc]e|notice)([._-].*)?", re.IGNORECASE)  # whoever has the weights should have their terms
SPARE = 1.1  # of a GGUF's size as its main type tells it: a few matrices take more bits
ORIGINAL_BITS = 16  # of a weight in the published checkpoints, all but the FP8 one

Report = Callable[[str], None]


@dataclass(frozen=True)
class File:
    """A file to fetch; `blob` is its name in the cache, where the hub gives it: the SHA-256 of a large one, git's hash of a small one."""

    name: str
    n_bytes: int
    blob: str | None


@dataclass(frozen=True)
class Download:
    """A download that was looked up and not yet begun."""

    name: str
    reference: str  # branch, tag or commit, as asked for
    revision: str  # the commit it is
    licence: str | None
    bases: tuple[str, ...]  # models that this one was made from, by its card
    files: tuple[File, ...]  # weights last: when they are there, all is
    convert_to: str | None  # type of the GGUF pair to be made
    n_weights: int | None  # in all safetensors files, where the hub says

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(file.n_bytes for file in self.files)

    @property
    def directory(self) -> Path:
        """Where the files will be found."""
        return hub.repository(self.name) / "snapshots" / self.revision

    def missing(self) -> int:
        """What is still to be fetched."""
        return sum(file.n_bytes - self._here(file) for file in self.files)

    def _here(self, file: File) -> int:
        if (self.directory / file.name).exists() or (file.blob and self.blob(file).exists()):
            return file.n_bytes
        with contextlib.suppress(FileNotFoundError):
            return min(self.part(file).stat().st_size, file.n_bytes) if file.blob else 0
        return 0

    def blob(self, file: File) -> Path:
        """Where the cache keeps the content of a file."""
        assert file.blob
        return hub.repository(self.name) / "blobs" / file.blob

    def part(self, file: File) -> Path:
        """Where it grows: in a folder of ours, which nobody else can write to."""
        return hub.repository(self.name) / "unfinished" / f"{file.blob}.part"


def look_up(name: str, reference: str = hub.MAIN, type_name: str | None = None) -> Download:
    """Ask the hub what a pull would bring. Raises UsageError for a wrong choice, ModelError when the model cannot be had."""
    if not hub.ID.fullmatch(name):
        raise UsageError(f"{name!r} is not a hub id; write OWNER/NAME, as in nvidia/music-flamingo-2601-hf")
    if find_spec("huggingface_hub") is None:
        raise ModelError("downloads need huggingface_hub; install it with: pip install 'mflamingo-cli[hub]'")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with _explained(name, reference):
        from huggingface_hub import HfApi

        info = HfApi().model_info(name, revision=reference, files_metadata=True)
        if info.gated:
            HfApi().auth_check(name)
    kind = (info.config or {}).get("model_type")
    if kind is not None and kind not in FAMILIES:
        raise ModelError(f"{name} is not Music Flamingo but {kind!r}; `mflamingo models list` shows what can be used")
    files, convert_to = _choose(name, info, type_name)
    card = info.card_data.to_dict() if info.card_data else {}
    bases = card.get("base_model") or ()
    assert info.sha
    return Download(
        name,
        reference,
        info.sha,
        card.get("license_name") or card.get("license"),
        (bases,) if isinstance(bases, str) else tuple(map(str, bases)),
        files,
        convert_to,
        info.safetensors.total if info.safetensors else None,
    )


def _choose(name: str, info: ModelInfo, type_name: str | None) -> tuple[tuple[File, ...], str | None]:
    """The files needed, and what to convert them to: a GGUF pair of the type asked for needs no conversion."""
    siblings = [sibling for sibling in info.siblings or () if "/" not in sibling.rfilename]
    there = {sibling.rfilename: File(sibling.rfilename, sibling.size or 0, _blob(sibling)) for sibling in siblings}
    texts = sorted(file for file in there if file.endswith(".gguf") and not file.startswith(AUDIO_PREFIX))
    fitting = [file for file in texts if type_name is None or _type_of(file) == type_name.upper()]
    shards = sorted(file for file in there if SHARD.fullmatch(file))
    terms = [file for file in there if TERMS.fullmatch(file)]
    settings = sorted(file for file in there if SETTINGS.fullmatch(file))
    if "config.json" in there and (SINGLE in there or (shards and INDEX in there)) and not (type_name and fitting):
        weights = [SINGLE] if SINGLE in there else [INDEX, *shards]  # as transformers and the conversion choose, where both are
        _check_convertible(name, info, type_name)
        chosen, convert_to = [*terms, *settings, *weights], type_name.upper() if type_name else None
    else:
        text = _one_of(name, texts, fitting, there, type_name)
        audio = audio_name(text, sorted(there), f"{name}: {text}")
        chosen, convert_to = [*terms, audio, text], None
    return tuple(there[file] for file in chosen), convert_to


def _blob(sibling: RepoSibling) -> str | None:
    """Hash of a file; it becomes a file name here, so nothing else is taken for one."""
    if sibling.lfs:
        return sibling.lfs.sha256 if SHA256.fullmatch(sibling.lfs.sha256) else None
    return sibling.blob_id if GIT.fullmatch(sibling.blob_id or "") else None


def _type_of(text: str) -> str:
    """`music-flamingo-Q8_0.gguf` is Q8_0."""
    return text.removesuffix(".gguf").rpartition("-")[2].upper()


def _one_of(name: str, texts: list[str], fitting: list[str], there: dict[str, File], type_name: str | None) -> str:
    """The only GGUF that fits. Raises ModelError when there are none at all, UsageError when a choice is needed."""
    if not texts:
        raise ModelError(f"{name} contains neither a checkpoint (config.json and safetensors) nor GGUF files")
    if len(fitting) != 1:
        choices = ", ".join(f"{_type_of(text)} ({hub.size(there[text].n_bytes)})" for text in texts)
        wrong = f"--quantize {type_name} is not available" if type_name else "it contains several types"
        raise UsageError(f"{name}: {wrong}; choose one with --quantize: {choices}")
    return fitting[0]


def _check_convertible(name: str, info: ModelInfo, type_name: str | None) -> None:
    """Refuse before the download what could not be converted after it."""
    if type_name is None:
        return
    if type_name.upper() not in TYPES:
        raise UsageError(f"--quantize {type_name}: choose one of {', '.join(TYPES)}")
    others = set(info.safetensors.parameters if info.safetensors else ()) - set(DTYPES)
    if others:
        raise ModelError(f"{name}: its weights are {', '.join(sorted(others))}, which cannot be converted; leave out --quantize")


def check_space(download: Download, output: Path) -> None:
    """Raise ModelError unless what is missing and what will be converted has room."""
    needs = {hub.hub_cache(): download.missing()}
    if download.convert_to:
        base = mix(download.convert_to).base
        bits = 8 * base.block_bytes / base.block
        stored = sum(file.n_bytes for file in download.files if file.name.endswith(".safetensors"))
        n_weights = download.n_weights or stored * 8 / ORIGINAL_BITS
        needs[output] = needs.get(output, 0) + round(n_weights * bits / 8 * SPARE)
    devices: dict[int, tuple[Path, int]] = {}
    for path, wanted in needs.items():
        place = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        device = place.stat().st_dev
        devices[device] = (devices.get(device, (place, 0))[0], devices.get(device, (place, 0))[1] + wanted)
    for place, wanted in devices.values():
        free = shutil.disk_usage(place).free
        if wanted > free:
            raise ModelError(
                f"{download.name}: {hub.size(wanted)} are needed, but only {hub.size(free)} are free in {place}; make room or set HF_HOME"
            )


def fetch(download: Download, report: Report) -> Path:
    """Download what is missing and return the directory; `report` takes the progress. What was fetched stays, however this ends."""
    with _explained(download.name, download.reference):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import disable_progress_bars
        from huggingface_hub.utils.logging import set_verbosity_error

        disable_progress_bars()
        set_verbosity_error()
        before = 0
        for file in download.files:
            if file.blob and not (download.directory / file.name).exists() and not download.blob(file).exists():
                _fetch_blob(download, file, before, report)
            hf_hub_download(download.name, file.name, revision=download.revision, cache_dir=hub.hub_cache())
            before += file.n_bytes
            report(_progress(file.name, before, download.n_bytes))
        if not COMMIT.fullmatch(download.reference):  # let the branch or tag lead to what was fetched, only now that it is whole
            path = hub.repository(download.name) / "refs" / download.reference
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_atomic(path) as stream:
                stream.write(download.revision.encode())
    return download.directory


def _progress(name: str, done: int, total: int) -> str:
    return f"{100 * done / max(total, 1):.0f} % of {hub.size(total)}  {name}"


class _Part(io.BufferedWriter):
    """A file that grows and reports its length."""

    def __init__(self, raw: io.FileIO, grown: Callable[[int], None]) -> None:
        super().__init__(raw)
        self._grown = grown

    def write(self, data: Any) -> int:
        n = super().write(data)
        self._grown(self.tell())
        return n


def _fetch_blob(download: Download, file: File, before: int, report: Report) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    def grown(n_bytes: int) -> None:
        report(_progress(file.name, before + n_bytes, download.n_bytes))

    blob, part = download.blob(file), download.part(file)
    blob.parent.mkdir(parents=True, exist_ok=True)
    try:
        raw = open_growing(part)
    except BlockingIOError as error:
        raise ModelError(f"{download.name}: another process is downloading {file.name}; wait for it") from error
    with _Part(raw, grown) as stream:
        if stream.tell() > file.n_bytes:
            stream.truncate(0)
            stream.seek(0)
        url = hf_hub_url(download.name, file.name, revision=download.revision)
        try:
            http_get(url, stream, resume_size=stream.tell(), headers=build_hf_headers(), expected_size=file.n_bytes or None)
        except OSError as error:
            if error.errno is None and type(error) is OSError:  # http_get's word for another size than the hub's list says
                part.unlink()
                raise ModelError(
                    f"{download.name}: {file.name} does not have the size that the hub gives; run the command again"
                ) from error
            raise
        stream.flush()
        report(f"checking {file.name}")
        if _hash(part, file) != file.blob:
            part.unlink()
            raise ModelError(f"{download.name}: {file.name} arrived damaged and was deleted; run the command again")
        part.replace(blob)  # while it is ours


def _hash(path: Path, file: File) -> str:
    """The hash of what was fetched, as the hub takes it of a file of this kind."""
    with path.open("rb") as content:
        if file.blob and SHA256.fullmatch(file.blob):
            return hashlib.file_digest(content, "sha256").hexdigest()
        return hashlib.sha1(b"blob %d\0" % path.stat().st_size + content.read(), usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def _explained(name: str, reference: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence that says what to do."""
    from huggingface_hub import HfApi, errors

    login = "log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except errors.HFValidationError as error:
        raise UsageError(f"{name!r} is not a hub id; write OWNER/NAME") from error
    except errors.GatedRepoError as error:
        page = f"{HfApi().endpoint}/{name}"
        raise ModelError(f"{name} is gated; accept its terms at {page}, then {login}") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"{name} is not on the hub, or it is private; check the name, or {login}") from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {reference!r}; leave out --revision for the newest") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, errors.HTTPError) as error:
        raise ModelError(f"{name}: {_network(error, HfApi().endpoint, login)}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelError(f"{name}: the disk is full; make room, then run the same command again to resume") from error
        raise ModelError(f"{error.filename or hub.hub_cache()}: {error.strerror or error}") from error


def _network(error: BaseException, endpoint: str, login: str) -> str:
    """What an answer, or none, of the hub means."""
    from huggingface_hub.errors import FileMetadataError

    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if isinstance(error.__cause__, FileMetadataError):
        return f"{endpoint} does not answer like the Hugging Face hub; check HF_ENDPOINT and the proxy"
    if response is None:
        return f"{endpoint} cannot be reached; check the network, then run the same command again to resume"
    if response.status_code in (401, 403):
        return f"the hub refuses access (HTTP {response.status_code}); {login}"
    return f"the hub answers HTTP {response.status_code}; wait, then run the same command again to resume"
