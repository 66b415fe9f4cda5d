"""Several songs with several prompts each are answered in one batch as each would be alone, token by token."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mflamingo_cli.backends import batch_decoder, embedded_directory, pytorch
from mflamingo_cli.backends.base import Backend, Encoded, GenerateOptions, OpenOptions, Prompt, SongPrompts, complete
from mflamingo_cli.backends.gguf import GgufBackend
from mflamingo_cli.backends.pytorch import TorchBackend
from mflamingo_cli.core import kv_cache
from mflamingo_cli.errors import AudioError, ModelError
from quant.convert import convert
from tests import checkpoints
from tests.clips import audio

EXACT = OpenOptions(device="cpu", dtype="fp32", kv_type="f32", threads=1)
CLIPS = [audio(3.0), audio(47.0), audio(30.01), audio(33.0, silence_s=5.0)]
PROMPTS = [
    [Prompt("What is the key of this song?"), Prompt("Key?"), Prompt("Hm?", system="Be brief.")],
    [Prompt("Describe the chords & the tempo.")],
    [Prompt("Key?"), Prompt("Now?", history=(("Key?", "A minor."),))],
    [Prompt("Tempo?")],
]
OPTIONS = {
    "all end alike": GenerateOptions(max_new_tokens=10),
    "some end earlier": GenerateOptions(max_new_tokens=24, stop=("a", "\u20ac", "Q")),
    "by chance": GenerateOptions(max_new_tokens=6, temperature=1.0, seed=5),
}
EMBEDDING_TOLERANCE = 1e-5  # float32 sums in another order


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("hf") / "tiny", "musicflamingo", seed=3, max_audio_len=500)


@pytest.fixture(scope="module", params=["torch", "gguf"])
def backend(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    if request.param == "torch":
        with TorchBackend(checkpoint, EXACT) as opened:
            yield opened
    else:
        with GgufBackend(*convert(checkpoint, tmp_path_factory.mktemp("gguf"), "F32"), EXACT) as opened:
            yield opened


def answers_of(backend: Backend, songs: Sequence[SongPrompts], options: GenerateOptions) -> list[list[str]]:
    texts = [["" for _ in song.prompts] for song in songs]
    for song, prompt, chunk in backend.generate(songs, options):
        texts[song][prompt] += chunk.text + (f" [{chunk.finish} {chunk.usage}]" if chunk.finish else "")
    return texts


def all_prompts(songs: Sequence[Encoded]) -> list[SongPrompts]:
    return [
        *(SongPrompts(song, prompts) for song, prompts in zip(songs, PROMPTS, strict=True)),
        SongPrompts(None, [Prompt("What is a tritone?")]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_songs_together_are_answered_as_each_alone(backend: Backend, name: str) -> None:
    songs = all_prompts(backend.encode(CLIPS))
    alone = [[answers_of(backend, [SongPrompts(song.encoded, [prompt])], OPTIONS[name])[0][0] for prompt in song.prompts] for song in songs]
    assert answers_of(backend, songs, OPTIONS[name]) == alone


def test_shapes_that_change_rarely_change_no_answer(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes of CUDA graphs: powers of two with unused places, ended songs kept, more cache positions than are filled."""
    options = OPTIONS["some end earlier"]
    with TorchBackend(checkpoint, EXACT) as backend:
        songs = all_prompts(backend.encode(CLIPS))
        plain = answers_of(backend, songs, options)
        monkeypatch.setattr(batch_decoder, "padded", lambda n, device: 1 << (n - 1).bit_length())
        monkeypatch.setattr(batch_decoder, "OTHER_CACHE_BLOCK", 1024)
        shapes = []
        run = batch_decoder.BatchDecoder._run

        def recording_run(self: batch_decoder.BatchDecoder) -> torch.Tensor:
            shapes.append(self._shape)
            return run(self)

        monkeypatch.setattr(batch_decoder.BatchDecoder, "_run", recording_run)
        assert answers_of(backend, songs, options) == plain
    assert len(set(shapes)) <= 4 < len(shapes), "so few graphs for so many steps"


def test_a_song_read_in_blocks_of_queries_is_answered_as_in_one(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What devices do whose kernels would need a matrix of all pairs of tokens, or err."""
    options = OPTIONS["all end alike"]
    with TorchBackend(checkpoint, EXACT) as backend:
        songs = all_prompts(backend.encode(CLIPS))
        plain = answers_of(backend, songs, options)
        monkeypatch.setattr(kv_cache, "has_fused_attention", lambda device, dtype: False)
        monkeypatch.setattr(kv_cache, "SCORE_BYTES", 4 * 4 * 1200 * 100)  # of the longest song: 100 of 1175 queries of 4 heads at once
        assert answers_of(backend, songs, options) == plain


def test_numbers_that_overflow_are_an_error_and_no_text(checkpoint: Path) -> None:
    with TorchBackend(checkpoint, EXACT) as backend:
        [song] = backend.encode(CLIPS[:1])
        backend.network.model.language_model.layers[1].mlp.down_proj.weight.data.fill_(torch.finfo(torch.float32).max)
        with pytest.raises(ModelError, match="too large for fp32; choose a --dtype with a larger range"):
            complete(backend, song, [Prompt("Key?")], GenerateOptions(max_new_tokens=2))


def test_a_song_is_read_once_for_all_its_prompts(checkpoint: Path) -> None:
    with TorchBackend(checkpoint, EXACT) as backend:
        [song] = backend.encode([audio(40.0)])
        n_read: list[int] = []
        layer = backend.network.model.language_model.layers[0].mlp
        layer.register_forward_pre_hook(lambda module, inputs: n_read.append(inputs[0].shape[:-1].numel()))
        complete(backend, song, [Prompt(f"Question {number}?") for number in range(6)], GenerateOptions(max_new_tokens=1))
    assert song.n_tokens < sum(n_read) < song.n_tokens + 300, "the song once, and six short questions"


def test_windows_of_several_songs_are_encoded_as_each_alone(backend: Backend) -> None:
    for clip, song in zip(CLIPS, backend.encode(CLIPS), strict=True):
        [alone] = backend.encode([clip])
        assert song.n_tokens == alone.n_tokens
        assert np.abs(np.asarray(song.payload) - np.asarray(alone.payload)).max() < EMBEDDING_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "gguf"])
def test_the_embedded_model_answers_two_songs_as_each_alone(name: str) -> None:
    clips, prompts = [audio(20.0), audio(34.0)], [Prompt("What key is this in?"), Prompt("Describe this song.")]
    folder = embedded_directory()
    pair = (folder / "mini-F16.gguf", folder / "mmproj-mini-F16.gguf")
    with TorchBackend(folder / "hf", EXACT) if name == "torch" else GgufBackend(*pair, EXACT) as backend:
        songs = backend.encode(clips)
        options = GenerateOptions(max_new_tokens=60)
        alone = [[answers_of(backend, [SongPrompts(song, [prompt])], options)[0][0] for prompt in prompts] for song in songs]
        assert answers_of(backend, [SongPrompts(song, prompts) for song in songs], options) == alone


def test_progress_is_reported(backend: Backend) -> None:
    phrases: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "on_progress", phrases.append)
        [song] = backend.encode([audio(31.0)])
        complete(backend, song, [Prompt("Key?")], GenerateOptions(max_new_tokens=1))
    assert phrases[0] == "window 1 of 2"
    if backend.info.backend == "gguf":
        assert phrases[1:] == ["window 2 of 2", "0 % of the song read", f"{51200 // song.n_tokens} % of the song read"]


def test_too_long_a_song_fails_and_says_which(backend: Backend) -> None:
    limit = backend.info.geometry.max_audio_s
    with pytest.raises(AudioError, match="the model takes at most"):
        backend.encode([CLIPS[0], replace(CLIPS[0], samples=np.zeros(round(16_000 * (limit + 1)), np.float32))])


class NoFloat64(TorchDispatchMode):
    """Fails where an operation gives a number format that MPS lacks."""

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        result = function(*arguments, **(settings or {}))
        assert not (isinstance(result, torch.Tensor) and result.dtype == torch.float64), function
        return result


def test_nothing_is_said_in_a_number_format_that_mps_lacks(checkpoint: Path) -> None:
    with TorchBackend(checkpoint, EXACT) as backend:
        songs = backend.encode(CLIPS[:2])  # where transformers' time embedding itself takes float32 on MPS
        assert backend._mel(CLIPS[0].samples).dtype == np.float32
        with NoFloat64():
            answers_of(backend, [SongPrompts(song, PROMPTS[0]) for song in songs], OPTIONS["all end alike"])


# --- want of memory ----------------------------------------------------------------------------------------------------

HUNGRY = """
import re, resource, sys
import torch
from mflamingo_cli.backends import pytorch
from mflamingo_cli.backends.base import OpenOptions
from tests.clips import audio

pytorch.OTHER_WINDOW_BATCH = 16
with pytorch.TorchBackend(pytorch.Path(sys.argv[1]), OpenOptions(device="cpu", dtype="fp32", threads=1)) as backend:
    backend.encode([audio(3.0)])  # what is loaded on the first use
    clip = audio(30.0 * 16)
    used = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]), resource.RLIM_INFINITY))
    [song] = backend.encode([clip])
    print(backend._window_batch, song.n_tokens)
"""
ROOM = 80 << 20  # the windows themselves take 30 MB, one in the encoder 20, sixteen more than 100


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux limits address space so")
def test_windows_that_do_not_fit_are_encoded_fewer_at_once(checkpoint: Path) -> None:
    one_heap = os.environ | {"MALLOC_ARENA_MAX": "1"}  # others hold address space for later, which would be more room by chance
    done = subprocess.run([sys.executable, "-c", HUNGRY, str(checkpoint), str(ROOM)], capture_output=True, text=True, env=one_heap)
    assert re.fullmatch(r"[1248] 12000\n", done.stdout), (done.stdout, done.stderr[-2000:])


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 3])
def test_windows_are_halved_down_to_one(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Where an encoder holds so many windows; the failure is torch's own."""
    encode, tried = TorchBackend._encode, []

    def narrow(self: TorchBackend, windows: Sequence[tuple[int, object]]) -> list[torch.Tensor]:
        tried.append(len(windows))
        if len(windows) > limit:
            torch.empty(1 << 60)
        return encode(self, windows)

    with TorchBackend(checkpoint, EXACT) as backend:
        [expected] = backend.encode([audio(130.0)])
        monkeypatch.setattr(TorchBackend, "_encode", narrow)
        if limit:
            [song] = backend.encode([audio(130.0)])
            torch.testing.assert_close(song.payload, expected.payload, rtol=0, atol=EMBEDDING_TOLERANCE)
            assert tried == [4, 2, 2, 1]
        else:
            with pytest.raises(ModelError, match=r"not enough memory to encode 30 s of music; use a smaller") as caught:
                backend.encode([audio(130.0)])
            assert caught.value.code == "oom"
            assert tried == [4, 2, 1]


def test_songs_that_do_not_fit_together_are_answered_fewer_at_once(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is torch's own: beyond two songs the memory is made absurdly large, so that the allocation cannot succeed."""
    length, asked = batch_decoder.cache_length, []

    def absurd(groups: Sequence[batch_decoder.PrefixGroup], max_new_tokens: int, device: torch.device) -> int:
        asked.append(len(groups))
        return 1 << 48 if len(groups) > 2 else length(groups, max_new_tokens, device)

    options = OPTIONS["all end alike"]
    with TorchBackend(checkpoint, EXACT) as backend:
        songs = [SongPrompts(song, [Prompt("Key?")]) for song in backend.encode(CLIPS)]
        plain = answers_of(backend, songs, options)
        monkeypatch.setattr(batch_decoder, "cache_length", absurd)  # what is reckoned beforehand stays as it is
        assert answers_of(backend, songs, options) == plain
    assert asked == [4, 2, 2]


def test_songs_whose_memory_is_known_not_to_fit_are_not_tried_together(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    options = OPTIONS["all end alike"]
    songs = [SongPrompts(song, [Prompt("Key?")]) for song in backend.encode(CLIPS)]
    plain = answers_of(backend, songs, options)
    if isinstance(backend, TorchBackend):
        groups = [batch_decoder.PrefixGroup([(0, 0)], [], song.encoded.payload, [[1] * 40]) for song in songs[:2]]
        [(left, _)] = backend._memory_needs(groups, options)
        monkeypatch.setattr(pytorch, "free_bytes", lambda device: left)
        begun: list[int] = []
        prefill = TorchBackend._prefill
        recording = lambda self, groups, options: begun.append(len(groups)) or prefill(self, groups, options)  # noqa: E731
        monkeypatch.setattr(TorchBackend, "_prefill", recording)
        assert answers_of(backend, songs, options) == plain
        assert sum(begun) == 4
        assert max(begun) < 4
    else:
        assert isinstance(backend, GgufBackend)
        monkeypatch.setattr(type(backend._device), "free_bytes", lambda self: backend._language.mapped_bytes)
        assert answers_of(backend, songs, options) == plain, "one at a time where nothing is left"


def test_one_song_that_does_not_fit_is_one_sentence(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TorchBackend(checkpoint, EXACT) as backend:
        [song] = backend.encode(CLIPS[:1])
        monkeypatch.setattr(pytorch, "free_bytes", lambda device: 1000)
        with pytest.raises(
            ModelError, match=r"a prompt of \d+ tokens needs .* of memory, but only 1\.0 kB are free; choose a part"
        ) as caught:
            complete(backend, song, [Prompt("Key?")], OPTIONS["all end alike"])
        monkeypatch.undo()
        monkeypatch.setattr(batch_decoder, "cache_length", lambda *_: 1 << 48)
        with pytest.raises(ModelError, match=r"not enough memory to read \d+ tokens; choose a part") as torn:
            complete(backend, song, [Prompt("Key?")], OPTIONS["all end alike"])
    assert (caught.value.code, torn.value.code) == ("oom", "oom")


def test_the_memory_of_songs_is_given_back_at_once(checkpoint: Path) -> None:
    """Not when Python next looks for cycles: the next songs need it."""
    with TorchBackend(checkpoint, EXACT) as backend:
        [group] = backend._checked_groups([SongPrompts(None, [Prompt("Key?")])])
        gc.disable()
        try:
            decoder = batch_decoder.BatchDecoder(backend.network, [group], 8)
            with torch.inference_mode():
                decoder.prefill()
                decoder.step([(0, 5)])
            gone = weakref.ref(decoder.cache)
            del decoder
            assert gone() is None
        finally:
            gc.enable()


def test_other_failures_are_not_taken_for_want_of_memory() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"), batch_decoder.memory_errors("to write", "wait"):
        raise RuntimeError("size mismatch")
    with pytest.raises(ModelError, match="not enough memory to write; wait"), batch_decoder.memory_errors("to write", "wait"):
        torch.empty(1 << 60)


# --- where there is a GPU ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("name", OPTIONS)
def test_captured_steps_answer_as_the_cpu(checkpoint: Path, name: str) -> None:
    answers = []
    for device in ("cpu", "cuda:0"):
        with TorchBackend(checkpoint, OpenOptions(device=device, dtype="fp32", threads=1)) as backend:
            answers.append(answers_of(backend, all_prompts(backend.encode(CLIPS)), OPTIONS[name]))
            assert backend.info.batch_size == (1 if device == "cpu" else 16)
    assert answers[0] == answers[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_a_step_on_cuda_is_replayed(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    run = batch_decoder.BatchDecoder._run
    monkeypatch.setattr(batch_decoder.BatchDecoder, "_run", lambda self: runs.append(1) or run(self))
    with TorchBackend(checkpoint, OpenOptions(device="cuda", threads=1)) as backend:
        [song] = backend.encode(CLIPS[:1])
        usage = complete(backend, song, [Prompt("Key?")], GenerateOptions(max_new_tokens=200))[0].usage
    assert len(runs) <= 4 < usage.tokens_out, "two runs for each of at most two graphs"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices")
def test_layers_on_two_gpus_answer_as_one(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for spread in (False, True):
        monkeypatch.setattr("mflamingo_cli.backends.pytorch_loading.is_spread", lambda *_, spread=spread: spread)
        with TorchBackend(checkpoint, OpenOptions(device="cuda", dtype="fp32", threads=1)) as backend:
            answers.append(answers_of(backend, all_prompts(backend.encode(CLIPS)), OPTIONS["all end alike"]))
            assert len(backend._devices) == 1 + spread
    assert answers[0] == answers[1]
