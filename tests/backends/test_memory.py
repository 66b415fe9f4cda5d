"""What does not fit is an error before the work begins; sizes are checked against the system's own."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import pytest

from mflamingo_cli.backends import memory
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.backends.ggml.binding import Device
from mflamingo_cli.backends.gguf import GgufBackend
from mflamingo_cli.backends.llama import MIN_ANSWER_TOKENS
from mflamingo_cli.errors import ModelError
from quant.convert import convert
from tests import checkpoints
from tests.clips import audio

MEMINFO = "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 600 kB\nSwapTotal: 200 kB\nSwapFree: 100 kB\n"
BLOCKS = checkpoints.Size(d_text=64, text_heads=2, kv_heads=1)  # heads of 32 values, a block of Q8_0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = checkpoints.write(tmp_path_factory.mktemp("hf") / "tiny", "musicflamingo", BLOCKS)
    return convert(directory, tmp_path_factory.mktemp("gguf"), "F16")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("container", "kilobytes"),
    [
        ({}, 700),
        ({"memory.max": "max\n", "memory.current": "1024\n", "memory.stat": "inactive_file 0\n"}, 700),
        ({"memory.max": f"{400 * 1024}", "memory.current": f"{150 * 1024}", "memory.stat": f"anon 7\ninactive_file {50 * 1024}\n"}, 300),
        ({"memory.max": f"{100 * 1024}\n", "memory.current": f"{150 * 1024}\n", "memory.stat": ""}, 0),
        (
            {
                "memory/memory.limit_in_bytes": f"{300 * 1024}\n",
                "memory/memory.usage_in_bytes": f"{100 * 1024}\n",
                "memory/memory.stat": f"total_inactive_file {10 * 1024}\n",
            },
            210,
        ),
    ],
)
def test_the_tightest_limit_counts(tmp_path: Path, container: dict[str, str], kilobytes: int) -> None:
    write(tmp_path, {"proc/meminfo": MEMINFO} | {f"sys/fs/cgroup/{name}": text for name, text in container.items()})
    assert memory.available_memory(tmp_path) == kilobytes * 1024


def test_unknown_free_memory_forbids_nothing(tmp_path: Path) -> None:
    assert memory.available_memory(tmp_path) is None
    memory.require_bytes("anything", 1 << 60, None, "nothing to do")


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux says")
def test_free_memory_of_this_computer_is_known() -> None:
    free = memory.available_memory()
    assert free is not None
    assert resource.getpagesize() < free < 1 << 50


def test_weights_that_do_not_fit_are_refused_before_they_are_read(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "free_bytes", lambda device: 1000)
    with pytest.raises(ModelError, match=r"needs .* of memory, but only 1\.0 kB are free; convert it to a smaller --type") as caught:
        GgufBackend(*pair, OpenOptions(device="cpu", threads=1))
    assert caught.value.code == "oom"


def test_a_song_that_does_not_fit_is_refused_before_it_is_encoded(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with GgufBackend(*pair, OpenOptions(device="cpu", threads=1)) as backend:
        song = audio(40.0)
        encoded = backend.encode([song])[0]
        needed = backend._language.song_bytes(encoded.n_tokens)
        monkeypatch.setattr(Device, "free_bytes", lambda device: needed - 1)
        monkeypatch.setattr(backend._encoder, "window", lambda *_: pytest.fail("it was encoded"))
        with pytest.raises(ModelError, match=r"40 s of audio needs .* choose a part") as caught:
            backend.encode([song])[0]
        assert caught.value.code == "oom"


def test_the_need_of_a_song_is_its_cache_and_its_embeddings(pair: tuple[Path, Path]) -> None:
    with GgufBackend(*pair, OpenOptions(device="cpu", threads=1, kv_type="f32")) as backend:
        sizes = backend.info.geometry.text
        cache = (1000 + MIN_ANSWER_TOKENS) * sizes.n_layers * 2 * (sizes.n_kv_heads * sizes.d_model // sizes.n_heads) * 4
        assert backend._language.song_bytes(1000) == pair[0].stat().st_size + cache + 1000 * sizes.d_model * 4


@pytest.mark.slow
def test_where_memory_is_short_a_long_song_takes_half_of_the_cache_and_is_answered(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with GgufBackend(*pair, OpenOptions(device="cpu", threads=1)) as backend:
        short = backend.encode([audio(31.0)])[0]
        rows = short.payload.repeat(20, axis=0)
        long = replace(short, n_tokens=len(rows), payload=rows)
        least = backend._language.song_bytes(long.n_tokens) - rows.nbytes  # what is in memory already is not needed again
        for free, kv_type in ((None, "f16"), (2 * least, "f16"), (least, "q8_0")):
            assert backend._language.kv_type(long.n_tokens, free) == kv_type
            monkeypatch.setattr(Device, "free_bytes", lambda device, free=free: free)
            assert complete(backend, long, [Prompt("What is this?")], GenerateOptions(max_new_tokens=3))[0].usage.tokens_out == 3
