"""Answers: the words, the answer and the rationale of a kind of question, drawn; what nothing supports is not answered.

Kinds of `YES_NO` are answered "Yes." and "No." equally often, the wrong values lying near the true ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mflamingo_cli.measure.facts import Key, pitch_class
from mflamingo_cli.train.mini.dialogue.captions import listed, pace, slots, spoken_list
from mflamingo_cli.train.mini.dialogue.prompt_facts import LABEL_FIELDS, PromptFacts, form_items, random_chord
from mflamingo_cli.train.mini.dialogue.questions import CHOICE, COUNTED, ORDINALS, PLURALS, QUESTIONS, SPOKEN_INSTRUMENT, YES_NO

CANNOT = "I cannot tell that from the sound."
YES, NO = "Yes.", "No."
VOCALS = {"yes": YES, "no": "No, it is instrumental."}


@dataclass(frozen=True)
class Exchange:
    """A question with its answer and the reasoning that leads to it."""

    question: str
    answer: str
    rationale: str


Maker = Callable[[np.random.Generator, PromptFacts, PromptFacts | None], Exchange | None]


def pick(rng: np.random.Generator, texts: Sequence[str]) -> str:
    """The first half of the time (the command line's own words), else any."""
    return texts[0] if rng.random() < 0.5 else texts[rng.integers(len(texts))]


def value_of(field: str, facts: PromptFacts, labels: PromptFacts | None) -> str | None:
    """What is known of a field: facts of the prompt come before clip labels."""
    return facts.get(field) or (labels or {}).get(field)


def undecided(field: str, facts: PromptFacts, labels: PromptFacts | None) -> bool:
    """Whether a field could be answered from sound but this clip has no label for it: then it is not asked."""
    return field in LABEL_FIELDS and bool(labels) and value_of(field, facts, labels) is None


# --- reasoning ----------------------------------------------------------------------------------------------------------

MEASURED = {  # how a given fact is recalled
    "tempo": ("The tempo was measured: {tempo} BPM.", "A tempo of {tempo} BPM was measured."),
    "key": ("The key was measured: {key}.", "The measured key is {key}."),
    "meter": ("The meter was measured: {meter}.", "The measured meter is {meter}."),
    "chord": ("The chord was measured: {chords}.", "The measured chord is {chords}."),
    "chords": ("The chords were measured: {chords}.", "The measured chords are {chords}."),
    "sections": ("The sections were counted: {sections}.", "The number of sections was measured: {sections}."),
    "form": ("The sections and their times were measured.", "I list the sections that were measured."),
    "loudness": ("The loudness was measured: {loudness} LUFS.", "A loudness of {loudness} LUFS was measured."),
    "duration": ("The duration was measured: {duration} s.", "It lasts {duration} s, as was measured."),
}
LISTENED = {  # how a label is come by
    "key": ("The notes settle around {tonic}, and the third above it is {mode}.", "{tonic} feels like home, and its third is {mode}."),
    "chord": ("I follow the bass and the notes above it: {chords}.", "Bass and harmony stay on {chords}."),
    "chords": ("I follow the bass and the notes above it: {chords}.", "Bass and harmony move through {chords}."),
    "instruments": ("I listen to one sound after another: {instruments}.", "The sounds I can tell apart are {instruments}."),
    "genre": ("The beat and the sound point to {genre}.", "Rhythm and instruments are those of {genre}."),
    "mood": ("The way it moves and sounds feels {mood}.", "Its pace and colour feel {mood}."),
}
BEATS = {"4/4": "The beats come in fours.", "3/4": "The beats come in threes.", "6/8": "The beats come in pairs, each split in three."}
VOICE = {"yes": "I listen for a voice and hear one.", "no": "I listen for a voice and hear none."}
NOT_KNOWN = "The sound does not tell me this, and nothing was measured about it."


def rationale(rng: np.random.Generator, field: str, facts: PromptFacts, labels: PromptFacts | None) -> str:
    """Where the knowledge of a field comes from, in one sentence."""
    value = value_of(field, facts, labels)
    if value is None:
        return NOT_KNOWN
    words = "chord" if field == "chords" and " " not in value else field
    if field in facts:
        return str(rng.choice(MEASURED[words])).format(**slots({field: value}))
    if field == "meter":
        return BEATS.get(value, f"The bars count as {value}.")
    if field == "vocals":
        return VOICE[value]
    extra = dict(zip(("tonic", "mode"), value.split(), strict=True)) if field == "key" else {}
    return str(rng.choice(LISTENED[words])).format(**slots({field: value}), **extra)


# --- plain questions ------------------------------------------------------------------------------------------------------


def answer(intent: str, facts: PromptFacts, labels: PromptFacts | None = None) -> str:
    """The short answer to a plain question, as the parsers of `tasks` read it; CANNOT where nothing is known."""
    if intent in ("mode", "first_chord"):
        known = value_of("key" if intent == "mode" else "chords", facts, labels)
        return CANNOT if known is None else known.split()[-1 if intent == "mode" else 0]
    value = value_of(intent, facts, labels)
    if value is None:
        return CANNOT
    if intent in ("form", "instruments"):
        return ", ".join(listed(intent, value))
    forms = {"chords": " - ".join(value.split()), "loudness": f"{value} LUFS", "duration": f"{value} s", "vocals": VOCALS.get(value, "")}
    return forms.get(intent, value)


def plain(rng: np.random.Generator, intent: str, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """A question for one field."""
    field = {"mode": "key", "first_chord": "chords"}.get(intent, intent)
    if undecided(field, facts, labels):
        return None
    return Exchange(pick(rng, QUESTIONS[intent]), answer(intent, facts, labels), rationale(rng, field, facts, labels))


def worded(rng: np.random.Generator, intent: str, **values: str) -> str:
    """A question of a kind with its slots filled."""
    table = QUESTIONS if intent in QUESTIONS else YES_NO
    return pick(rng, table[intent]).format(**values)


def unanswered(question: str) -> Exchange:
    """A question that neither prompt nor audio answers."""
    return Exchange(question, CANNOT, NOT_KNOWN)


ASKED_METERS = ("4/4", "3/4", "6/8")  # those that are asked about from sound
USUAL = {  # share of excerpts with an instrument: a rare one is asked for rather where it is, a common one where it is not
    "piano": 0.3, "mallets": 0.13, "organ": 0.2, "guitar": 0.28, "bass": 0.53, "strings": 0.23, "choir": 0.12, "brass": 0.2, "sax": 0.08,
    "woodwind": 0.06, "synth": 0.2, "drums": 0.5,
}  # fmt: skip
NEITHER = 0.7  # of tempi that are slow or fast, when asked for the other: moderate ones are answered no as well
SUNG_ASKED = 0.2  # of clips without a voice, when asked for one: voices are the rarer
FORMS_OF_GENRE = {"waltz": "a waltz", "march": "a march", "ballad": "a ballad"}

# --- counts, sections, comparisons --------------------------------------------------------------------------------------


def chord_count(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """How many chords are given; not asked about the sound."""
    if "chords" not in facts:
        return None if labels else unanswered(worded(rng, "chord_count"))
    count = len(facts["chords"].split())
    return Exchange(worded(rng, "chord_count"), str(count), rationale(rng, "chords", facts, None))


def nth_section(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange:
    """When a section starts, by its number or from the end; one too many is refused by the count."""
    items = form_items(facts["form"]) if "form" in facts else []
    index = int(rng.integers(min(len(items) + 1, len(ORDINALS)) if items and rng.random() < 0.97 else len(ORDINALS)))
    word = "last" if rng.random() < 0.15 else ORDINALS[index]
    question = worded(rng, "nth_section", nth=word)
    if not items:
        return unanswered(question)
    if word != "last" and index >= len(items):
        reason = f"The sections were measured; the last one is number {len(items)}."
        return Exchange(question, f"It has only {len(items)} sections.", reason)
    letter, start = items[-1 if word == "last" else index]
    return Exchange(question, f"At {start}.", f"The sections were measured; the {word} one is {letter} ({start}).")


def _of_letter(kind: str, answer: Callable[[list[str]], str]) -> Maker:
    """A question about the sections of one letter, one in ten of a letter that is not there; the answer follows from their starts."""

    def make(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange:
        items = form_items(facts["form"]) if "form" in facts else []
        names = [name for name, _ in items] or list("ABC")
        letter = chr(ord(max(names)) + 1) if rng.random() < 0.1 else str(rng.choice(names))
        starts, question = [start for name, start in items if name == letter], worded(rng, kind, letter=letter)
        if "form" not in facts:
            return unanswered(question)
        return Exchange(question, answer(starts) if starts else f"There is no section {letter}.", _where(letter, starts))

    return make


def _where(letter: str, starts: list[str]) -> str:
    return f"The sections were measured; {f'{letter} starts at {spoken_list(starts)}' if starts else f'none of them is {letter}'}."


def louder(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """Which of two instruments is louder, where one clearly is; without music any two are asked for."""
    if labels:
        if "louder" not in labels:
            return None
        winner, other = labels["louder"].split()
    else:
        winner, other = (str(name) for name in rng.choice(list(SPOKEN_INSTRUMENT), 2, replace=False))
    first, second = (winner, other) if rng.random() < 0.5 else (other, winner)
    question = worded(rng, "louder", a=first, b=second)
    return Exchange(question, winner, f"Of {first} and {second}, {winner} stands in front.") if labels else unanswered(question)


def tempo_than(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange:
    """Whether the tempo is above or below a round number near it."""
    up = rng.random() < 0.5
    bound = _bound(rng, facts.get("tempo"), up)
    question = worded(rng, "tempo_than", bpm=bound)
    if "tempo" not in facts:
        return unanswered(question)
    word = "faster" if up else "slower"
    return Exchange(question, word, f"{rationale(rng, 'tempo', facts, None)} That is {word} than {bound}.")


def _bound(rng: np.random.Generator, tempo: str | None, below: bool) -> str:
    """A round number of beats per minute below or above a tempo, mostly near it."""
    bpm = float(tempo or rng.integers(50, 200))
    step = int(min(rng.geometric(0.45), 6)) - 1
    bound = (int(np.ceil(bpm / 10)) - 1 - step) * 10 if below else (int(bpm // 10) + 1 + step) * 10
    return str(max(bound, 10))


# --- yes or no ------------------------------------------------------------------------------------------------------------


def _judged(question: str, want: bool, reason: str) -> Exchange:
    return Exchange(question, YES if want else NO, reason)


def is_mode(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """Major, or minor."""
    key, want = value_of("key", facts, labels), rng.random() < 0.5
    if undecided("key", facts, labels):
        return None
    mode = key.split()[-1] if key else "minor"
    asked = mode if want else {"major": "minor", "minor": "major"}[mode]
    question = worded(rng, "is_mode", mode=asked)
    return _judged(question, want, rationale(rng, "key", facts, labels)) if key else unanswered(question)


def near_key(rng: np.random.Generator, name: str) -> str:
    """Another key that is easily taken for this one: relative, parallel, a fifth away, a semitone away."""
    tonic, mode = name.split()
    own, other = ("minor", "major") if mode == "minor" else ("major", "minor")
    pitch = pitch_class(tonic)
    near = [(pitch + (3 if own == "minor" else 9), other), (pitch, other), (pitch + 5, own), (pitch + 7, own), (pitch + 11, own)]
    at = int(rng.choice(len(near), p=[0.3, 0.15, 0.22, 0.22, 0.11]))
    return Key.of(near[at][0], near[at][1]).name


def is_key(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """A key by its name."""
    key, want = value_of("key", facts, labels), rng.random() < 0.5
    if undecided("key", facts, labels):
        return None
    asked = near_key(rng, key or Key.of(int(rng.integers(12)), "minor").name) if key is None or not want else key
    question = worded(rng, "is_key", key=asked)
    if key is None:
        return unanswered(question)
    conclusion = f" That is not {asked}." if not want else "" if "key" in facts else f" That is {asked}."
    return _judged(question, want, rationale(rng, "key", facts, labels) + conclusion)


def is_meter(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """A meter; the common one is asked about less."""
    meter, want = value_of("meter", facts, labels), rng.random() < 0.5
    if undecided("meter", facts, labels) or (meter == "4/4" and rng.random() < 0.4):
        return None
    others = [name for name in ASKED_METERS if name != meter]
    asked = meter if want and meter else str(rng.choice(others))
    question = worded(rng, "is_meter", meter=asked)
    if meter is None:
        return unanswered(question)
    return _judged(question, want, rationale(rng, "meter", facts, labels))


def is_tempo(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange:
    """Above or below a round number near it."""
    want, above = rng.random() < 0.5, rng.random() < 0.5
    bound = _bound(rng, facts.get("tempo"), below=want == above)
    question = worded(rng, "is_above" if above else "is_below", bpm=bound)
    if "tempo" not in facts:
        return unanswered(question)
    side = "above" if want == above else "below"
    return _judged(question, want, f"{rationale(rng, 'tempo', facts, None)} That is {side} {bound}.")


def is_pace(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """Slow or fast; a moderate tempo is neither."""
    want = rng.random() < 0.5
    word = pace(facts["tempo"]) if "tempo" in facts else None
    if word and (want if word == "moderate" else not want and rng.random() > NEITHER):
        return None
    asked = word if want and word else str(rng.choice([name for name in ("slow", "fast") if name != word]))
    question = worded(rng, "is_pace", pace=asked)
    return _judged(question, want, f"{rationale(rng, 'tempo', facts, None)} That is {word}.") if word else unanswered(question)


def is_long(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange:
    """Longer or shorter than some minutes near its duration."""
    want, seconds = rng.random() < 0.5, int(facts.get("duration", 200))
    fitting = [
        (n, longer) for n in range(1, 11) for longer in (True, False) if seconds != 60 * n and (seconds > 60 * n) is (longer == want)
    ]
    fitting.sort(key=lambda item: abs(seconds - 60 * item[0]))
    number, longer = fitting[min(int(rng.geometric(0.3)) - 1, len(fitting) - 1)]
    minutes = f"{COUNTED[number - 1]} minute{'s' if number > 1 else ''}"
    question = worded(rng, "is_longer" if longer else "is_shorter", minutes=minutes)
    if "duration" not in facts:
        return unanswered(question)
    reason = f"{minutes.capitalize()} {'are' if number > 1 else 'is'} {60 * number} s."
    return _judged(question, want, f"{rationale(rng, 'duration', facts, None)} {reason}")


def is_louder(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange:
    """Louder than a whole number near its loudness."""
    want, lufs = rng.random() < 0.5, float(facts.get("loudness", "-12.5"))
    step = int(min(rng.geometric(0.35), 8))
    bound = int(np.ceil(lufs)) - step if want else int(np.floor(lufs)) + step
    question = worded(rng, "is_louder", lufs=str(bound))
    if "loudness" not in facts:
        return unanswered(question)
    side = "louder" if want else "quieter"
    return _judged(question, want, f"{rationale(rng, 'loudness', facts, None)} That is {side} than {bound}.")


def has_chord(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """A chord among those given, or one like them; not asked about the sound."""
    names, want = facts.get("chords", "").split(), rng.random() < 0.5
    if not names:
        return None if labels else unanswered(worded(rng, "has_chord", chord=random_chord(rng)))
    asked = str(rng.choice(names))
    while not want and asked in names:
        asked = _near_chord(rng, asked)
    question = worded(rng, "has_chord", chord=asked)
    conclusion = f"{asked} is {'one of them' if want else 'not among them'}."
    return _judged(question, want, f"{rationale(rng, 'chords', facts, None)} {conclusion}")


def _near_chord(rng: np.random.Generator, name: str) -> str:
    root = name[:2] if name[1:2] in ("#", "b") else name[:1]
    fresh = random_chord(rng)
    return fresh if rng.random() < 0.4 else root + fresh.lstrip("ABCDEFG").lstrip("#").removeprefix("b")


def comes_back(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """A section that is played again, or not."""
    names = [name for name, _ in form_items(facts["form"])] if "form" in facts else []
    want = rng.random() < 0.5
    if not names:
        return unanswered(worded(rng, "comes_back", letter=str(rng.choice(list("ABC")))))
    again = sorted({name for name in names if names.count(name) > 1})
    once = sorted({name for name in names if names.count(name) == 1})
    if not again or not once:
        return None
    asked = str(rng.choice(again if want else once))
    starts = [start for name, start in form_items(facts["form"]) if name == asked]
    return _judged(worded(rng, "comes_back", letter=asked), want, _where(asked, starts))


def has_instrument(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """An instrument that is surely there, or surely not."""
    want = rng.random() < 0.5
    if labels:
        names = labels.get("instruments" if want else "absent", "").split()
        if not names or not labels.get("absent" if want else "instruments"):
            return None
        weights = np.array([1 - USUAL[name] if want else USUAL[name] for name in names])
        asked = str(rng.choice(names, p=weights / weights.sum()))
    else:
        asked = str(rng.choice(list(SPOKEN_INSTRUMENT)))
    spoken = SPOKEN_INSTRUMENT[asked]
    question = worded(rng, "has_instrument", is_there=f"{'Are' if asked in PLURALS else 'Is'} there {spoken}", a=spoken)
    if not labels:
        return unanswered(question)
    return _judged(question, want, f"I listen for {spoken} and hear {'that sound' if want else 'nothing like it'}.")


def is_genre(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """A genre that it surely is, or surely is not."""
    want = rng.random() < 0.5
    if labels and not (labels.get("genre") and labels.get("not_genre")):
        return None
    source = labels["genre" if want else "not_genre"] if labels else "jazz, rock, pop, classical, electronic, waltz"
    asked = str(rng.choice(source.split(", ")))
    question = worded(rng, "is_genre", genre=FORMS_OF_GENRE.get(asked, asked), name=asked)
    return _judged(question, want, rationale(rng, "genre", {}, labels)) if labels else unanswered(question)


def is_vocal(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """Sung, or instrumental."""
    sung, ask_sung = value_of("vocals", {}, labels), rng.random() < 0.65
    if undecided("vocals", {}, labels) or (sung == "no" and rng.random() > SUNG_ASKED):
        return None
    question = worded(rng, "is_sung" if ask_sung else "is_instrumental")
    return _judged(question, (sung == "yes") == ask_sung, rationale(rng, "vocals", {}, labels)) if sung else unanswered(question)


# --- multiple choice ------------------------------------------------------------------------------------------------------


def choice(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """One of up to four options, one of them right."""
    field = str(rng.choice(["key", "meter", "tempo", "genre", "chords"]))
    value = value_of(field, facts, labels)
    if undecided(field, facts, labels) or (field == "genre" and labels and not labels.get("not_genre")):
        return None
    wrong = _options(rng, field, value, labels)[: int(rng.integers(1, 4)) + (value is None)]
    right = value.split(", ")[0] if value and field == "genre" else value
    options = [*wrong] if right is None else [right, *wrong]
    if field == "chords":
        options = [" - ".join(option.split()) for option in options]
    order = rng.permutation(len(options))
    marked = [f"({chr(65 + at)}) {options[index]}" for at, index in enumerate(order)]
    question = CHOICE.format(question=worded(rng, field), options="\n".join(marked))
    if right is None:
        return unanswered(question)
    return Exchange(question, marked[list(order).index(0)], rationale(rng, field, facts, labels))


def _options(rng: np.random.Generator, field: str, value: str | None, labels: PromptFacts | None) -> list[str]:
    """Three wrong options for a field."""
    if field == "genre":
        known = (labels or {}).get("not_genre", "jazz, rock, folk, latin").split(", ")
        return [str(name) for name in rng.permutation(known)[:3]]
    draw: dict[str, Callable[[], str]] = {
        "key": lambda: near_key(rng, value or "C major"),
        "meter": lambda: str(rng.choice(["4/4", "3/4", "6/8", "5/4", "2/4"] if "meter" not in (labels or {}) else ASKED_METERS)),
        "tempo": lambda: _bound(rng, value, bool(rng.random() < 0.5)),
        "chords": lambda: " ".join(_near_chord(rng, name) for name in (value or "C G Am").split()),
    }
    found: dict[str, None] = {}
    for _ in range(12):
        if (option := draw[field]()) != value:
            found[option] = None
    return list(found)[:3]


MAKERS: dict[str, Maker] = {
    "chord_count": chord_count, "nth_section": nth_section, "louder": louder,
    "section_start": _of_letter("section_start", lambda starts: f"At {spoken_list(starts)}."),
    "section_count": _of_letter("section_count", lambda starts: f"{len(starts)} times" if len(starts) > 1 else "once"),
    "tempo_than": tempo_than, "is_mode": is_mode, "is_key": is_key, "is_meter": is_meter, "is_tempo": is_tempo,
    "is_pace": is_pace, "is_long": is_long, "is_louder": is_louder, "has_chord": has_chord, "comes_back": comes_back,
    "has_instrument": has_instrument, "is_genre": is_genre, "is_vocal": is_vocal, "choice": choice,
}  # fmt: skip


def exchange(rng: np.random.Generator, kind: str, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """An exchange of a kind (of MAKERS, or a plain question), or None where this music cannot be asked."""
    return MAKERS[kind](rng, facts, labels) if kind in MAKERS else plain(rng, kind, facts, labels)
