"""Broken GGUF pairs: keys, tensors and weights exchanged in files that are whole otherwise, or bytes; shown, verified, and asked."""

from __future__ import annotations

import shutil
import struct
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import gguf

from quant.errors import MFlamingoError
from tests.fuzz import numbers
from tests.gguf_files import KINDS, NUMBERS, Parts, Tensor, parts

Mutation = Callable[[Random, Parts], None]
TENSORS = ("output.bias", "rope_freqs.weight", "blk.0.attn_qkv.weight", "a.blk.0.attn_k.bias", "a.blk.2.ln1.weight", "x" * 64, "x\0y", "")
BAD_WEIGHTS = (b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\x7e", b"\0\x7c", b"\xc0\x7f", b"\xff", b"\0\x7b")  # NaN, infinity, large


def make_seeds(folder: Path) -> None:
    """Random models as pairs: ours in two types, and the preview's as llama.cpp's own converter writes it."""
    from quant.convert import convert
    from tests import checkpoints

    music, preview = checkpoints.write(folder / "a", "musicflamingo"), checkpoints.publish(folder / "b", "preview")
    convert(music, folder / "f16", "F16")
    convert(music, folder / "q4_0", "Q4_0")
    _, audio = convert(preview, folder / "stock", "Q8_0")
    checkpoints.write_stock_audio(preview, audio)
    shutil.rmtree(music)
    shutil.rmtree(preview)


def mutate(rng: Random, seeds: Path, folder: Path) -> Path:
    """Break one file of a pair, seldom both."""
    pair = rng.choice(sorted(seeds.iterdir()))
    files = sorted(pair.iterdir())
    broken = rng.sample(files, rng.choice((1, 1, 1, 2)))
    for file in files:
        if file in broken:
            (folder / file.name).write_bytes(_broken(rng, file))
        else:
            (folder / file.name).symlink_to(file)
    return folder


def run(path: Path) -> None:
    """`models info` and `models verify`, then a song and a question."""
    from mflamingo_cli.backends import find_model, open_backend
    from mflamingo_cli.backends.base import GenerateOptions, OpenOptions, Prompt, complete
    from mflamingo_cli.commands.models.info import describe
    from quant.verify import verify
    from tests.clips import audio

    for check in (lambda: describe(find_model(str(path))), lambda: list(verify(path))):
        with suppress(MFlamingoError):
            check()
    with open_backend(str(path), OpenOptions(backend="gguf", device="cpu", threads=1)) as backend:
        [encoded] = backend.encode([audio(1.5)])
        complete(backend, encoded, [Prompt("Key?")], GenerateOptions(max_new_tokens=3))


def _broken(rng: Random, file: Path) -> bytes:
    made, begin = _parts(file)
    if rng.random() < 0.15:
        data = numbers.scattered(rng, file.read_bytes()[:begin]) if rng.random() < 0.7 else file.read_bytes()
        return data + file.read_bytes()[begin:] if len(data) < begin + 1000 else numbers.scattered(rng, data)
    found = Parts(list(made.keys), list(made.tensors))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        with suppress(IndexError, ValueError):  # none is left to break
            rng.choice(MUTATIONS)(rng, found)
    return found.bytes()


@lru_cache(maxsize=8)
def _parts(file: Path) -> tuple[Parts, int]:
    """A file's parts, and where its weights begin."""
    made = parts(file)
    return made, len(file.read_bytes()) - len(Parts([], made.tensors).bytes()) + len(Parts([], []).bytes())


def _other_value(rng: Random, found: Parts) -> None:
    """A key with another value of its type."""
    at = rng.randrange(len(found.keys))
    name, (kind, value) = found.keys[at]
    found.keys[at] = name, (kind, _changed(rng, kind, value))


def _other_type(rng: Random, found: Parts) -> None:
    """A key with a value of another type."""
    at = rng.randrange(len(found.keys))
    kind = rng.choice(("", "[")) + rng.choice(tuple(NUMBERS))
    found.keys[at] = found.keys[at][0], (kind, _any_value(rng, kind))


def _new_key(rng: Random, found: Parts) -> None:
    """A key that llama.cpp has for some model or other."""
    kind = rng.choice(("I", "I", "f", "s", "?", "[I", "[f", "[s", "[i", rng.choice(tuple(NUMBERS))))
    at = rng.randrange(len(found.keys) + 1)
    found.keys.insert(at, (rng.choice(all_keys()), (kind, _any_value(rng, kind))))


def _less(rng: Random, found: Parts) -> None:
    """A key or a tensor left out, or twice, or two that change places."""
    some: list[Any] = rng.choice((found.keys, found.tensors))
    at, other = rng.randrange(len(some)), rng.randrange(len(some))
    match rng.randrange(4):
        case 0 | 1:
            del some[at]
        case 2:
            some.insert(at, some[other])
        case 3:
            some[at], some[other] = some[other], some[at]


def _other_name(rng: Random, found: Parts) -> None:
    """A key or a tensor under another name."""
    some: list[Any] = rng.choice((found.keys, found.tensors))
    at = rng.randrange(len(some))
    some[at] = rng.choice((*TENSORS, *numbers.TEXTS, some[rng.randrange(len(some))][0], rng.choice(all_keys()))), some[at][1]


def _other_tensor(rng: Random, found: Parts) -> None:
    """A tensor of another shape or type, with as many bytes as that takes; or at another place; or one too many."""
    at = rng.randrange(len(found.tensors))
    name, old = found.tensors[at]
    shape, number = list(old.shape), old.number
    match rng.randrange(6):
        case 0:
            number = rng.choice((*KINDS, 4, 5, 31, 36, 99, 1 << 31))
        case 1:
            shape = rng.choice((shape[::-1], [*shape, 1], [1, *shape], [2, *shape], shape[1:], [], [1] * 5))
        case 2 if shape:
            axis = rng.randrange(len(shape))
            shape[axis] = rng.choice((shape[axis] + 32, shape[axis] * 2, shape[axis] // 2, 1, 0, rng.choice(numbers.INTEGERS)))
        case 3:
            found.tensors[at] = name, Tensor(old.shape, old.number, old.data, rng.choice((0, 32, 1, 1 << 40, (1 << 64) - 32)))
            return
        case 4:
            found.tensors.append((rng.choice(TENSORS), Tensor.filled((64,), 0)))
            return
        case 5:
            found.tensors[at] = name, Tensor(old.shape, old.number, old.data[: rng.randrange(len(old.data) + 1)])
            return
    small = Tensor.filled(tuple(shape), number) if _product(shape) < 1 << 22 else Tensor(tuple(shape), number, old.data)
    found.tensors[at] = name, small


def _other_weights(rng: Random, found: Parts) -> None:
    """Weights that are no numbers, too large, or whatever."""
    at = rng.randrange(len(found.tensors))
    name, old = found.tensors[at]
    data = bytearray(old.data)
    for _ in range(rng.choice((1, 10, 1000))):
        place, new = rng.randrange(max(1, len(data) - 4)) & ~1, rng.choice((*BAD_WEIGHTS, rng.randbytes(4)))
        data[place : place + len(new)] = new[: len(data) - place]
    found.tensors[at] = name, Tensor(old.shape, old.number, bytes(data))


def _other_vocabulary(rng: Random, found: Parts) -> None:
    """Tokens, types or merges that are more, fewer, twice, or others."""
    names = [at for at, (name, (kind, _)) in enumerate(found.keys) if name.startswith("tokenizer") and kind.startswith("[")]
    at = rng.choice(names)
    name, (kind, value) = found.keys[at]
    items = list(value)
    for _ in range(rng.choice((1, 1, 2, 50))):
        place = rng.randrange(len(items))
        match rng.randrange(4):
            case 0:
                items[place] = items[rng.randrange(len(items))]
            case 1:
                del items[place]
            case 2:
                items.insert(place, _any_value(rng, kind[1]))
            case 3:
                items[place] = _changed(rng, kind[1], items[place])
    found.keys[at] = name, (kind, items)


MUTATIONS: tuple[Mutation, ...] = (
    _other_value, _other_value, _other_value, _other_type, _new_key, _new_key, _less, _other_name, _other_tensor, _other_tensor,
    _other_weights, _other_vocabulary,
)  # fmt: skip


@lru_cache(maxsize=1)
def all_keys() -> list[str]:
    """The names that gguf has for keys, of our two architectures, of a vocabulary, and of files."""

    def names(group: type) -> list[str]:
        own = [value for name, value in vars(group).items() if not name.startswith("_")]
        return [name for one in own for name in (names(one) if isinstance(one, type) else [one] if isinstance(one, str) else [])]

    found = {name.format_map(defaultdict(lambda: "x", arch="qwen2")) for name in names(gguf.Keys)}
    return sorted(found | {f"mflamingo.{name}" for name in ("abilities", "grounded", "name", "revision", "max_audio_s", "tokens.audio")})


def _changed(rng: Random, kind: str, value: Any) -> Any:
    if kind.startswith("["):
        return value[: rng.randrange(len(value) + 1)] if rng.random() < 0.5 else _any_value(rng, kind)
    if kind == "s":
        at = rng.randrange(len(value) + 1)
        text = rng.choice(numbers.TEXTS)
        return rng.choice((value[:at] + text + value[at:], value[:at], text, value.upper(), "\ud800"))  # which is no UTF-8
    return _any_value(rng, kind) if kind in "?fd" else _fitting(rng, kind, numbers.integer(rng, value))


def _any_value(rng: Random, kind: str) -> Any:
    if kind.startswith("["):
        return [_any_value(rng, kind[1]) for _ in range(rng.choice((0, 1, 2, 3, 40)))]
    if kind == "s":
        return rng.choice((*numbers.TEXTS, "linear", "yarn", "none", "qwen2", "gpt2", "llama", "default"))
    if kind == "?":
        return rng.random() < 0.5
    return rng.choice(numbers.FLOATS) if kind in "fd" else _fitting(rng, kind, numbers.integer(rng))


def _fitting(rng: Random, kind: str, value: int) -> int:
    return struct.unpack("<" + kind, (value % (1 << 8 * struct.calcsize(kind))).to_bytes(struct.calcsize("<" + kind), "little"))[0]


def _product(shape: list[int]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size
