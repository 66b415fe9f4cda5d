"""The GGUF back end as a guest in a process: silent, bounded, clear about what it cannot do."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mflamingo_cli.backends import gguf, open_backend
from mflamingo_cli.backends.base import Encoded, GenerateOptions, OpenOptions, Prompt, SongPrompts, complete
from mflamingo_cli.backends.generation import PrefixGroup
from mflamingo_cli.backends.ggml import binding
from mflamingo_cli.backends.ggml.weights import Weights
from mflamingo_cli.backends.gguf import GgufBackend
from mflamingo_cli.backends.llama import Context
from mflamingo_cli.backends.threads import physical_cores, useful_threads
from mflamingo_cli.errors import AudioError, ModelError, UsageError
from quant import reader
from quant.convert import convert
from quant.keys import geometry_of_keys
from quant.providers import PROVIDERS, VARIABLE
from tests import checkpoints
from tests.clips import audio

OPTIONS = OpenOptions(device="cpu", kv_type="f32", threads=1)
SHORT = GenerateOptions(max_new_tokens=4)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = checkpoints.write(tmp_path_factory.mktemp("hf") / "tiny", "musicflamingo", max_audio_len=60)
    return convert(directory, tmp_path_factory.mktemp("gguf"), "F32")


def test_no_line_of_cpp_reaches_either_stream(pair: tuple[Path, Path]) -> None:
    code = f"""
from mflamingo_cli.backends import open_backend, OpenOptions
from mflamingo_cli.backends.base import *
from tests.clips import audio
with open_backend({str(pair[0])!r}, OpenOptions(device="cpu", threads=1)) as backend:
    complete(backend, backend.encode([audio(2.0)])[0], [Prompt("Key?")], GenerateOptions(max_new_tokens=3))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.slow
def test_memory_returns_when_closed(pair: tuple[Path, Path]) -> None:
    def use() -> None:
        with GgufBackend(*pair, OPTIONS) as backend:
            complete(backend, backend.encode([audio(20.0)])[0], [Prompt("Key?")], SHORT)
        gc.collect()

    def resident_kb() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")
    for _ in range(3):
        use()
    before = resident_kb()
    for _ in range(12):
        use()
    assert resident_kb() - before < 12_000, "twelve more sessions keep less than the work space of one (about 60 MB)"


def test_closing_twice_is_harmless(pair: tuple[Path, Path]) -> None:
    backend = GgufBackend(*pair, OPTIONS)
    backend.close()
    backend.close()


def test_an_answer_abandoned_half_way_frees_its_context(pair: tuple[Path, Path]) -> None:
    with GgufBackend(*pair, OPTIONS) as backend:
        encoded = backend.encode([audio(2.0)])[0]
        [whole] = complete(backend, encoded, [Prompt("Key?")], SHORT)
        stream = backend.generate([SongPrompts(encoded, [Prompt("Key?")])], GenerateOptions(max_new_tokens=50))
        next(stream)
        freed: list[Context] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Context, "close", lambda self, close=Context.close: freed.append(self) or close(self))
            stream.close()
        assert len(freed) == 1
        assert complete(backend, encoded, [Prompt("Key?")], SHORT) == [whole]


def test_a_conversation_prefills_its_song_once(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    prefilled: list[int] = []

    def watched(context: Context, sequence: int, group: PrefixGroup, on_progress: object) -> None:
        prefilled.append(len(group.embeddings))
        original(context, sequence, group, on_progress)

    original = Context.prefill_prefix
    monkeypatch.setattr(Context, "prefill_prefix", watched)
    monkeypatch.setattr(gguf, "NEXT_TURNS_TOKENS", 60)

    def say(backend: GgufBackend, encoded: Encoded, prompt: Prompt) -> str:
        return "".join(chunk.text for _, _, chunk in backend.generate([SongPrompts(encoded, [prompt], keep_cache=True)], SHORT))

    with GgufBackend(*pair, OPTIONS) as backend:
        song, other = backend.encode([audio(2.0), audio(3.0)])
        turns = [Prompt("Key?"), Prompt("Why?", history=(("Key?", "A minor."),)), Prompt("Why? " * 150), Prompt("Key?", system="Be brief.")]
        alone = [complete(backend, song, [turn], SHORT)[0].text for turn in turns]
        prefilled.clear()
        assert [say(backend, song, turn) for turn in turns[:2]] == alone[:2]
        stream = backend.generate([SongPrompts(song, turns[:1], keep_cache=True)], SHORT)
        next(stream)
        stream.close()
        assert say(backend, song, turns[1]) == alone[1], "after an answer that was not waited for"
        assert prefilled == [song.n_tokens]
        assert [say(backend, song, turn) for turn in turns[2:]] == alone[2:]
        assert prefilled == [song.n_tokens] * 3, "no room for the third turn, and other words before the song in the fourth"
        say(backend, other, turns[0])
        assert say(backend, song, turns[0]) == alone[0], "the same question about another song"
        assert complete(backend, song, turns[:1], SHORT)[0].text == alone[0]
        assert say(backend, other, turns[0]) == complete(backend, other, turns[:1], SHORT)[0].text
        assert prefilled[3:] == [other.n_tokens, song.n_tokens, song.n_tokens, other.n_tokens, other.n_tokens]


def test_more_prompts_than_run_together_are_all_answered(pair: tuple[Path, Path]) -> None:
    with GgufBackend(*pair, OPTIONS) as backend:
        encoded = backend.encode([audio(2.0)])[0]
        prompts = [Prompt(f"Question {number}?") for number in range(19)]
        answers = complete(backend, encoded, prompts, SHORT)
        assert answers[18] == complete(backend, encoded, prompts[18:], SHORT)[0]


def test_audio_beyond_the_limit_is_refused_not_cut(pair: tuple[Path, Path]) -> None:
    with GgufBackend(*pair, OPTIONS) as backend, pytest.raises(AudioError, match="takes at most 60 s") as caught:
        backend.encode([audio(60.1)])[0]
    assert caught.value.code == "too_long"


def test_every_window_depends_on_its_place_in_the_song(pair: tuple[Path, Path]) -> None:
    with GgufBackend(*pair, OPTIONS) as backend:
        tone = audio(30.0)
        twice = backend.encode([type(tone)(np.concatenate([tone.samples, tone.samples]), tone.source)])[0].payload
    assert np.abs(twice[:750] - twice[750:]).max() > 0.1, "the same sound a window later is another embedding"


def lacking(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the device has no kernel for an operation."""
    supports = binding.Device.supports
    monkeypatch.setattr(
        binding.Device, "supports", lambda self, operation: self.ggml.ggml_op_desc(operation).decode() != name and supports(self, operation)
    )


def test_a_device_without_a_kernel_for_such_heads_takes_two_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As CUDA has none for 32 channels; what it has no kernel for ends the program."""
    directory = checkpoints.write(tmp_path / "tiny", "musicflamingo")
    with GgufBackend(*convert(directory, tmp_path, "F16"), OPTIONS) as backend:
        [fused] = backend.encode([audio(3.0)])
        lacking("FLASH_ATTN_EXT", monkeypatch)
        [plain] = backend.encode([audio(3.0)])
    assert 0 < np.abs(fused.payload - plain.payload).max() < 1e-2


def test_an_operation_that_a_device_lacks_is_named(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with GgufBackend(*pair, OPTIONS) as backend:
        lacking("GELU_ERF", monkeypatch)
        with pytest.raises(ModelError, match="CPU cannot compute GELU_ERF of this encoder; use --device cpu"):
            backend.encode([audio(3.0)])


def test_a_cut_file_is_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    for path in pair:
        shutil.copy(path, tmp_path)
    cut = tmp_path / pair[1].name
    cut.write_bytes(cut.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"cut short|cannot read|not a GGUF"):
        GgufBackend(tmp_path / pair[0].name, cut, OPTIONS)
    text = tmp_path / pair[0].name
    text.write_bytes(text.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"\.gguf"):
        GgufBackend(text, pair[1], OPTIONS)


@pytest.mark.parametrize(("number", "n_columns"), [(4, 64), (200, 64), (1 << 31, 64), (8, 33)])
def test_a_tensor_that_ggml_would_end_the_process_at_is_named(pair: tuple[Path, Path], number: int, n_columns: int) -> None:
    """A type that was withdrawn, two that never were, and rows that are not whole blocks."""
    file, device = reader.read(pair[1]), binding.Device("cpu", 1)
    name, tensor = next((name, tensor) for name, tensor in file.tensors.items() if len(tensor.shape) == 2)
    wrong = replace(tensor, number=number, storage=None, shape=(1, n_columns))
    try:
        with pytest.raises(ModelError, match=f"{name} is stored as type {number}, which this ggml cannot read"):
            Weights(replace(file, tensors={**file.tensors, name: wrong}), device)
    finally:
        device.close()


def test_random_bytes_are_not_a_model(tmp_path: Path) -> None:
    noise = tmp_path / "noise.gguf"
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ModelError, match="not a GGUF file"):
        GgufBackend(noise, noise, OPTIONS)


@pytest.mark.parametrize("device", ["cuda", "cuda:3", "mps"])
def test_a_device_that_is_not_built_in_is_named(device: str, pair: tuple[Path, Path]) -> None:
    if len(binding.list_devices()) > 1:
        pytest.skip("this build has a GPU device")
    with pytest.raises(ModelError, match=rf"no device {device}"):
        GgufBackend(*pair, OpenOptions(device=device, threads=1))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nvidia/never-downloaded", "mflamingo models pull nvidia/never-downloaded"),
        ("no-such-model", "embedded are mini and small"),
        ("missing.gguf", "is not a directory"),
    ],
)
def test_an_unknown_model_says_where_to_get_it(name: str, sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=sentence) as caught:
        open_backend(name)
    assert caught.value.exit_code == 69


def test_a_downloaded_checkpoint_is_found_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--nvidia--tiny"
    checkpoints.write(repository / "snapshots" / "abc", "audioflamingo3")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with open_backend("nvidia/tiny", OpenOptions(device="cpu", threads=1)) as backend:
        assert (backend.info.backend, backend.info.dtype) == ("torch", "fp32")


def test_a_directory_without_its_audio_part_is_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copy(pair[0], tmp_path)
    with pytest.raises(ModelError, match="no audio part beside it"):
        open_backend(str(tmp_path))


@pytest.mark.parametrize(
    "options", [OpenOptions(backend="onnx"), OpenOptions(dtype="int3"), OpenOptions(kv_type="q2"), OpenOptions(device="tpu")]
)
def test_choices_that_do_not_exist_are_usage_errors(options: OpenOptions, pair: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="choose"):
        open_backend(str(pair[0]), options)


def test_a_small_model_runs_on_one_thread_and_a_large_one_on_all_cores() -> None:
    assert useful_threads(9_000_000) == 1
    assert useful_threads(5_000_000_000) == physical_cores()


def test_a_pair_without_a_size_is_named(pair: tuple[Path, Path]) -> None:
    text, audio = (dict(reader.read(path).keys) for path in pair)
    del audio["clip.audio.block_count"]
    with pytest.raises(ModelError, match=r"lacks the key clip\.audio\.block_count"):
        geometry_of_keys(audio, text, "pair")


SWEEP = """
import sys
from pathlib import Path
from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.backends.gguf import GgufBackend
from quant.errors import MFlamingoError
from tests.fuzz.gguf import all_keys
from tests.gguf_files import parts
text, audio, n_read = Path(sys.argv[1]), Path(sys.argv[2]), 0
whole = parts(text)
for key in all_keys():
    for kind, value in (("I", (1 << 32) - 1), ("f", float("nan")), ("s", "x"), ("[I", [5] * 5)):
        keys = [one for one in whole.keys if one[0] != key]
        made = type(whole)([*keys, (key, (kind, value))], whole.tensors).write(text.with_name("broken-Q8_0.gguf"))
        print(key, kind, value, flush=True)
        try:
            with GgufBackend(made, audio, OpenOptions(device="cpu", threads=1)) as backend:
                complete(backend, None, [Prompt("Key?")], GenerateOptions(max_new_tokens=2))
            n_read += 1
        except MFlamingoError as error:
            assert str(error).startswith(str(made)), error
print(n_read)
"""


@pytest.mark.slow
@pytest.mark.parametrize("provider", [one.name for one in PROVIDERS if one.directory])
def test_no_key_that_llama_cpp_has_ends_the_process(provider: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Those that only other architectures have included; whatever a file says there, it opens or is one sentence."""
    text, audio = (shutil.copy(path, tmp_path) for path in pair)
    ended = subprocess.run(
        [sys.executable, "-c", SWEEP, text, audio], env=os.environ | {VARIABLE: provider}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, (ended.stdout.splitlines()[-1], ended.stderr[-2000:])
    assert int(ended.stdout.splitlines()[-1]) > 100
