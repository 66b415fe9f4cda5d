"""Laws of `models pull`, `rm` and `list`: a real huggingface_hub in a process of its own against a hub on this machine."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mflamingo_cli.backends.options import EMBEDDED
from mflamingo_cli.store import hub as cache
from tests.hub_double import COMMIT, Hub, Repo, git_hash

pytestmark = pytest.mark.slow

pytest.importorskip("huggingface_hub")

TIMEOUT_S = 300  # of one command, on a machine that does other things too
NAME = "nvidia/music-flamingo-2601-hf"
PAGE = 10 * 1024 * 1024  # huggingface_hub hands bytes on in pieces of this size
WEIGHTS = random.Random(0).randbytes(2 * PAGE + 3_000_000)
DROPPED = 2 * PAGE + 1_000_000
SETTINGS = {"config.json": b'{"model_type": "musicflamingo"}', "tokenizer.json": b"{}", "README.md": b"# card", "LICENSE": b"terms"}
CHECKPOINT = {**SETTINGS, "model.safetensors": WEIGHTS}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        server.repos[NAME] = Repo(CHECKPOINT, info={"config": {"model_type": "musicflamingo"}})
        yield server


class Shell:
    """Runs `mflamingo models` against a hub and an empty cache."""

    def __init__(self, hub: Hub, home: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "XDG_CACHE"))}
        self.env = {
            **kept,
            "HF_HOME": str(home),
            **dict.fromkeys(("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"), "120"),
            "HF_ENDPOINT": hub.endpoint,
            "NO_PROXY": "127.0.0.1,localhost",
            "HOME": str(home),
        }
        self.repository = home / "hub" / f"models--{NAME.replace('/', '--')}"

    def popen(self, *words: object, **settings: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mflamingo_cli", *map(str, words)]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
        return subprocess.Popen(command, env=self.env, text=True, **streams)

    def __call__(self, *words: object) -> subprocess.CompletedProcess[str]:
        with self.popen(*words) as process:
            out, said = process.communicate(timeout=TIMEOUT_S)
        assert "Traceback" not in said, said
        return subprocess.CompletedProcess(words, process.returncode, out, said)

    def pull(self, *words: object) -> subprocess.CompletedProcess[str]:
        return self("models", "pull", *(words or (NAME, "--yes")))

    def parts(self) -> list[Path]:
        return list(self.repository.glob("unfinished/*.part"))


@pytest.fixture
def shell(hub: Hub, tmp_path: Path) -> Shell:
    return Shell(hub, tmp_path / "home")


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    [line] = [line for line in done.stderr.splitlines() if line.startswith("mflamingo: ")]
    return line


# --- what is fetched ---------------------------------------------------------------------------------------------------------


def test_size_and_licence_are_told_and_only_what_is_needed_is_fetched(hub: Hub, shell: Shell) -> None:
    others = {
        "pytorch_model.bin": b"x",
        "model-00001-of-00001.safetensors": WEIGHTS,
        "model.safetensors.index.json": b"{}",
        "fig/a.png": b"x",
    }
    hub.repos[NAME].files = {**CHECKPOINT, **others}
    done = shell.pull()
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^{NAME} at 6b5be08 \(main\): 24\.0 MB in 4 files$", done.stderr, re.MULTILINE)
    assert "licence: NVIDIA OneWay Noncommercial License, research only" in done.stderr
    assert sorted(set(hub.fetched())) == ["LICENSE", "config.json", "model.safetensors", "tokenizer.json"]
    directory = Path(done.stdout.strip())
    assert directory == shell.repository / "snapshots" / COMMIT
    assert (directory / "model.safetensors").read_bytes() == WEIGHTS
    assert (shell.repository / "refs" / "main").read_text() == COMMIT
    assert shell.parts() == []


def test_what_is_here_is_not_fetched_again(hub: Hub, shell: Shell) -> None:
    first = shell.pull()
    hub.seen.clear()
    again = shell.pull(NAME)  # nothing to download, nothing to ask
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert hub.fetched() == []
    del hub.repos[NAME]
    offline = shell.pull(NAME, "--offline")
    assert (offline.returncode, offline.stdout) == (0, first.stdout)


def test_shards_come_where_there_is_no_single_file(hub: Hub, shell: Shell) -> None:
    index = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}).encode()
    shards = {"model-00001-of-00002.safetensors": b"one", "model-00002-of-00002.safetensors": b"two"}
    hub.repos[NAME].files = {**SETTINGS, **shards, "model.safetensors.index.json": index}
    assert shell.pull().returncode == 0
    assert shards.keys() < {path.name for path in (shell.repository / "snapshots" / COMMIT).iterdir()}
    (shell.repository / "snapshots" / COMMIT / "model-00002-of-00002.safetensors").unlink()
    assert not cache.is_complete(shell.repository / "snapshots" / COMMIT)


def test_a_gguf_repository_gives_one_pair(hub: Hub, shell: Shell) -> None:
    name = "henry1477/music-flamingo-gguf"
    pair = {"music-flamingo-Q6_K.gguf": b"six", "mmproj-music-flamingo-bf16.gguf": b"ears"}
    hub.repos[name] = Repo({"README.md": b"", **pair, "music-flamingo-Q8_0.gguf": b"eight"})
    undecided = shell.pull(name, "--yes")
    assert undecided.returncode == 2
    assert "Q6_K (3 bytes), Q8_0 (5 bytes)" in complaint(undecided)
    done = shell.pull(name, "--yes", "--quantize", "q6_k")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in Path(done.stdout.strip()).iterdir()} == set(pair)
    assert "research only" in done.stderr


def test_a_revision_is_pinned_and_can_be_named(hub: Hub, shell: Shell) -> None:
    hub.repos[NAME].branches = ("v1",)
    assert shell.pull(NAME, "--yes", "--revision", "v1").returncode == 0
    assert (shell.repository / "refs" / "v1").read_text() == COMMIT
    [row] = [row for row in json.loads(shell("models", "list", "--json").stdout) if row["name"] == NAME]
    assert (row["state"], row["revision"]) == ("downloaded", COMMIT)
    for revision in ("v1", COMMIT, COMMIT[:7]):
        assert shell.pull(NAME, "--offline", "--revision", revision).returncode == 0
    other = shell.pull(NAME, "--offline", "--revision", "v2")
    assert (other.returncode, "--revision v2" in complaint(other)) == (69, True)


# --- asking ---------------------------------------------------------------------------------------------------------------------


def test_without_a_terminal_and_without_yes_nothing_is_fetched(hub: Hub, shell: Shell) -> None:
    done = shell.pull(NAME)
    assert done.returncode == 2
    assert done.stderr.strip() == complaint(done)
    for words in ("24.0 MB", "research only", "--yes"):
        assert words in complaint(done)
    assert hub.fetched() == []


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_at_a_terminal_the_answer_counts(hub: Hub, shell: Shell, answer: str, code: int) -> None:
    hub.repos[NAME].files = {**SETTINGS, "model.safetensors": b"small"}
    master, slave = pty.openpty()
    with shell.popen("models", "pull", NAME, stdin=slave, stderr=slave) as process:
        os.close(slave)
        os.write(master, f"{answer}\n".encode())
        said = b""
        with contextlib.suppress(OSError):  # the terminal has gone
            while piece := os.read(master, 1000):
                said += piece
        process.communicate(timeout=TIMEOUT_S)
    os.close(master)
    assert process.returncode == code, said
    assert said.index(b"research only") < said.index(b"Download 43 bytes?")
    assert bool(hub.fetched()) == (code == 0)


# --- interruptions ------------------------------------------------------------------------------------------------------------


def test_a_dropped_connection_goes_on_at_its_byte(hub: Hub, shell: Shell) -> None:
    hub.drop_at = [DROPPED]
    done = shell.pull()
    assert done.returncode == 0, done.stderr
    assert hub.ranges() == [None, f"bytes={2 * PAGE}-"]
    assert (Path(done.stdout.strip()) / "model.safetensors").read_bytes() == WEIGHTS


def test_another_run_goes_on_at_the_byte_where_the_first_stopped(hub: Hub, shell: Shell) -> None:
    hub.drop_at, hub.storage_down = [DROPPED], False
    with shell.popen("models", "pull", NAME, "--yes") as process:
        while not hub.ranges():
            time.sleep(0.01)
        hub.storage_down = True
        _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 69, said
    assert "run the same command again to resume" in said
    [part] = shell.parts()
    assert part.stat().st_size == 2 * PAGE
    [row] = [row for row in json.loads(shell("models", "list", "--json").stdout) if row["name"] == NAME]
    assert (row["state"], row["bytes"] > 2 * PAGE) == ("partial", True)
    refused = shell("models", "info", NAME)
    assert (refused.returncode, "only partly downloaded" in complaint(refused)) == (69, True)
    hub.storage_down = False
    hub.seen.clear()
    done = shell.pull()
    assert "21.0 MB already here" in done.stderr
    assert hub.ranges() == [f"bytes={2 * PAGE}-"]
    assert (Path(done.stdout.strip()) / "model.safetensors").read_bytes() == WEIGHTS


def test_ctrl_c_leaves_what_can_be_gone_on_with(hub: Hub, shell: Shell) -> None:
    hub.stall_at = DROPPED
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job's children ignore it
    with shell.popen("models", "pull", NAME, "--yes", preexec_fn=heed) as process:
        assert hub.stalled.wait(TIMEOUT_S)
        while not any(part.stat().st_size == 2 * PAGE for part in shell.parts()):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, said
    assert "run the same command again to resume" in said
    assert "Traceback" not in said
    hub.stall_at = None
    hub.released.set()
    hub.seen.clear()
    assert shell.pull().returncode == 0
    assert hub.ranges() == [f"bytes={2 * PAGE}-"]


def test_storage_without_ranges_begins_anew_and_right(hub: Hub, shell: Shell) -> None:
    hub.ignores_ranges = True
    unfinished = shell.repository / "unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / f"{hashlib.sha256(WEIGHTS).hexdigest()}.part").write_bytes(b"other" * 1000)
    done = shell.pull()
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("length", [-4, 4])
def test_another_size_than_the_hub_says_is_refused(hub: Hub, shell: Shell, length: int) -> None:
    hub.repos[NAME].sizes = {"model.safetensors": len(WEIGHTS) + length}
    done = shell.pull()
    assert (done.returncode, "does not have the size that the hub gives" in complaint(done)) == (69, True)
    assert shell.parts() == []


def test_damaged_content_is_thrown_away(hub: Hub, shell: Shell) -> None:
    hub.storage[hashlib.sha256(WEIGHTS).hexdigest()] = bytes(len(WEIGHTS))
    done = shell.pull()
    assert (done.returncode, "arrived damaged" in complaint(done)) == (69, True)
    assert shell.parts() == []
    hub.storage.clear()
    assert shell.pull().returncode == 0


@pytest.mark.parametrize("plant", ["link", "name", "folder"])
def test_nothing_of_others_is_appended_to(hub: Hub, shell: Shell, tmp_path: Path, plant: str) -> None:
    mine, unfinished = tmp_path / "mine", shell.repository / "unfinished"
    mine.write_bytes(b"mine")
    unfinished.mkdir(parents=True, mode=0o700)
    part = unfinished / f"{hashlib.sha256(WEIGHTS).hexdigest()}.part"
    if plant == "link":
        part.symlink_to(mine)
    elif plant == "name":
        part.hardlink_to(mine)
    else:
        unfinished.chmod(0o777)
    done = shell.pull()
    assert done.returncode == 69
    words = {"link": "symbolic link", "name": "other names or another owner; remove it", "folder": "can be changed by others; remove it"}
    assert words[plant] in complaint(done)
    assert mine.read_bytes() == b"mine"


def test_a_small_file_is_checked_and_resumed_too(hub: Hub, shell: Shell) -> None:
    hub.repos[NAME].files = {**SETTINGS, "model.safetensors": b"small"}
    assert shell.pull().returncode == 0
    assert {path.name for path in (shell.repository / "blobs").iterdir()} == {
        git_hash(b"terms"),
        git_hash(SETTINGS["config.json"]),
        git_hash(b"{}"),
        hashlib.sha256(b"small").hexdigest(),
    }


# --- refusals ---------------------------------------------------------------------------------------------------------------------


def set_gated(hub: Hub, status: int) -> None:
    hub.repos[NAME].info |= {"gated": "manual"}
    hub.repos[NAME].refuses = (status, "GatedRepo")


def set_too_large(hub: Hub) -> None:
    hub.repos[NAME].sizes = {"model.safetensors": 10**16}


def set_many_fp8_weights(hub: Hub) -> None:
    """As the hub tells it of an FP8 checkpoint: more weights than half of its bytes."""
    hub.repos[NAME].info |= {"safetensors": {"parameters": {"F8_E4M3": 10**16 - 5, "BF16": 5}, "total": 10**16}}


def set_packed_weights(hub: Hub) -> None:
    hub.repos[NAME].info |= {"safetensors": {"parameters": {"I32": 10**6, "BF16": 5}, "total": 10**6 + 5}}


def set_other_model(hub: Hub) -> None:
    hub.repos[NAME].info = {"config": {"model_type": "llama"}}


def set_no_weights(hub: Hub) -> None:
    hub.repos[NAME].files = dict(SETTINGS)


REFUSALS = {
    "gated, not logged in": (lambda hub: set_gated(hub, 401), (), 69, "is gated; accept its terms at http://127.0.0.1"),
    "gated, not accepted": (lambda hub: set_gated(hub, 403), (), 69, "is gated; accept its terms"),
    "missing": (lambda hub: hub.repos.clear(), (), 69, "is not on the hub, or it is private"),
    "no such revision": (lambda hub: None, ("--revision", "v9"), 69, "has no revision 'v9'"),
    "no space": (set_too_large, (), 69, "10000000.0 GB are needed, but only"),
    "no space for FP8 converted": (set_many_fp8_weights, ("--quantize", "Q8_0"), 69, "11687500.0 GB are needed, but only"),
    "weights that cannot be read": (set_packed_weights, ("--quantize", "Q8_0"), 69, "its weights are I32, which cannot be converted"),
    "another model": (set_other_model, (), 69, "is not Music Flamingo but 'llama'"),
    "no weights": (set_no_weights, (), 69, "contains neither"),
    "an unknown type": (lambda hub: None, ("--quantize", "Q99"), 2, "choose one of"),
    "no network": (lambda hub: hub.server_close(), (), 69, "cannot be reached; check the network"),
    "offline": (lambda hub: None, ("--offline",), 69, "not completely downloaded; leave out --offline to download it"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_one_sentence_and_an_exit_code(hub: Hub, shell: Shell, case: str) -> None:
    prepare, words, code, sentence = REFUSALS[case]
    prepare(hub)
    done = shell.pull(NAME, "--yes", *words)
    assert done.returncode == code, done.stderr
    assert sentence in complaint(done)
    assert not (shell.repository / "snapshots").exists()


def test_a_word_that_is_no_id_is_wrong_usage(shell: Shell) -> None:
    assert shell.pull("flamingo", "--yes").returncode == 2
    assert shell.pull("../../etc", "--yes").returncode == 2


def test_the_environment_can_forbid_the_network(hub: Hub, shell: Shell) -> None:
    shell.env["HF_HUB_OFFLINE"] = "1"
    assert shell.pull().returncode == 69
    assert hub.seen == []


# --- removal ----------------------------------------------------------------------------------------------------------------------


def test_what_is_removed_is_asked_for_and_told(hub: Hub, shell: Shell) -> None:
    shell.pull()
    assert shell("models", "rm", NAME).returncode == 2
    assert shell.repository.exists()
    done = shell("models", "rm", NAME, "--yes")
    assert (done.returncode, done.stdout) == (0, "freed 24.0 MB\n")
    assert not shell.repository.exists()
    assert shell("models", "rm", NAME, "--yes").returncode == 69
    assert [shell("models", "rm", name, "--yes").returncode for name in EMBEDDED] == [2, 2]


def test_one_revision_goes_with_what_no_other_one_shares(hub: Hub, shell: Shell) -> None:
    shell.pull()
    first = shell.repository / "snapshots" / COMMIT
    second = first.with_name("f" * 40)
    second.mkdir()
    for link in first.iterdir():  # another commit that changed the small files only
        if link.name == "model.safetensors":
            (second / link.name).symlink_to(os.readlink(link))
        else:
            (second / link.name).write_bytes(b"{}")
    refused = shell("models", "rm", f"{NAME}@v9", "--yes")
    assert (refused.returncode, first.exists()) == (69, True)
    done = shell("models", "rm", f"{NAME}@{COMMIT[:8]}", "--yes")
    assert (done.returncode, first.exists(), (second / "model.safetensors").read_bytes() == WEIGHTS) == (0, False, True)
    assert done.stdout.endswith(" bytes\n"), done.stdout
    assert not list((shell.repository / "refs").iterdir())
    last = shell("models", "rm", f"{NAME}@{'f' * 40}", "--yes")
    assert (last.stdout, shell.repository.exists()) == ("freed 24.0 MB\n", False)


# --- what follows -------------------------------------------------------------------------------------------------------------------


def test_a_converted_download_is_used_under_its_id_and_records_name_the_revision(hub, shell, tiny_model, tmp_song, tmp_path) -> None:
    files = {path.name: path.read_bytes() for path in (tiny_model.parent / "tiny").iterdir()}
    name = "someone/flamingo"
    hub.repos[name] = Repo(files, info={"config": {"model_type": "musicflamingo"}, "cardData": {"license": "mit"}})
    done = shell.pull(name, "--yes", "--quantize", "F16")
    assert done.returncode == 0, done.stderr
    assert "licence: mit" in done.stderr
    assert [Path(line).name for line in done.stdout.splitlines()] == ["flamingo-F16.gguf", "mmproj-flamingo-F16.gguf"]
    heard = shell("analyze", "--json", "--offline", "-q", "-m", name, "--max-tokens", "2", tmp_song)
    model = json.loads(heard.stdout)["model"]
    assert (model["id"], model["revision"], model["backend"]) == (name, COMMIT, "gguf")
    assert json.loads(shell("models", "info", name, "--json").stdout)["revision"] == COMMIT
    [row] = [row for row in json.loads(shell("models", "list", "--json").stdout) if row["name"] == name]
    assert (row["state"], row["revision"], row["bytes"] > 100_000) == ("downloaded", COMMIT, True)
    hub.seen.clear()
    elsewhere = shell.pull(name, "--offline", "--quantize", "Q8_0", "-o", tmp_path / "out")
    assert (elsewhere.returncode, len(list((tmp_path / "out").iterdir())), hub.seen) == (0, 2, [])
