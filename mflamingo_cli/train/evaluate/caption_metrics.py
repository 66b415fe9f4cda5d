"""Free text held to what is known: facts of the prompt that captions repeat, claims that they make, and what is admitted not to be known.

A caption is read back as the program reads every text (`claims`); a claim counts only where its truth is known. Times are seconds.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mflamingo_cli.claims import read_claims
from mflamingo_cli.core.audio import SAMPLE_RATE
from mflamingo_cli.grounding import fact_phrases, facts_text, grounded_prompt
from mflamingo_cli.parsers import is_unknown, parse_chords, short_chord
from mflamingo_cli.schema import ClaimValue
from mflamingo_cli.styles import CAPTION_STYLES
from mflamingo_cli.tasks import TASKS
from mflamingo_cli.text import number
from mflamingo_cli.thinking import split_thinking
from mflamingo_cli.train.evaluate import bootstrap, ground_truth
from mflamingo_cli.train.evaluate.baselines import measured
from mflamingo_cli.train.evaluate.bootstrap import Score
from mflamingo_cli.train.evaluate.ground_truth import Item
from mflamingo_cli.train.evaluate.inference import SongBatch, Update, questions
from mflamingo_cli.train.evaluate.music import harte, parsed_key, same_tempo, section_scores
from mflamingo_cli.train.mini.dialogue.clip_labels import GENRES, INSTRUMENTS, MOOD_TAGS
from mflamingo_cli.train.mini.dialogue.prompt_facts import FIELDS, PromptFacts, ground_text, random_facts
from mflamingo_cli.train.mini.synth.harmony import chord_set

STYLES = ("full", "short", "technical", "critic")
CAPTION_TOKENS = 260
FORM_QUESTION = "What is the form?"
BOUNDARY_S = 3.0  # a section begins where the caption says, give or take so much
DURATION_S = 1.0
ONLY_MEASURED = ("tempo", "sections", "form", "loudness", "duration")  # captions without facts claim nothing about them


# --- reading a caption -------------------------------------------------------------------------------------------------


def parse_caption(text: str) -> PromptFacts:
    """The claims of a caption as facts of a prompt, with the instruments, genres and moods that it names; total, whatever the text."""
    read: dict[str, list[ClaimValue]] = defaultdict(list)
    for reading in read_claims(text):
        if reading.judged and not reading.denied and not isinstance(reading.value, tuple):  # "fast" beside a number
            read[reading.kind].append(reading.value)
    said = {name: write(read[name]) for name, write in WRITTEN.items() if read[name]}
    said = {("form" if name == "sections" else name): value for name, value in said.items()}
    words = {"instruments": (INSTRUMENTS, " "), "genre": (GENRES, ", "), "mood": (MOOD_TAGS, ", ")}
    return said | {name: join.join(found) for name, (names, join) in words.items() if (found := _named(names, text))}


def _named(names: Collection[str], text: str) -> list[str]:
    return [name for name in names if re.search(rf"\b{re.escape(name)}\b", text.casefold())]


def _last(values: Sequence[ClaimValue]) -> str:
    return str(values[-1])


def _number(values: Sequence[ClaimValue]) -> str:
    return number(float(values[-1]))  # type: ignore[arg-type]


def _all(values: Sequence[ClaimValue]) -> str:
    return " ".join(dict.fromkeys(map(str, values)))


WRITTEN: Mapping[str, Callable[[Sequence[ClaimValue]], str]] = {
    "tempo": _number, "key": _last, "meter": _last, "chords": _all, "sections": _all, "loudness": _number, "duration": _number,
    "vocals": lambda values: "yes" if values[-1] else "no",
}  # fmt: skip
"""The kinds of claims that prompts give as facts, and how those write them."""


# --- facts that were given ---------------------------------------------------------------------------------------------

ALWAYS_DUE = ("tempo", "key")  # in a caption of any style; others are told where there is room


def faithful(text: str, facts: PromptFacts) -> dict[str, bool]:
    """Which given facts a caption says exactly, of those that it tells or must tell."""
    said = parse_caption(text)
    return {name: _same(name, said.get(name, ""), value) for name, value in facts.items() if name in said or name in ALWAYS_DUE}


def _same(name: str, claim: str, value: str) -> bool:
    """Whether a claim is what was given: of chords none that was not."""
    return bool(claim) and (set(claim.split()) <= set(value.split()) if name == "chords" else claim == value)


def hallucinated(text: str, facts: PromptFacts) -> bool:
    """Whether a caption contradicts a given fact or claims an unmeasured number."""
    said = parse_caption(text)
    contradicted = any(not _same(name, said[name], value) for name, value in facts.items() if name in said)
    return contradicted or any(name in said and name not in facts for name in ONLY_MEASURED)


@dataclass
class Faithfulness:
    """Random facts in captions of every style, with and without audio."""

    count: int
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(99))
    marks: list[dict[str, bool]] = field(default_factory=list)
    false: list[bool] = field(default_factory=list)

    def update(self, songs: SongBatch, items: Sequence[Item]) -> Update:
        """One caption for every excerpt, until there are enough."""
        jobs = []
        for index in range(min(songs.count, self.count - len(self.marks))):
            facts = random_facts(self.rng, float(self.rng.choice([0.5, 1.0]))) or random_facts(self.rng, 1.0)
            style = STYLES[(len(self.marks) + index) % len(STYLES)]
            order = list(FIELDS)
            self.rng.shuffle(order)
            jobs.append((facts, grounded_prompt(CAPTION_STYLES[style], ground_text(facts, order))))
        texts = yield questions(((index, question) for index, (_, question) in enumerate(jobs)), CAPTION_TOKENS)
        for (facts, _), text in zip(jobs, texts, strict=True):
            said = split_thinking(text).answer or ""
            self.marks.append(faithful(said, facts))
            self.false.append(hallucinated(said, facts))

    def scores(self, **where: Any) -> Iterator[Score]:
        """The figures."""
        if not self.marks:
            return
        rows = np.array([[sum(marks.values()), len(marks)] for marks in self.marks])
        yield bootstrap.resampled("facts copied exactly", rows, bootstrap.share, **where)
        for name in FIELDS:
            said = [float(marks[name]) for marks in self.marks if name in marks]
            if said:
                yield bootstrap.mean(f"facts copied: {name}", said, **where)
        yield bootstrap.mean("captions with every fact exact", [float(all(marks.values())) for marks in self.marks], **where)
        yield bootstrap.mean("captions with a claim that nobody gave", [float(false) for false in self.false], **where)


# --- claims ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClaimCounts:
    """Of one field of a caption: claims that are right, claims that can be checked, true things said, true things there are."""

    right: float = 0
    checked: float = 0
    said: float = 0
    true: float = 0


def check_claims(said: PromptFacts, item: Item, given: Collection[str]) -> dict[str, ClaimCounts]:
    """Counts of the claims of a caption; `given` facts of a recording come from the same estimators as its labels and prove nothing."""
    if not item.recording and "tonic" not in item.row:
        # Noise, or drums alone: key and chords are false claims, tempo and meter too where nothing beats
        names = ["key", "chords"] + [name for name in ("tempo", "meter") if name not in item.row]
        return {name: ClaimCounts(0, len(said[name].split()) if name == "chords" else 1) for name in names if name in said}
    found = {
        "tempo": _one(said.get("tempo"), ground_truth.tempo_truth(item), lambda claim, true: same_tempo(true, float(claim))),
        "key": _one(said.get("key"), ground_truth.key_truth(item), lambda claim, true: parsed_key(claim) == true),
        "meter": _one(said.get("meter"), item.clip_labels.get("meter"), lambda claim, true: claim == true),
        "vocals": _one(said.get("vocals"), item.clip_labels.get("vocals"), lambda claim, true: claim == true),
        "duration": _one(said.get("duration"), item.row.get("duration"), lambda claim, true: abs(float(claim) - true) <= DURATION_S),
        "chords": _chords(said.get("chords"), item),
        "form": _form(said.get("form"), item),
        "instruments": _instruments(said.get("instruments"), item),
        "genre": _names(said.get("genre"), item.clip_labels.get("genre"), item.clip_labels.get("not_genre"), strict=not item.recording),
        "mood": _names(said.get("mood"), item.clip_labels.get("mood"), None, strict=True),
    }
    return {name: verdict for name, verdict in found.items() if not (item.recording and (name in given or name == "duration"))}


def _fair(name: str, verdict: ClaimCounts, given: Collection[str]) -> ClaimCounts:
    """Without the recall of what only measurement could know and did not find."""
    return ClaimCounts(verdict.right, verdict.checked) if name in ONLY_MEASURED and name not in given else verdict


def _one(claim: str | None, true: Any, agree: Any) -> ClaimCounts:
    if true is None:
        return ClaimCounts()
    right = float(claim is not None and agree(claim, true))
    return ClaimCounts(right, float(claim is not None), right, 1.0)


def _triads(names: Sequence[str]) -> set[tuple[int, str]]:
    """Chords by root and third: major (""), minor ("m"), "dim"; sevenths and suspensions are not distinguished."""
    return {
        (root, "dim" if kind.startswith("dim") or kind == "m7b5" else "m" if re.match(r"m(?!aj)", kind) else "")
        for root, kind in chord_set(names)
    }


def _chords(claim: str | None, item: Item) -> ClaimCounts:
    rows = item.row.get("chords")
    if not rows:
        return ClaimCounts()
    sounding = [short_chord(harte(root, quality)) for start, end, root, quality in rows if start < item.end and end > item.start]
    there = _triads([name for name in sounding if name])
    main, said = _triads(item.clip_labels.get("chords", "").split()), _triads((claim or "").split())
    return ClaimCounts(len(said & there), len(said), len(said & main), len(main))


def _form(claim: str | None, item: Item) -> ClaimCounts:
    true = ground_truth.boundaries_truth(item)
    if true is None:
        return ClaimCounts()
    said = form_starts(claim or "")[1:]
    hits = sum(any(abs(at - t) <= BOUNDARY_S for t in true) for at in said)
    return ClaimCounts(hits, len(said), sum(any(abs(at - t) <= BOUNDARY_S for at in said) for t in true), len(true))


def form_starts(form: str) -> list[float]:
    """`A 0:00 B 0:32` -> [0, 32]."""
    times = re.findall(r"[0-9]+(?::[0-9]+)+", form)
    return [float(sum(int(part) * 60**power for power, part in enumerate(reversed(time.split(":"))))) for time in times]


def _instruments(claim: str | None, item: Item) -> ClaimCounts:
    known = ground_truth.families_truth(item)
    if known is None:
        return ClaimCounts()
    (present, absent), said = known, set(ground_truth.families_in(claim or ""))
    return ClaimCounts(len(said & present), len(said & (present | absent)), len(said & present), len(present))


def _names(claim: str | None, true: str | None, false: str | None, *, strict: bool) -> ClaimCounts:
    """Genres or moods; where `strict`, whatever is not true is false."""
    if not true:
        return ClaimCounts()
    yes, no, said = set(ground_truth.names_in(true)), set(ground_truth.names_in(false or "")), set(ground_truth.names_in(claim or ""))
    wrong = said - yes if strict else said & no
    return ClaimCounts(len(said & yes), len(said & yes) + len(wrong), len(said & yes), len(yes))


@dataclass
class Captions:
    """Captions written from audio, alone or with what `measure` really finds, and read back."""

    grounded: bool
    limit: int
    verdicts: list[dict[str, ClaimCounts]] = field(default_factory=list)
    facts: list[dict[str, ClaimCounts]] = field(default_factory=list)  # on what was measured itself: no caption can be truer
    forms: list[tuple[tuple[list[float], float], list[float]]] = field(default_factory=list)  # truth, claim

    def update(self, songs: SongBatch, items: Sequence[Item]) -> Update:
        """One caption for every item, until there are enough."""
        items = items[: max(self.limit - len(self.verdicts), 0)]
        facts = [(measured(item.clip), item.row["duration"]) if self.grounded else (None, None) for item in items]
        prompts = [CAPTION_STYLES[STYLES[item.row["index"] % len(STYLES)]] for item in items]
        asked = [(i, grounded_prompt(prompt, facts_text(*known))) for i, (prompt, known) in enumerate(zip(prompts, facts, strict=True))]
        texts = yield questions(asked, CAPTION_TOKENS)
        for item, known, text in zip(items, facts, texts, strict=True):
            said = parse_caption(split_thinking(text).answer or "")
            given = phrase_facts(fact_phrases(*known))
            if self.grounded and not item.recording:
                self.facts.append({name: _fair(name, verdict, given) for name, verdict in check_claims(given, item, given).items()})
            self.verdicts.append({name: _fair(name, verdict, given) for name, verdict in check_claims(said, item, given).items()})
        if self.grounded:
            yield from self._ask_forms(items, facts)

    def _ask_forms(self, items: Sequence[Item], facts: Sequence[tuple[Any, Any]]) -> Update:
        """Ask for the sections, which captions do not mention."""
        known = {i: true for i, item in enumerate(items) if (true := ground_truth.form_truth(item))}
        texts = yield questions(((i, grounded_prompt(FORM_QUESTION, facts_text(*facts[i], least=0.0))) for i in known), CAPTION_TOKENS)
        self.forms += zip(known.values(), (form_starts(text)[1:] for text in texts), strict=True)

    def scores(self, **where: Any) -> Iterator[Score]:
        """The figures."""
        if not self.verdicts:
            return
        name = "captions with measured facts" if self.grounded else "captions by ear"
        yield from claim_scores(name, self.verdicts, **where)
        if self.facts:
            yield from claim_scores(name, self.facts, **{**where, "system": "measure"})
        yield from bootstrap.scored(section_scores, "sections, asked for with measured facts", self.forms, **where)


def phrase_facts(phrases: Sequence[str]) -> PromptFacts:
    """The phrases of a grounded prompt as facts: `tempo 87.5 BPM` -> {"tempo": "87.5"}."""
    pairs = (phrase.split(" ", 1) for phrase in phrases)
    return {name: re.sub(r" (?:BPM|LUFS|s)$", "", value) for name, value in pairs}


def claim_scores(name: str, verdicts: Sequence[dict[str, ClaimCounts]], **where: Any) -> Iterator[Score]:
    """Precision and recall of all claims, then field by field."""
    fields = sorted({field for found in verdicts for field in found})
    table = np.array([[list(vars(found.get(f, ClaimCounts())).values()) for f in fields] for found in verdicts], dtype=float)
    total = table.sum(axis=1)  # (captions, 4)
    yield bootstrap.resampled(f"{name}, precision", total[:, :2], bootstrap.share, **where)
    yield bootstrap.resampled(f"{name}, recall", total[:, 2:], bootstrap.share, **where)
    for index, field_name in enumerate(fields):
        for kind, columns in (("precision", table[:, index, :2]), ("recall", table[:, index, 2:])):
            known = columns[columns[:, 1] > 0]
            if len(known):
                yield bootstrap.resampled(f"{name}, {kind}: {field_name}", known, bootstrap.share, **where)


# --- what cannot be known ------------------------------------------------------------------------------------------------


@dataclass
class Unknown:
    """Questions that sound cannot answer."""

    questions: Sequence[str]
    admitted: list[float] = field(default_factory=list)

    def update(self, songs: SongBatch, items: Sequence[Item]) -> Update:
        """One question to every item."""
        asked = [(i, self.questions[item.row["index"] % len(self.questions)]) for i, item in enumerate(items)]
        texts = yield questions(asked, 60)
        self.admitted += [float(is_unknown(text)) for text in texts]

    def scores(self, **where: Any) -> Iterator[Score]:
        """The figure."""
        yield bootstrap.mean("unanswerable questions admitted", self.admitted, **where)


NOISE_S, NOISE_EACH = 20.0, 8


def noises(seconds: float = NOISE_S, each: int = NOISE_EACH) -> list[np.ndarray]:
    """Sounds without key, chords or beat: white, pink and brown noise, noise bursts, hum of one tone, crackle; (n,) float32 each."""
    rng, count = np.random.default_rng(7), int(seconds * SAMPLE_RATE)
    steps = np.arange(count) / SAMPLE_RATE

    def coloured(power: float) -> np.ndarray:
        spectrum = np.fft.rfft(rng.normal(size=count)) / np.maximum(np.arange(count // 2 + 1), 20) ** power
        return np.fft.irfft(spectrum, count)

    makers = (
        lambda: coloured(0.0),
        lambda: coloured(0.5),
        lambda: coloured(1.0),
        lambda: coloured(0.3) * (np.convolve(rng.random(count // 800 + 1) < 0.04, np.ones(4), "same") > 0).repeat(800)[:count],
        lambda: np.sin(2 * np.pi * rng.uniform(40, 400) * steps) + 0.02 * coloured(0.0),
        lambda: (rng.random(count) < 2e-4) * rng.normal(size=count),
    )
    sounds = [make() for make in makers for _ in range(each)]
    return [(0.2 * sound / (np.abs(sound).max() + 1e-9)).astype(np.float32) for sound in sounds]


@dataclass
class Noise:
    """What is claimed of sounds in which there is nothing to claim: noises made here, or clips without harmony."""

    marks: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def update(self, songs: SongBatch, items: Sequence[Item]) -> Update:
        """Ask for key, chords and a caption of every sound that has neither key nor chords."""
        silent = [i for i, item in enumerate(items) if not item.recording and "tonic" not in item.row]
        every = silent if items else range(songs.count)
        keys = yield questions(((i, TASKS["key"].prompt) for i in every), 24)
        chords = yield questions(((i, TASKS["chords"].prompt) for i in every), 40)
        captions = yield questions(((i, CAPTION_STYLES["full"]) for i in every), CAPTION_TOKENS)
        self.marks["no key named"] += [float(parsed_key(text) is None) for text in keys]
        self.marks["no chords named"] += [float(not parse_chords(text)) for text in chords]
        self.marks["no key or chords in a caption"] += [float(not {"key", "chords"} & set(parse_caption(text))) for text in captions]

    def scores(self, **where: Any) -> Iterator[Score]:
        """The figures."""
        yield from (bootstrap.mean(f"noise: {name}", marks, **where) for name, marks in self.marks.items())
