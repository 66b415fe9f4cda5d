"""Laws of the cluster: the local engine's records, once each, also after a worker was killed or this end was."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import soundfile

pytest.importorskip("ray.data")

from mflamingo_cli import MFlamingoError, assemble, cli, load, pipeline, requests
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions
from mflamingo_cli.backends.no_model import NoModel
from mflamingo_cli.core.audio import SAMPLE_RATE
from mflamingo_cli.errors import InternalError, ModelError, UsageError
from mflamingo_cli.library import ray as engine
from mflamingo_cli.library.plan import RunPlan
from mflamingo_cli.schema import Analysis
from tests import clips

pytestmark = pytest.mark.slow

N_SONGS = 20
PATIENCE = {  # of Ray on a machine that has much else to do
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_timeout_ms": "100000",
}


@pytest.fixture(scope="module")
def cluster():
    import ray

    old = dict(os.environ)
    os.environ.update(PATIENCE)
    for tries_left in reversed(range(5)):
        try:
            ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": engine.ENVIRONMENT})
            break
        except Exception:  # Ray gives its own processes half a minute, which is little on a busy machine, and raises nothing finer
            ray.shutdown()
            if not tries_left:
                raise
    yield ray
    ray.shutdown()
    os.environ.clear()
    os.environ.update(old)


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> list[str]:
    """Songs of three to five seconds, one of them no sound, one silent, one not there, one at an address, one oddly named."""
    folder = tmp_path_factory.mktemp("library")
    paths = [folder / f"{number:02}.wav" for number in range(N_SONGS - 2)] + [folder / "odd\udce9 \n.wav"]
    for number, path in enumerate(paths):
        soundfile.write(os.fsencode(path), clips.song(3.0 + 0.1 * number, bpm=80.0 + 4 * number), SAMPLE_RATE)
    paths[3].write_text("no sound")
    soundfile.write(paths[4], 0.0 * clips.song(3.0), SAMPLE_RATE)
    paths[5].unlink()
    return [str(path) for path in paths[:6]] + [f"file://{paths[6]}"] + [str(path) for path in paths[7:]] + [str(paths[0])[:-4] + ".ogg"]


@pytest.fixture(scope="module")
def work(tiny_model) -> RunPlan:
    request = requests.analyze_request(options=GenerateOptions(max_new_tokens=4))
    return RunPlan((), request, str(tiny_model), OpenOptions(threads=1))


@pytest.fixture(scope="module")
def expected(work, songs) -> dict[str, Analysis]:
    """What the local engine says."""
    found = {}
    with load(work.model, remember=False, threads=1) as model:
        for song in songs:
            try:
                found[song] = model.analyze(song, max_new_tokens=4)
            except MFlamingoError as error:
                found[song] = assemble.failed(song, "analyze", error)
    return {song: replace(record, timing=None) for song, record in found.items()}


def workers(name: str) -> list[int]:
    """Processes of Ray's that run such an actor or task; Ray writes it into their titles."""
    titles = {int(path.parent.name): path for path in Path("/proc").glob("[0-9]*/cmdline")}
    found = []
    for pid, path in titles.items():
        try:
            title = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if title.startswith("ray::") and name in title:
            found.append(pid)
    return found


def by_path(records: list[Analysis]) -> dict[str, Analysis]:
    return {record.path_b64 or record.path: replace(record, timing=None) for record in records}


def test_a_killed_worker_loses_nothing_and_doubles_nothing(cluster, work, songs, expected):
    records, killed = [], []
    for record in (finished.record for finished in engine.analyses(songs, work, engine.ask_cluster(work))):
        records.append(record)
        if len(records) == 3:
            killed = workers("MapWorker")
            os.kill(killed[0], signal.SIGKILL)
    assert killed
    assert len(records) == N_SONGS
    assert by_path(records) == by_path(list(expected.values()))
    assert Counter(record.status for record in records) == {"ok": N_SONGS - 4, "error": 3, "skipped": 1}


def test_a_song_that_kills_its_workers_is_a_record_and_the_others_are_analysed(cluster, work, songs, expected, monkeypatch):
    prepare, deadly = engine._prepare, os.fsencode(songs[2])

    def crash(row: dict, *given: object) -> dict:
        if row["song"] == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return prepare(row, *given)

    monkeypatch.setattr(engine, "_prepare", crash)
    records = by_path([finished.record for finished in engine.analyses(songs[:5], work, engine.ask_cluster(work))])
    lost = records.pop(songs[2])
    assert (lost.status, lost.error and lost.error.code) == ("error", "worker_died")
    assert records == by_path([expected[song] for song in songs[:5] if song != songs[2]])


def test_a_fault_of_ours_in_a_worker_is_its_song_s_record_and_is_tried_again(cluster, work, songs, expected, monkeypatch, tmp_path):
    prepare, odd = engine._prepare, os.fsencode(songs[2])

    def fall(row: dict, *given: object) -> dict:
        with patch.object(engine.pipeline, "prepare", (lambda *_: [][0]) if row["song"] == odd else engine.pipeline.prepare):
            return prepare(row, *given)

    with monkeypatch.context() as patched:
        patched.setattr(engine, "_prepare", fall)
        finished = {item.song: item for item in engine.analyses(songs[:4], work, engine.ask_cluster(work))}
        assert command(work, songs[:4], tmp_path / "out") == 3
    fallen = finished.pop(songs[2])
    assert (fallen.record.status, fallen.record.error.code) == ("error", "internal")
    assert fallen.record.error.message.startswith(f"{songs[2]}: this is a bug in mflamingo, not in the file (IndexError")
    assert isinstance(fallen.failure, InternalError)
    assert "IndexError: list index out of range" in fallen.failure.trace
    assert by_path([item.record for item in finished.values()]) == by_path([expected[song] for song in songs[:4] if song != songs[2]])
    assert command(work, songs[:4], tmp_path / "out") == 3  # the one that is no sound
    lines = [line for path in (tmp_path / "out").glob("part-*.jsonl") for line in path.read_text().splitlines()]
    records = [Analysis.from_json(line) for line in lines]
    assert [record.status for record in records if record.path == songs[2]].count("ok") == 1


def command(work, songs, output) -> int:
    arguments = ["analyze", "--engine", "ray", "-q", "-m", work.model, "--threads", "1", "--max-tokens", "4", "-o", str(output)]
    with pytest.raises(SystemExit) as stop:
        cli.app([*arguments, *songs])
    return int(stop.value.code or 0)


def test_a_second_run_does_what_is_missing(cluster, work, songs, expected, tmp_path):
    output = tmp_path / "out"
    assert command(work, songs[:2], output) == 0
    first = {path: path.read_bytes() for path in output.glob("part-*")}
    assert command(work, songs[:4], output) == 3
    lines = [line for path in sorted(output.glob("part-*.jsonl")) for line in path.read_text().splitlines()]
    assert by_path([Analysis.from_json(line) for line in lines]) == by_path([expected[song] for song in songs[:4]])
    assert len(lines) == 4
    assert {path: path.read_bytes() for path in first} == first
    with pytest.raises(UsageError, match=r"other settings \(options\)"):
        cli.app(["analyze", "--engine", "ray", "-q", "-m", work.model, "-o", str(output), *songs[:4]], standalone_mode=False)


def test_facts_are_measured_without_a_model_as_here(cluster, songs, tmp_path):
    """Of a model that nobody has: it is not looked for."""
    arguments = ["analyze", "--engine", "ray", "-q", "-m", "nobody/nothing", "--only", "tempo,loudness", "-o"]
    cli.app([*arguments, str(tmp_path / "out"), *songs[:2]], standalone_mode=False)
    found = [Analysis.from_json(line) for path in (tmp_path / "out").glob("part-*.jsonl") for line in path.read_text().splitlines()]
    request = requests.analyze_request(["tempo", "loudness"])
    here = [list(pipeline.run(song, NoModel(), request))[-1] for song in songs[:2]]
    assert by_path(found) == by_path(here)
    assert {record.only for record in found} == {("tempo", "loudness")}
    with pytest.raises(UsageError, match=r"other settings \(only\)"):
        cli.app([*arguments[:-2], "tempo", "-o", str(tmp_path / "out"), *songs[:2]], standalone_mode=False)


def test_measuring_without_a_model_leaves_the_cores_and_the_gpu_to_the_tasks(monkeypatch):
    """The actor that only passes records on took all cores but one, and a GPU."""
    import ray

    job = RunPlan((), requests.analyze_request(["tempo"]), "nobody/nothing", OpenOptions(device="cuda"))
    asked: list[dict] = []
    node = {"Resources": {"CPU": 16.0}, "Alive": True}
    monkeypatch.setattr(engine, "physical_cores", lambda: 16)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 1.0})
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(ray, "remote", lambda **needs: lambda probe: asked.append(needs) or SimpleNamespace(remote=probe))
    model = engine.ask_cluster(job)
    assert (model.n_cpus, model.n_gpus, asked) == (1, 0, [{"num_cpus": 1, "num_gpus": 0}])


def test_parquet_is_a_name_away(cluster, work, songs, expected, tmp_path):
    import pyarrow.parquet as pq

    assert command(work, songs[:1], tmp_path / "out.parquet") == 0
    [row] = pq.read_table(tmp_path / "out.parquet").to_pylist(maps_as_pydicts="strict")
    assert replace(Analysis.from_json(json.dumps(row)), timing=None) == expected[songs[0]]


def test_what_the_cluster_cannot_open_is_said_before_anything_is_done(cluster, work, songs, tmp_path):
    with pytest.raises(ModelError, match="nobody/nothing"):
        cli.app(["analyze", "--engine", "ray", "-m", "nobody/nothing", "-o", str(tmp_path / "out"), *songs], standalone_mode=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "Connection refused; check that the cluster is running"),
        ("here", "write HOST:PORT"),
        ("ray://h:x", "check that the cluster"),
    ],
)
def test_a_cluster_that_is_not_there_is_said_at_once(address, words):
    with pytest.raises(ModelError, match=words):
        engine._reach(address)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "name a folder or a URL with --output"),
        (["-o", "-"], "name a folder"),
        (["-o", "out", "-f", "csv"], "--format does not work with --engine ray"),
        (["-o", "out", "-j", "3"], "--jobs does not work with --engine ray"),
        (["-o", "out", "-d", "cuda:1"], "the cluster chooses the GPU"),
        (["-o", "out", "-"], "stdin exists only on this machine"),
    ],
)
def test_what_this_engine_does_not_do_is_refused(options, words, tmp_song):
    with pytest.raises(UsageError, match=words):
        cli.app(["analyze", "--engine", "ray", *options, str(tmp_song)], standalone_mode=False)


def test_without_ray_one_sentence_says_what_to_install(monkeypatch, tmp_song, tmp_path):
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'mflamingo-cli\[ray\]'") as raised:
        cli.app(["analyze", "--engine", "ray", "-o", str(tmp_path / "out"), str(tmp_song)], standalone_mode=False)
    assert raised.value.exit_code == 69
    assert not (tmp_path / "out").exists()
