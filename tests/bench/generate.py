"""Our torch back end beside transformers' `generate`, on the same weights in one process, by turns; not a test, run by hand.

    python -m tests.bench.generate CHECKPOINT [--song FILE] [--seconds 60] [--prompts 1] [--tokens 64] [--device auto] [--dtype auto]
    python -m tests.bench.generate FOLDER --random 300      # writes a checkpoint of about so many million random parameters first

Theirs is the processor and `model.generate` with its dynamic cache, `--prompts` copies of the song in one batch; ours encodes it once.
Encode: from samples to embeddings. Prefill: from there to the first token. Decode: the tokens after it, of all prompts together. The best
of `--rounds`. Beside it what the machine could do: weights of the language model read once per step at the bandwidth of a copy, and
multiplications at the speed of one large matrix product; both measured here. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import inspect
import json
import platform
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoProcessor

from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
from mflamingo_cli.backends.pytorch import TorchBackend
from mflamingo_cli.core import audio as core_audio
from tests import checkpoints

SONG = Path(__file__).parents[1] / "data" / "ocean.opus"
QUESTION = "Describe this song in detail."
COPY_BYTES = 1 << 28
MATRIX = {"cpu": 1024}  # rows and columns of the product; more where it is fast
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Cost:
    """Seconds of each step, the best of all rounds, and bytes at most beyond what was held before."""

    encode_s: float = float("inf")
    prefill_s: float = float("inf")
    decode_s: float = float("inf")
    peak_bytes: int = 0

    def better(self, encode_s: float, first_s: float, all_s: float, peak_bytes: int) -> None:
        """Take another round."""
        self.encode_s, self.prefill_s = min(self.encode_s, encode_s), min(self.prefill_s, first_s)
        self.decode_s, self.peak_bytes = min(self.decode_s, all_s - first_s), max(self.peak_bytes, peak_bytes)


class Machine:
    """A device's clock, peak memory and limits."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype, self.is_cuda = device, dtype, device.type == "cuda"

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds until a call's work is done on the device, and its result."""
        self._wait()
        began = time.perf_counter()
        result = work()
        self._wait()
        return time.perf_counter() - began, result

    def _wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def forget_peak(self) -> int:
        """Begin to watch memory; bytes that are held now."""
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        CLEAR.write_text("5")  # Linux: the peak begins anew
        return _status("VmRSS")

    def peak(self) -> int:
        """Most bytes that were held since."""
        return torch.cuda.max_memory_allocated(self.device) if self.is_cuda else _status("VmHWM")

    def bandwidth(self) -> float:
        """Bytes per second that a copy reads and writes."""
        source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=self.device)
        target = torch.ones_like(source)
        return 2 * COPY_BYTES / min(self.timed(lambda: target.copy_(source))[0] for _ in range(5))

    def multiplications(self) -> float:
        """Floating point operations per second of a large product in the model's dtype."""
        n = MATRIX.get(self.device.type, 8192)
        matrix = torch.randn(n, n, device=self.device, dtype=self.dtype)
        return 2 * n**3 / min(self.timed(lambda: matrix @ matrix)[0] for _ in range(5))


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())
    assert found
    return int(found[1]) * 1024


def write(directory: Path, millions: int) -> None:
    """A checkpoint of random weights: four layers of text for each of audio, as wide as that number of parameters needs."""
    if not (directory / "config.json").exists():
        layers = 12
        d_text = max(1, round((millions * 1e6 / (layers * 9)) ** 0.5 / 256)) * 256  # attention, and an MLP of twice the width
        size = checkpoints.Size(256, layers // 4, 4, d_text, layers, d_text // 64, d_text // 256)
        checkpoints.write(directory, "musicflamingo", size)


class Ours:
    """The torch back end."""

    def __init__(self, backend: TorchBackend, audio: core_audio.Audio, n_prompts: int) -> None:
        self._backend, self._audio, self._prompts = backend, audio, [Prompt(QUESTION)] * n_prompts

    def encode(self) -> Any:
        """From samples to embeddings."""
        return self._backend.encode([self._audio])[0]

    def write(self, encoded: Any, n_tokens: int) -> list[str]:
        """Answers of so many tokens."""
        return [one.text for one in complete(self._backend, encoded, self._prompts, GenerateOptions(max_new_tokens=n_tokens))]


class Theirs:
    """transformers' processor and `generate`, which encodes too: `encode` is timed alone and taken off."""

    def __init__(self, backend: TorchBackend, directory: Path, audio: core_audio.Audio, n_prompts: int) -> None:
        self._model, self._samples, self._n_prompts = backend.network, audio.samples, n_prompts
        self._model.generation_config.eos_token_id = None  # both write as many tokens as they are told to
        self._processor = AutoProcessor.from_pretrained(directory)
        turns = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, {"type": "audio", "path": None}]}]
        self._text = self._processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)

    def encode(self) -> Any:
        """From samples to the model's inputs and, for the clock, embeddings."""
        inputs = self._processor(text=[self._text] * self._n_prompts, audio=[self._samples] * self._n_prompts, sampling_rate=16_000)
        inputs = inputs.to(self._model.device, self._model.dtype)
        wanted = inspect.signature(self._model.get_audio_features).parameters  # which differ from class to class
        names = {name: value for name, value in inputs.items() if name in wanted}
        with torch.inference_mode():
            self._model.get_audio_features(**names)
        return inputs

    def write(self, inputs: Any, n_tokens: int) -> list[str]:
        """Answers of so many tokens."""
        with torch.inference_mode():
            whole = self._model.generate(**inputs, max_new_tokens=n_tokens, do_sample=False)
        return self._processor.batch_decode(whole[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def measure(machine: Machine, side: Ours | Theirs, n_tokens: int, cost: Cost) -> list[str]:
    """One round; the answers."""
    held = machine.forget_peak()
    encode_s, encoded = machine.timed(side.encode)
    first_s, _ = machine.timed(lambda: side.write(encoded, 1))
    all_s, answers = machine.timed(lambda: side.write(encoded, n_tokens))
    inside_s = encode_s if isinstance(side, Theirs) else 0.0  # `generate` encodes again
    cost.better(encode_s, first_s - inside_s, all_s - inside_s, machine.peak() - held)
    return answers


def limits(backend: TorchBackend, machine: Machine, n_audio: int) -> dict[str, float]:
    """The least seconds of the encoder, of prefill and of a step for one prompt."""
    core, geometry = backend.network.model, backend.info.geometry
    layers = [*core.language_model.layers, backend.network.lm_head]
    n_bytes = sum(parameter.nbytes for layer in layers for parameter in layer.parameters())
    n_text = sum(parameter.numel() for layer in layers[:-1] for parameter in layer.parameters())
    n_heard = sum(parameter.numel() for layer in core.audio_tower.layers for parameter in layer.parameters())
    n_positions, windows = 2 * 750, -(-n_audio // 750)
    mixing = 4 * windows * n_positions**2 * geometry.encoder.d_model * geometry.encoder.n_layers
    flops, bandwidth = machine.multiplications(), machine.bandwidth()
    prefill = 2 * n_text * n_audio + 2 * n_audio**2 * geometry.text.d_model * geometry.text.n_layers
    return {
        "bandwidth": bandwidth,
        "flops": flops,
        "encode_s": (2 * n_heard * n_positions * windows + mixing) / flops,
        "prefill_s": prefill / flops,
        "step_s": n_bytes / bandwidth,
    }


def show(costs: dict[str, Cost], least: dict[str, float], n_prompts: int, n_tokens: int) -> None:
    """A row for each side, and what the machine could do."""
    print(f"{'':<14}{'encode':>10}{'prefill':>10}{'decode':>16}{'peak':>10}")
    for name, cost in costs.items():
        rate = n_prompts * (n_tokens - 1) / cost.decode_s
        print(f"{name:<14}{cost.encode_s:>8.3f} s{cost.prefill_s:>8.3f} s{rate:>8.1f} tokens/s{cost.peak_bytes / 1e6:>7.0f} MB")
    print(f"{'limit':<14}{least['encode_s']:>8.3f} s{least['prefill_s']:>8.3f} s{n_prompts / least['step_s']:>8.1f} tokens/s")
    print(f"copy {least['bandwidth'] / 1e9:.1f} GB/s, product {least['flops'] / 1e9:.0f} GFLOP/s")


def main() -> None:
    """Open, measure by turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--random", type=int, metavar="MILLIONS")
    parser.add_argument("--song", type=Path, default=SONG)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    told = parser.parse_args()
    if told.random:
        write(told.checkpoint, told.random)
    audio = core_audio.load(told.song, end_s=told.seconds)
    with TorchBackend(told.checkpoint, OpenOptions(device=told.device, dtype=told.dtype, threads=told.threads)) as backend:
        backend._end_ids = frozenset()
        machine = Machine(backend.network.device, backend.network.dtype)
        sides = {"transformers": Theirs(backend, told.checkpoint, audio, told.prompts), "ours": Ours(backend, audio, told.prompts)}
        costs, answers = {name: Cost() for name in sides}, {}
        for number in range(told.rounds + 1):
            if number == 1:  # the first round warmed up
                costs = {name: Cost() for name in sides}
            answers = {name: measure(machine, side, told.tokens, costs[name]) for name, side in sides.items()}
        least = limits(backend, machine, backend.encode([audio])[0].n_tokens)
        n_parameters = sum(parameter.numel() for parameter in backend.network.parameters())
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, "machine": platform.machine()}
        where = f"{backend.info.device} {backend.info.dtype}"
        print(f"{n_parameters / 1e6:.0f} M parameters, {where}, {told.prompts} prompts x {told.tokens} tokens")
        show(costs, least, told.prompts, told.tokens)
        same = answers["ours"] == answers["transformers"]
        print(f"the answers are {'the same' if same else 'not the same'}; {versions}")
        print(json.dumps({name: asdict(cost) for name, cost in costs.items()} | {"limit": least, "same": same, "versions": versions}))


if __name__ == "__main__":
    main()
