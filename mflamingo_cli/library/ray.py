"""[ray] Many songs on many machines: Ray Data decodes and measures them in tasks and lets models hear them in actors.

One song is one block of data, so that what a dead worker takes with it is that song, which another worker does again.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from mflamingo_cli import __version__, pipeline
from mflamingo_cli.backends import find_model, open_backend
from mflamingo_cli.backends.base import BackendInfo, OpenOptions
from mflamingo_cli.backends.memory import file_bytes
from mflamingo_cli.backends.threads import physical_cores, useful_threads
from mflamingo_cli.core import remote
from mflamingo_cli.errors import MFlamingoError, ModelError, OutOfMemoryError, UsageError
from mflamingo_cli.models.hub import forbid_network
from mflamingo_cli.pipeline import Request
from mflamingo_cli.schema import Analysis

HEARING_BYTES = 400 << 20  # of memory for a task that decodes and measures a song of four minutes
TRIES_AGAIN = 2  # of a song whose worker died
LOCAL = ("auto", "local")  # addresses that name no host
REACHED_S = 10.0
LEAST_CPUS = 2  # a model and a task that decodes
IN_FLIGHT = (2, 1)  # songs with one model at a time: one that kills it takes the next with it, so the rest is tried one by one
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@dataclass(frozen=True)
class RayJob:
    """What every worker must know."""

    request: Request
    model: str
    opening: OpenOptions
    offline: bool = False

    def settings(self, info: BackendInfo) -> dict[str, Any]:
        """What the records depend on besides the songs, as JSON."""
        request = self.request
        part = [request.start_s, request.end_s]
        return {
            "command": [request.command, *(task.prompt for task in request.tasks)],
            "part": part,
            "options": {name: list(value) if isinstance(value, tuple) else value for name, value in vars(request.options).items()},
            "model": [info.model, info.revision, info.backend, info.dtype],
        }


@dataclass(frozen=True)
class Found:
    """What the cluster says of the model: what it is, and what an actor of it takes."""

    info: BackendInfo
    n_cpus: int
    n_gpus: int
    version: str


def require() -> None:
    """Raise ModelError where Ray Data is not installed."""
    if any(find_spec(name) is None for name in ("ray", "pyarrow", "fsspec")):
        raise ModelError("--engine ray needs Ray Data: pip install 'mflamingo-cli[ray]'", code="not_installed")


def connect(address: str | None) -> None:
    """Join a cluster ("auto", host:port, ray://…), or start one of this machine. Raises ModelError."""
    import ray

    if ray.is_initialized():
        return
    os.environ.update(ENVIRONMENT)
    joins = address or os.environ.get("RAY_ADDRESS")
    if joins and joins not in LOCAL:
        _reach(joins)
    own = {} if joins else {"include_dashboard": False, "num_cpus": max(LEAST_CPUS, physical_cores())}
    try:
        with _silence():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, runtime_env={"env_vars": ENVIRONMENT}, **own)
    except Exception as error:  # Ray raises bare ones too
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        cure = "; is it running, and is its token in RAY_AUTH_TOKEN if it wants one?" if joins else ""
        raise ModelError(f"no Ray cluster at {joins or 'this machine'}: {reason}{cure}", code="cluster_unavailable") from error


def _reach(address: str) -> None:
    """Raise ModelError where nobody answers: Ray would try again for minutes."""
    parts = urlsplit(f"//{address.rpartition('://')[2]}")
    try:
        if parts.port is None:
            raise ModelError(f"--ray-address {address}: is no address; write HOST:PORT", code="cluster_unavailable")
        socket.create_connection((parts.hostname or "", parts.port), REACHED_S).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"no Ray cluster at {address}: {reason}; is it running?", code="cluster_unavailable") from error


@contextmanager
def _silence() -> Iterator[None]:
    """Descriptor 2 goes nowhere: Ray's libraries tell there which level of logging they were asked for."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def ask_cluster(work: RayJob) -> Found:
    """Open the model once where it will run. Raises ModelError where it cannot, or cannot do what is asked."""
    import ray

    there = ray.cluster_resources()
    gpu = work.opening.device == "cuda" or (work.opening.device == "auto" and there.get("GPU", 0) >= 1)
    if there.get("CPU", 0) < LEAST_CPUS or there.get("GPU", 0) < gpu:  # Ray would wait for them for ever
        has = f"{there.get('CPU', 0):g} CPU and {there.get('GPU', 0):g} GPU"
        raise ModelError(f"the cluster has {has}, needed are at least {LEAST_CPUS} CPU and {int(gpu)} GPU", code="cluster_unavailable")
    probe = ray.remote(num_cpus=1, num_gpus=int(gpu))(_probe)
    answer: Found | MFlamingoError = ray.get(probe.remote(work))
    if isinstance(answer, MFlamingoError):
        raise answer
    if answer.version != __version__:
        raise ModelError(f"the cluster has mflamingo {answer.version}, here is {__version__}; install the same", code="cluster_unavailable")
    largest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
    return replace(answer, n_cpus=max(1, min(answer.n_cpus, largest, int(there["CPU"]) - 1)))


def analyses(songs: Sequence[str], work: RayJob, found: Found) -> Iterator[Analysis]:
    """One record for each song, as they come. A song that kills its workers gets one with the error `worker_died`."""
    left = dict.fromkeys(songs)
    for in_flight in IN_FLIGHT:
        for song, record in _heard_by(list(left), work, found, in_flight):
            if song in left:
                del left[song]
                yield record
    for song in left:
        lost = MFlamingoError(f"{song}: each worker that heard it died; see the cluster's log", code="worker_died")
        yield pipeline.failed(song, work.request.command, lost)


def _heard_by(songs: Sequence[str], work: RayJob, found: Found, in_flight: int) -> Iterator[tuple[str, Analysis]]:
    """Pairs as Ray Data streams them; songs whose workers died too often are missing."""
    import ray.data

    if not songs:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    resources = ray.cluster_resources()
    n_models = int(resources.get("GPU", 0) / found.n_gpus if found.n_gpus else (resources["CPU"] - 1) / found.n_cpus)
    actors = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, n_models), max_tasks_in_flight_per_actor=in_flight)
    rows = ray.data.from_items([{"song": os.fsencode(song)} for song in songs], override_num_blocks=len(songs))
    with warnings.catch_warnings(action="ignore"):  # Ray 2.64 will have no way to say how often: pyproject.toml leaves it out
        heard = rows.map(_hear, fn_args=(work, found.info), num_cpus=1, memory=HEARING_BYTES, max_retries=TRIES_AGAIN)
        answered = heard.map(
            _Model,
            fn_constructor_args=(work,),
            compute=actors,
            num_cpus=found.n_cpus,
            num_gpus=found.n_gpus,
            max_task_retries=TRIES_AGAIN,
        )
    for row in answered.iter_rows():
        if row["bug"]:
            raise RuntimeError(f"on the cluster:\n{row['bug']}")
        yield os.fsdecode(row["song"]), Analysis.from_json(row["record"])


# --- on the cluster ---------------------------------------------------------------------------------------------------


def _probe(work: RayJob) -> Found | MFlamingoError:
    """What a worker says of the model, or why it cannot have it: Ray would wrap an exception."""
    try:
        if work.offline:
            forbid_network()
        files = find_model(work.model)
        with open_backend(work.model, work.opening) as backend:
            info = backend.info
        pipeline.check_abilities(work.request, info)
    except MFlamingoError as error:
        return error
    gpu = info.device.lower().startswith("cuda")
    n_cores = useful_threads(file_bytes(*files.pairs[0])) if info.backend == "gguf" else physical_cores()
    return Found(info, 1 if gpu else work.opening.threads or n_cores, int(gpu), __version__)


def _hear(row: dict[str, Any], work: RayJob, info: BackendInfo) -> dict[str, Any]:
    """Fetch, decode and measure one song."""
    song = os.fsdecode(row["song"])
    return _row(song, work, lambda: {"heard": pickle.dumps(pipeline.prepare(song, work.request, info))})


class _Model:
    """An actor: a model that is opened once and hears song after song."""

    def __init__(self, work: RayJob) -> None:
        if work.offline:
            forbid_network()
        self._work = work
        self._backend = open_backend(work.model, work.opening)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Answer what is asked of one song that was decoded."""
        if not row["heard"]:
            return row
        song, heard = os.fsdecode(row["song"]), pickle.loads(row["heard"])
        return _row(song, self._work, lambda: {"record": self._answer(song, heard).to_json()})

    def _answer(self, song: str, heard: pipeline.PreparedSong) -> Analysis:
        *_, record = pipeline.run(song, self._backend, self._work.request, ahead=lambda: heard)
        assert isinstance(record, Analysis), "run() ends with an Analysis"
        return record


def _row(song: str, work: RayJob, done: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row of data: what was done, else a record of its failure; a mistake of ours goes home as text, Ray would leave the song out."""
    row = {"song": os.fsencode(song), "heard": b"", "record": "", "bug": ""}
    try:
        return row | done()
    except MFlamingoError as error:
        failure = error
    except MemoryError:
        failure = OutOfMemoryError.of(song)
    except Exception:
        return row | {"bug": traceback.format_exc()}
    return row | {"record": pipeline.failed(song, work.request.command, failure).to_json()}


def check_inputs(songs: Sequence[str], work: RayJob) -> None:
    """Raise UsageError or ModelError for what no worker can hear."""
    if "-" in songs:
        raise UsageError("stdin is of this machine only; name files or addresses for --engine ray")
    if ":" in work.opening.device:
        raise UsageError(f"--device {work.opening.device}: with --engine ray the cluster chooses the GPU; say --device cuda")
    for address in {song.partition("://")[0]: song for song in songs if remote.is_address(song)}.values():
        remote.check(address)
