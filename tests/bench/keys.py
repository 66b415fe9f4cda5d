"""Which key: fits and checks WEIGHTS of `mflamingo_cli/measure/key.py`; not a test, run by hand.

    python -m tests.bench.keys W/data/train real --check test --music FOLDER

Sources are those of `tests.bench.confidence`. Prints how many keys of the first sources are right by fits that did not see the clip, the
mistakes by their kind, the weights fitted on all of them and how surely the odds say what is right; then the same of the sources to check,
by the weights as they are written. What sounds in a clip is kept in --cache.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from mflamingo_cli.measure.compare import compare_keys
from mflamingo_cli.measure.facts import Key
from mflamingo_cli.measure.key import MODES, WEIGHTS, signs, weigh
from mflamingo_cli.measure.song import Measurement
from tests.bench.confidence import FOLDS, clips, report
from tests.bench.estimators import Clip

RIDGE = 1.0  # on weights of signs with unit variance


def collect(source: str, count: int, cache: Path, music: Path) -> tuple[np.ndarray, ...]:
    """Of all clips of a source that keep one key: pitches (n, 24), triads (n, 36), homes (n, 24), the key (n,) as 12 * mode + tonic."""
    rows = []
    for name, make in clips(source, count, cache, music):
        path = cache / f"{name}.key.json"
        if not path.exists():
            samples, truth = make()
            harmony = Measurement(Clip(samples)).harmony  # type: ignore[arg-type]
            sounds = [part.tolist() for part in harmony.whole] if harmony.chords else None
            path.write_text(json.dumps([sounds, sorted(truth.keys)]))
        sounds, keys = json.loads(path.read_text())
        if sounds and len(keys) == 1:
            rows.append((*sounds, 12 * MODES.index(keys[0][1]) + keys[0][0]))
    return tuple(np.array([row[i] for row in rows]) for i in range(4))


def fit(seen: np.ndarray, true: np.ndarray) -> np.ndarray:
    """A conditional logit with a ridge: signs (n, 24, d), the right ones of 24 (n,) -> (d,) weights."""
    from scipy.optimize import minimize

    scale, rows = seen.std(axis=(0, 1)) + 1e-9, np.arange(len(true))
    inputs = seen / scale

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        p = softmax(inputs @ weights)
        error = p.copy()
        error[rows, true] -= 1
        total = -np.log(p[rows, true]).sum() + RIDGE / 2 * weights @ weights
        return float(total), np.einsum("nk,nkd->d", error, inputs) + RIDGE * weights

    return np.asarray(minimize(loss, np.zeros(seen.shape[2]), jac=True, method="L-BFGS-B").x / scale)


def softmax(odds: np.ndarray) -> np.ndarray:
    """Probabilities of the keys: (n, 24) -> (n, 24)."""
    found = np.exp(odds - odds.max(axis=1, keepdims=True))
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def key_of(index: int) -> Key:
    """The key of 12 * mode + tonic."""
    return Key.of(index % 12, MODES[index // 12])


def tell(title: str, p: np.ndarray, true: np.ndarray) -> None:
    """Print how many are right, and of what kind the mistakes are: probabilities (n, 24), keys (n,)."""
    told = p.argmax(axis=1)
    kinds = Counter(compare_keys(key_of(a), key_of(b)).relation or "same" for a, b in zip(true.tolist(), told.tolist(), strict=True))
    print(f"\n{title}: {dict(kinds.most_common())}")
    report(title, p.max(axis=1), (told == true).astype(float))


def main() -> None:
    """Fit, print, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--check", nargs="*", default=[])
    parser.add_argument("--count", type=int, default=400, help="clips of each source, at most")
    temporary = Path(tempfile.gettempdir())
    parser.add_argument("--music", type=Path, default=temporary / "mflamingo-music", help="unpacked packages, a folder each")
    parser.add_argument("--cache", type=Path, default=temporary / "mflamingo-bench")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    found = {source: collect(source, options.count, options.cache, options.music) for source in [*options.sources, *options.check]}
    *sounds, true = (np.concatenate([found[source][i] for source in options.sources]) for i in range(4))
    seen = signs(*sounds)
    fold, p = np.random.default_rng(0).permutation(len(true)) % FOLDS, np.zeros((len(true), 24))
    for at in range(FOLDS):
        p[fold == at] = softmax(seen[fold == at] @ fit(seen[fold != at], true[fold != at]))
    first = 0
    for source in options.sources:
        rows = slice(first, first + len(found[source][3]))
        tell(f"{source}, unseen", p[rows], true[rows])
        first = rows.stop
    print(f"\n{json.dumps(dict(zip(WEIGHTS, fit(seen, true).round(2).tolist(), strict=True)))}")
    for source in options.check:
        *sounds, true = found[source]
        tell(f"{source}, as written", softmax(weigh(*sounds)), true)


if __name__ == "__main__":
    main()
