"""What fuzzers put where a number, a text or a JSON value stands: the ends of ranges, and what is none of its kind."""

from __future__ import annotations

import json
import math
import struct
from random import Random
from typing import Any

INTEGERS = (0, 1, 2, 3, 7, 31, 32, 33, 127, 128, 255, 256, 1000, 65_535, 100_000, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32,
            1 << 40, 1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-30, 1e10, 3.4e38, math.inf, -math.inf, math.nan)
TEXTS = ("", "x", "0", "../x", "/etc/passwd", "\0", "\n", "\ud7ff\u202e", "💥" * 50, "%s%n{0}", "a" * 5000, "../" * 200)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    [1, 2],
    -1,
    -0.5,
    1e300,
    math.nan,
    math.inf,
    *INTEGERS,
    *TEXTS,
)


def integer(rng: Random, old: int = 0) -> int:
    """An integer at the end of some range, or near the old one."""
    return rng.choice((rng.choice(INTEGERS), -rng.choice(INTEGERS), old + rng.choice((-32, -1, 1, 32)), old * 2, old // 2))


def packed(rng: Random, layout: str, old: Any) -> bytes:
    """Another value of a struct character, little-endian."""
    if layout in "fd":
        return struct.pack("<" + layout, rng.choice(FLOATS))
    size = struct.calcsize("<" + layout)
    return (integer(rng, int(old)) % (1 << 8 * size)).to_bytes(size, "little")


def scattered(rng: Random, data: bytes) -> bytes:
    """Bytes changed, cut off, taken out, doubled, or put in at random."""
    found = bytearray(data)
    at = rng.randrange(len(found) or 1)
    end = min(len(found), at + rng.choice((1, 4, 8, 64, 1000)))
    match rng.randrange(5):
        case 0:
            for _ in range(rng.choice((1, 1, 2, 8, 32)) if found else 0):
                found[rng.randrange(len(found))] = rng.randrange(256)
        case 1:
            del found[at:]
        case 2:
            del found[at:end]
        case 3:
            found[at:at] = found[at:end]
        case 4:
            found[at:at] = rng.randbytes(end - at)
    return bytes(found)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value; of long lists a few of each."""
    found = []
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys if len(keys) < 100 else [*keys[:10], *keys[-10:]]:
        found += [(value, key), *places(value[key])]
    return found


def json_text(rng: Random, text: str) -> str:
    """A JSON text in which a value is another, gone, under another name, or twice there; or one that is no JSON."""
    if rng.random() < 0.15:
        return rng.choice(
            (
                "",
                "[]",
                "null",
                "1",
                '"x"',
                "{",
                "[" * 100_000,
                '{"a":' * 50_000,
                "9" * 10_000,
                '{"a": ' + "9" * 10_000 + "}",
                "\ufeff" + text,
            )
        )
    whole = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        there = places(whole)
        if not there:
            break
        container, key = rng.choice(there)
        match rng.randrange(6):
            case 0 if isinstance(container, dict):
                del container[key]
            case 1 if isinstance(container, dict):
                container[rng.choice(TEXTS)] = container.pop(key)
            case 2 if isinstance(container[key], int):
                container[key] = integer(rng, container[key])
            case 3:
                container[key] = rng.choice(there)[1]
            case _:
                container[key] = rng.choice(VALUES)
    made = json.dumps(whole)
    if rng.random() < 0.1 and '"' in made:  # a key twice
        first, _, rest = made.partition("{")
        made = f"{first}{{{rest.partition(',')[0]}, {rest}" if "," in rest else made
    return made
