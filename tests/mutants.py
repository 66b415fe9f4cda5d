"""Central functions broken on purpose, one at a time, in a copy of the tree: `python -m tests.mutants` says which test falls.

A mutant that no test falls for names a law that is not held. The table of results stands in tests/README.md; that each of these texts
still occurs once in its file is itself tested, so that a mutant cannot quietly become none.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.docs import ROOT

COPIED = ("mflamingo_cli", "quant", "tests", "pyproject.toml", "README.md", "man", "completions")
PROGRAM = "mflamingo_cli"


@dataclass(frozen=True)
class Mutant:
    """One change of one expression, and the tests that are asked."""

    function: str
    what: str
    file: str
    old: str
    new: str
    tests: str

    def occurs(self, root: Path) -> int:
        """How often the text that is changed stands in its file."""
        return (root / self.file).read_text(encoding="utf-8").count(self.old)


MUTANTS = (
    Mutant(
        "compare_tempi",
        "twice the tolerance",
        f"{PROGRAM}/measure/compare.py",
        "if abs(ratio - 1) <= TEMPO_TOLERANCE",
        "if abs(ratio - 1) <= 2 * TEMPO_TOLERANCE",
        "tests/measure/test_compare.py",
    ),
    Mutant(
        "compare_keys",
        "relative keys exchanged",
        f"{PROGRAM}/measure/compare.py",
        '9 if fact.mode == "major" else 3',
        '3 if fact.mode == "major" else 9',
        "tests/measure/test_compare.py",
    ),
    Mutant(
        "parse_key",
        "the last key of a text",
        f"{PROGRAM}/parsers.py",
        "min(found, key=lambda one: one.start).value",
        "max(found, key=lambda one: one.start).value",
        "tests/test_parsers.py",
    ),
    Mutant(
        "parse_meter",
        "common and cut time exchanged",
        f"{PROGRAM}/parsers.py",
        '{"common": "4/4", "cut": "2/2"}',
        '{"common": "2/2", "cut": "4/4"}',
        "tests/test_parsers.py",
    ),
    Mutant(
        "split_thinking",
        "the first answer, not the last",
        f"{PROGRAM}/thinking.py",
        "body_start = answers[-1][3]",
        "body_start = answers[0][3]",
        "tests/test_thinking.py",
    ),
    Mutant(
        "ThoughtStream.feed",
        "text between reasoning and answer is shown",
        f"{PROGRAM}/thinking.py",
        'if self._state == "between":',
        'if self._state == "never":',
        "tests/test_thinking.py",
    ),
    Mutant(
        "Sampler.pick",
        "the nucleus is one token short",
        f"{PROGRAM}/backends/generation.py",
        "self._options.top_p) + 1)]",
        "self._options.top_p))]",
        "tests/backends/test_generation.py",
    ),
    Mutant(
        "Sampler.pick",
        "repetition is rewarded where logits are negative",
        f"{PROGRAM}/backends/generation.py",
        "logits[seen] / penalty, logits[seen] * penalty",
        "logits[seen] / penalty, logits[seen] / penalty",
        "tests/backends/test_generation.py",
    ),
    Mutant(
        "RunCache.skip_if_duplicate",
        "a copy within the run is analysed again",
        f"{PROGRAM}/library/run.py",
        " or not self._is_first(song.sound, song.index):",
        ":",
        "tests/library/test_run.py tests/library/test_command.py",
    ),
    Mutant(
        "loudness.integrated",
        "blocks of 300 ms",
        f"{PROGRAM}/measure/loudness.py",
        "_blocks(steps, 4) for steps",
        "_blocks(steps, 3) for steps",
        "tests/measure/test_loudness.py",
    ),
    Mutant(
        "loudness.integrated",
        "no relative gate",
        f"{PROGRAM}/measure/loudness.py",
        "blocks[_lufs(blocks) > _lufs(blocks.mean()) + relative_gate] if len(blocks) else blocks",
        "blocks",
        "tests/measure/test_loudness.py",
    ),
    Mutant(
        "beats: decoding",
        "downbeats weigh as other beats",
        f"{PROGRAM}/measure/beats.py",
        "np.where(isdown, down[times, None], other[times, None])",
        "other[times, None]",
        "tests/measure/test_beats.py",
    ),
    Mutant(
        "beats: tracing back",
        "the beat before is the next one",
        f"{PROGRAM}/measure/beats.py",
        "np.roll(np.arange(m), 1)",
        "np.roll(np.arange(m), -1)",
        "tests/measure/test_beats.py",
    ),
    Mutant(
        "indices_by_prefix",
        "prompts of different prefixes share one",
        f"{PROGRAM}/core/chat.py",
        "groups.setdefault(prompt.before, [])",
        'groups.setdefault("", [])',
        "tests/core/test_chat.py tests/backends/test_together.py",
    ),
    Mutant(
        "rote.tables",
        "windows are as long as their tokens",
        f"{PROGRAM}/core/rote.py",
        "np.float32(window_index * tokens_per_window)",
        "np.float32(window_index * n_tokens)",
        "tests/core/test_rote.py",
    ),
    Mutant(
        "Family.projector_name",
        "stock llama.cpp may open what it computes otherwise",
        "quant/families.py",
        "if self.projector.stock and stock else",
        "if self.projector.stock else",
        "tests/quant/test_layout.py tests/quant/test_convert.py tests/quant/test_families.py",
    ),
    Mutant(
        "layout.tensors",
        "tied models get an output matrix",
        "quant/layout.py",
        'if not (tied and rule.role == "output")',
        "if True",
        "tests/quant/test_convert.py",
    ),
    Mutant(
        "n_audio_tokens, valid_frames",
        "a cut frame is left out",
        f"{PROGRAM}/core/mel.py",
        "return -(-n_samples // hop_length)",
        "return n_samples // hop_length",
        "tests/core/test_mel.py",
    ),
    Mutant(
        "where.parse",
        "and is or",
        f"{PROGRAM}/render/query/where.py",
        "lambda record: _not(_any(_not(test(record)) for test in tests))",
        "lambda record: _any(test(record) for test in tests)",
        "tests/render/test_where.py",
    ),
    Mutant(
        "CacheEntry",
        "parts of a song share an entry",
        f"{PROGRAM}/store/cache.py",
        "decoders(), self._part)",
        "decoders(), self._part[0])",
        "tests/store/test_cache.py",
    ),
    Mutant(
        "Request.deciding",
        "options do not decide a record",
        f"{PROGRAM}/requests.py",
        "self.part, asdict(self.options), self.claims, self.only",
        "self.part, self.claims, self.only",
        "tests/library/test_run.py",
    ),
    Mutant(
        "checks",
        "a text may name any chord",
        f"{PROGRAM}/checks.py",
        "sounding(str(reading.value)) in known)",
        "True)",
        "tests/test_checks.py",
    ),
    Mutant(
        "claims",
        "what is denied is claimed",
        f"{PROGRAM}/claims.py",
        "return len(after.split()) <= REACH and not _LEAVING.search(after)",
        "return False",
        "tests/test_claims.py",
    ),
    Mutant(
        "files.Draft",
        "what a failed writer wrote stays",
        "quant/files.py",
        "            self.part.unlink(missing_ok=True)\n",
        "            pass\n",
        "tests/quant/test_files.py",
    ),
    Mutant(
        "files.Draft",
        "a file keeps its name while it is written",
        "quant/files.py",
        'path.with_name(f"{_stem(path)}{os.urandom(8).hex()}{PART}")',
        "path",
        "tests/quant/test_files.py",
    ),
    Mutant(
        "files.Draft",
        "what lies there is opened",
        "quant/files.py",
        "os.O_EXCL | ",
        "",
        "tests/quant/test_files.py",
    ),
    Mutant(
        "files.open_growing",
        "two processes may write one file",
        "quant/files.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        "tests/quant/test_files.py",
    ),
    Mutant(
        "tags: comparing",
        "the sound of a copy may be another",
        f"{PROGRAM}/library/tags.py",
        "if not same or _stream_hash(copy, demuxer) != sound:",
        "if not heard:",
        "tests/library/test_tags.py",
    ),
)


def killer(mutant: Mutant, copy: Path) -> str:
    """Return the test that falls, or "" where none does. Raises RuntimeError where the tests cannot be run."""
    path = copy / mutant.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(mutant.old, mutant.new), encoding="utf-8")
    asked = [name for name in mutant.tests.split() if (copy / name).exists()]
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", *asked]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    finally:
        path.write_text(whole, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutant.function}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else ""


def main() -> None:
    """Print a Markdown table of the mutants, or of those whose function contains the first argument."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    n_alive = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, copy / name, ignore=ignored) if source.is_dir() else shutil.copy(source, copy)
        print("| function | what is broken | a test that falls |\n| --- | --- | --- |")
        for mutant in MUTANTS:
            if wanted not in mutant.function:
                continue
            fallen = killer(mutant, copy)
            n_alive += not fallen
            shown = f"`{fallen.removeprefix('tests/')}`" if fallen else "**none**"
            print(f"| `{mutant.function}` | {mutant.what} | {shown} |", flush=True)
    sys.exit(n_alive > 0)


if __name__ == "__main__":
    main()
