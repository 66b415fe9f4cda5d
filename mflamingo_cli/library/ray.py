"""[ray] The engine of a Ray cluster: Ray Data decodes and measures songs in tasks, and models answer in actors.

One song is one block of data, so that what a dead worker takes with it is that song, which another worker does again.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from mflamingo_cli import __version__, assemble, pipeline, requests
from mflamingo_cli.backends.base import BackendInfo
from mflamingo_cli.backends.memory import file_bytes
from mflamingo_cli.backends.threads import physical_cores, useful_threads
from mflamingo_cli.core import remote
from mflamingo_cli.core.remote import forbid_network
from mflamingo_cli.errors import InternalError, MFlamingoError, ModelError, UsageError, as_song_error
from mflamingo_cli.library.plan import EngineListener, Event, Finished, Opened, RunPlan
from mflamingo_cli.schema import Analysis

PREPARE_BYTES = 400 << 20  # of memory for a task that decodes and measures a song of four minutes
TRIES_AGAIN = 2  # of a song whose worker died
LOCAL = ("auto", "local")  # addresses that name no host
REACHED_S = 10.0
LEAST_CPUS = 2  # a model and a task that decodes
IN_FLIGHT = (2, 1)  # songs with one model at a time: one that kills it takes the next with it, so the rest is tried one by one
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


class RayEngine:
    """Runs on a cluster; its results are files in the folder of `RunPlan.output`, which also say what earlier runs finished."""

    def check(self, plan: RunPlan) -> None:
        """Raise where Ray is missing, or where no worker could do what is asked."""
        if any(find_spec(name) is None for name in ("ray", "pyarrow", "fsspec")):
            raise ModelError("--engine ray needs Ray Data: pip install 'mflamingo-cli[ray]'", code="not_installed")
        if plan.output is None or os.path.isfile(plan.output):
            raise UsageError("--engine ray writes many files; name a folder or a URL with --output; end the name with .parquet for Parquet")
        if "-" in plan.songs:
            raise UsageError("stdin exists only on this machine; name files or URLs for --engine ray")
        if ":" in plan.opening.device:
            raise UsageError(f"--device {plan.opening.device}: with --engine ray the cluster chooses the GPU; use --device cuda")
        for address in {song.partition("://")[0]: song for song in plan.songs if remote.is_address(song)}.values():
            remote.check(address)

    def run(self, plan: RunPlan, listener: EngineListener) -> Generator[Event, None, None]:
        """Yield the songs that the folder has already, then all others as they come."""
        from mflamingo_cli.library.shards import ShardWriter, identity

        assert plan.output is not None, "check() was called"
        job = replace(plan, songs=(), request=replace(plan.request, keep_raw=plan.keep_raw))  # what every worker must know
        shards = ShardWriter(plan.output)
        listener.working("joining the cluster")
        connect(plan.ray_address)
        model = ask_cluster(job)
        listener.detail(plan.describe(model.info))
        earlier = shards.open(_settings(job, model.info))
        yield Opened(resumable=True)
        done = {song: earlier[name] for song in plan.songs if (name := identity(song)) in earlier}
        if done:
            listener.detail(f"{len(done)} of {len(plan.songs)} are done")
        for song, record in done.items():
            yield Finished(song, record, _failure(record), remembered=True)
        try:
            for finished in analyses([song for song in plan.songs if song not in done], job, model):
                shards.add(replace(finished.record, thinking=None) if plan.hide_thinking else finished.record)
                yield finished
        finally:
            shards.flush()
        listener.detail(f"saved {shards.output}")


def _failure(record: Analysis, trace: str = "") -> MFlamingoError | None:
    if record.error is None:
        return None
    return InternalError(record.error.message, trace) if trace else MFlamingoError(record.error.message, code=record.error.code)


def _settings(job: RunPlan, info: BackendInfo) -> dict[str, Any]:
    """Return what the records depend on besides the songs, as JSON."""
    request = job.request
    return {
        "command": [request.command, *(task.prompt for task in request.tasks)],
        "part": [request.start_s, request.end_s],
        "only": request.only and list(request.only),
        "tempo_range": request.tempo_range and list(request.tempo_range),
        "options": {name: list(value) if isinstance(value, tuple) else value for name, value in vars(request.options).items()},
        "model": [info.model, info.revision, info.backend, info.dtype],
        "--verbose": job.keep_raw,
        "--hide-thinking": job.hide_thinking,
    }


@dataclass(frozen=True)
class ClusterModel:
    """A model on the cluster: what it is, and what an actor of it needs."""

    info: BackendInfo
    n_cpus: int
    n_gpus: int
    version: str


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
        cure = "; check that the cluster is running, and that RAY_AUTH_TOKEN is set if it needs a token" if joins else ""
        raise ModelError(f"no Ray cluster at {joins or 'this machine'}: {reason}{cure}", code="cluster_unavailable") from error


def _reach(address: str) -> None:
    """Raise ModelError where nobody answers: Ray would try again for minutes."""
    parts = urlsplit(f"//{address.rpartition('://')[2]}")
    try:
        if parts.port is None:
            raise ModelError(f"--ray-address {address}: not an address; write HOST:PORT", code="cluster_unavailable")
        socket.create_connection((parts.hostname or "", parts.port), REACHED_S).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"no Ray cluster at {address}: {reason}; check that the cluster is running", code="cluster_unavailable") from error


@contextmanager
def _silence() -> Iterator[None]:
    """Send descriptor 2 nowhere: Ray's libraries print their logging level there."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def ask_cluster(job: RunPlan) -> ClusterModel:
    """Open the model, where one is asked, once where it will run. Raises ModelError where it cannot, or cannot do what is asked."""
    import ray

    there = ray.cluster_resources()
    wants_gpu = job.opening.device == "cuda" or (job.opening.device == "auto" and there.get("GPU", 0) >= 1)
    gpu = wants_gpu and bool(job.request.tasks)  # measuring needs none
    if there.get("CPU", 0) < LEAST_CPUS or there.get("GPU", 0) < gpu:  # Ray would wait for them for ever
        has = f"{there.get('CPU', 0):g} CPU and {there.get('GPU', 0):g} GPU"
        raise ModelError(f"the cluster has {has}, but at least {LEAST_CPUS} CPU and {int(gpu)} GPU are needed", code="cluster_unavailable")
    probe = ray.remote(num_cpus=1, num_gpus=int(gpu))(_probe)
    answer: ClusterModel | MFlamingoError = ray.get(probe.remote(job))
    if isinstance(answer, MFlamingoError):
        raise answer
    if answer.version != __version__:
        raise ModelError(
            f"the cluster has mflamingo {answer.version}, this machine {__version__}; install the same version", code="cluster_unavailable"
        )
    largest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
    return replace(answer, n_cpus=max(1, min(answer.n_cpus, largest, int(there["CPU"]) - 1)))


def analyses(songs: Sequence[str], job: RunPlan, model: ClusterModel) -> Iterator[Finished]:
    """One record for each song, as they come. A song that kills its workers gets one with the error `worker_died`."""
    left = dict.fromkeys(songs)
    for in_flight in IN_FLIGHT:
        for finished in _stream_records(list(left), job, model, in_flight):
            if finished.song in left:
                del left[finished.song]
                yield finished
    for song in left:
        lost = MFlamingoError(f"{song}: every worker that processed it died; see the cluster's log", code="worker_died")
        yield Finished(song, assemble.failed(song, job.request.command, lost), lost)


def _stream_records(songs: Sequence[str], job: RunPlan, model: ClusterModel, in_flight: int) -> Iterator[Finished]:
    """Records as Ray Data streams them; songs whose workers died too often are missing."""
    import ray.data

    if not songs:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    resources = ray.cluster_resources()
    n_models = int(resources.get("GPU", 0) / model.n_gpus if model.n_gpus else (resources["CPU"] - 1) / model.n_cpus)
    actors = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, n_models), max_tasks_in_flight_per_actor=in_flight)
    rows = ray.data.from_items([{"song": os.fsencode(song)} for song in songs], override_num_blocks=len(songs))
    with warnings.catch_warnings(action="ignore"):  # Ray 2.64 will have no way to say how often: pyproject.toml leaves it out
        prepared = rows.map(_prepare, fn_args=(job, model.info), num_cpus=1, memory=PREPARE_BYTES, max_retries=TRIES_AGAIN)
        answered = prepared.map(
            _ModelActor,
            fn_constructor_args=(job,),
            compute=actors,
            num_cpus=model.n_cpus,
            num_gpus=model.n_gpus,
            max_task_retries=TRIES_AGAIN,
        )
    for row in answered.iter_rows():
        record = Analysis.from_json(row["record"])
        yield Finished(os.fsdecode(row["song"]), record, _failure(record, row["trace"]))


# --- on the cluster ---------------------------------------------------------------------------------------------------


def _probe(job: RunPlan) -> ClusterModel | MFlamingoError:
    """What a worker says of the model, or why it cannot have it: Ray would wrap an exception."""
    try:
        if job.offline:
            forbid_network()
        files = job.find_model()
        with job.open_backend() as backend:
            info = backend.info
        requests.answerable(job.request, info)
    except MFlamingoError as error:
        return error
    gpu = info.device.lower().startswith("cuda")
    n_cores = useful_threads(file_bytes(*files.pairs[0])) if info.backend == "gguf" else physical_cores()
    idle = not job.request.tasks  # an actor that only passes records on
    return ClusterModel(info, 1 if gpu or idle else job.opening.threads or n_cores, int(gpu), __version__)


def _prepare(row: dict[str, Any], job: RunPlan, info: BackendInfo) -> dict[str, Any]:
    """Fetch, decode and measure one song."""
    song = os.fsdecode(row["song"])
    return _row(song, job, lambda: {"prepared": pickle.dumps(pipeline.prepare(song, job.request, info))})


class _ModelActor:
    """An actor: a model that is opened once and answers about song after song."""

    def __init__(self, job: RunPlan) -> None:
        if job.offline:
            forbid_network()
        self._job = job
        self._backend = job.open_backend()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Answer what is asked of one song that was decoded."""
        if not row["prepared"]:
            return row
        song, prepared = os.fsdecode(row["song"]), pickle.loads(row["prepared"])
        return _row(song, self._job, lambda: {"record": self._answer(song, prepared).to_json()})

    def _answer(self, song: str, prepared: requests.PreparedSong) -> Analysis:
        *_, record = pipeline.run(song, self._backend, self._job.request, prepared=prepared)
        assert isinstance(record, Analysis), "run() ends with an Analysis"
        return record


def _row(song: str, job: RunPlan, done: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row of data: what was done, else a record of its failure and, of a fault of ours, its traceback."""
    row = {"song": os.fsencode(song), "prepared": b"", "record": "", "trace": ""}
    try:
        with as_song_error(song):
            return row | done()
    except MFlamingoError as error:
        return row | {"record": assemble.failed(song, job.request.command, error).to_json(), "trace": getattr(error, "trace", "")}
