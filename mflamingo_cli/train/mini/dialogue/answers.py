"""Questions of every kind, drawn, with the answer that the program itself gives to these facts, and the reasoning that leads to it.

Where facts decide, the answer is `questions.reply` and the reasoning `reasoning.reason`: the model learns the words that the program says.
What only the sound tells (instruments, genre, mood, which is louder) is answered by labels here. What nothing supports is not answered.
Questions for yes or no are true and false equally often, the wrong values lying near the true ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mflamingo_cli.grounding import NO_ANSWER
from mflamingo_cli.grounding.prose.slots import FAST_BPM, LOUD_LUFS, QUIET_LUFS, SLOW_BPM
from mflamingo_cli.grounding.questions import reply
from mflamingo_cli.grounding.reasoning import reason
from mflamingo_cli.measure.facts import Key, pitch_class
from mflamingo_cli.text import clock
from mflamingo_cli.train.mini.dialogue.prompt_facts import LABEL_FIELDS, PromptFacts, as_known, form_items, random_chord
from mflamingo_cli.train.mini.dialogue.questions import CHOICE, COUNTED, ORDINALS, PLURALS, QUESTIONS, SPOKEN_INSTRUMENT, YES_NO

YES, NO = "Yes", "No"  # how an answer to such a question begins


@dataclass(frozen=True)
class Exchange:
    """A question with its answer and the reasoning that leads to it."""

    question: str
    answer: str
    rationale: str


Maker = Callable[[np.random.Generator, PromptFacts, PromptFacts | None], Exchange | None]
Asker = Callable[[np.random.Generator, PromptFacts], str | None]


def pick(rng: np.random.Generator, texts: Sequence[str]) -> str:
    """The first half of the time (the command line's own words), else any."""
    return texts[0] if rng.random() < 0.5 else texts[rng.integers(len(texts))]


def worded(rng: np.random.Generator, kind: str, **values: str) -> str:
    """A question of a kind with its slots filled."""
    return pick(rng, (QUESTIONS if kind in QUESTIONS else YES_NO)[kind]).format(**values)


def value_of(field: str, facts: PromptFacts, labels: PromptFacts | None) -> str | None:
    """What is known of a field: facts of the prompt come before clip labels."""
    return facts.get(field) or (labels or {}).get(field)


NOT_KNOWN = "The sound does not tell me this, and nothing was measured about it."


def unanswered(question: str) -> Exchange:
    """A question that neither prompt nor audio answers."""
    return Exchange(question, NO_ANSWER, NOT_KNOWN)


# --- questions that facts decide: only their words are drawn here -----------------------------------------------------------

LISTENED = {  # the reasoning where a label is known and no fact
    "key": ("The notes settle around {tonic}, and the third above it is {mode}.", "{tonic} feels like home, and its third is {mode}."),
    "chords": ("I follow the bass and the notes above it: {value}.", "Bass and harmony move through {value}."),
    "instruments": ("I listen to one sound after another: {value}.", "The sounds I can tell apart are {value}."),
    "genre": ("The beat and the sound point to {value}.", "Rhythm and instruments are those of {value}."),
    "mood": ("The way it moves and sounds feels {value}.", "Its pace and colour feel {value}."),
    "meter": ("The bars count as {value}.", "I count the beats, and the bars are {value}."),
    "vocals": ("I listen for a voice.",),
}


def listened(rng: np.random.Generator, field: str, value: str) -> str:
    """How a label is come by, in one sentence."""
    extra = dict(zip(("tonic", "mode"), value.split(), strict=True)) if field == "key" else {}
    return str(rng.choice(LISTENED[field])).format(value=value, **extra)


def told(rng: np.random.Generator, question: str, field: str, facts: PromptFacts, labels: PromptFacts | None) -> Exchange:
    """The exchange about a question that a field decides."""
    if value_of(field, facts, labels) is None:
        return unanswered(question)
    by_ear = field not in facts
    given = {name: value for name, value in facts.items() if field != "chords" or name == field}  # as they are spelled, whatever the key
    known = as_known(given, labels)
    said = reply(question, known)
    if not said.answers:
        return unanswered(question)
    if by_ear and labels:
        return Exchange(question, said.text, listened(rng, field, labels[field]))
    answer = _in_seconds(said.text, facts) if field == "duration" else said.text
    return Exchange(question, answer, _in_seconds(reason(question, known), facts))


def _in_seconds(text: str, facts: PromptFacts) -> str:
    """A text whose duration is written as prompts give it."""
    if "duration" not in facts:
        return text
    return text.replace(f" {clock(int(facts['duration']))}", f" {facts['duration']} s", 1)


def undecided(field: str, facts: PromptFacts, labels: PromptFacts | None) -> bool:
    """Whether a field could be answered from sound but this clip has no label for it: then it is not asked."""
    return field in LABEL_FIELDS and bool(labels) and value_of(field, facts, labels) is None


def _asking(field: str, ask: Asker, heard: bool = True) -> Maker:
    """Exchanges about a field: questions that `ask` draws from what is known of it; by ear only where `heard`."""

    def make(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
        if undecided(field, facts, labels) or (field not in facts and labels and not heard):
            return None
        known = facts | ({field: labels[field]} if heard and labels and field in labels and field not in facts else {})
        question = ask(rng, known)
        return None if question is None else told(rng, question, field, facts, labels)

    return make


def _plain(kind: str) -> Asker:
    return lambda rng, known: worded(rng, kind)


def _bound(rng: np.random.Generator, tempo: str | None, below: bool) -> str:
    """A round number of beats per minute below or above a tempo, mostly near it."""
    bpm = float(tempo or rng.integers(50, 200))
    step = int(min(rng.geometric(0.45), 6)) - 1
    bound = (int(np.ceil(bpm / 10)) - 1 - step) * 10 if below else (int(bpm // 10) + 1 + step) * 10
    return str(min(max(bound, 10), 999))


def _tempo_than(rng: np.random.Generator, known: PromptFacts) -> str:
    return worded(rng, "tempo_than", bpm=_bound(rng, known.get("tempo"), bool(rng.random() < 0.5)))


def _is_tempo(rng: np.random.Generator, known: PromptFacts) -> str:
    want, above = rng.random() < 0.5, rng.random() < 0.5
    return worded(rng, "is_above" if above else "is_below", bpm=_bound(rng, known.get("tempo"), below=bool(want == above)))


NEITHER = 0.7  # of tempi that are slow or fast, when asked for the other: moderate ones are answered no as well


def pace(tempo: str) -> str:
    """Slow, moderate or fast."""
    bpm = float(tempo)
    return "slow" if bpm < SLOW_BPM else "fast" if bpm >= FAST_BPM else "moderate"


def _is_pace(rng: np.random.Generator, known: PromptFacts) -> str | None:
    want = rng.random() < 0.5
    word = pace(known["tempo"]) if "tempo" in known else None
    if word and (want if word == "moderate" else not want and rng.random() > NEITHER):
        return None
    asked = word if want and word else str(rng.choice([name for name in ("slow", "fast") if name != word]))
    return worded(rng, "is_pace", pace=asked)


def _is_mode(rng: np.random.Generator, known: PromptFacts) -> str:
    mode = known["key"].split()[-1] if "key" in known else "minor"
    return worded(rng, "is_mode", mode=mode if rng.random() < 0.5 else {"major": "minor", "minor": "major"}[mode])


def near_key(rng: np.random.Generator, name: str) -> str:
    """Another key that is easily taken for this one: relative, parallel, a fifth away, a semitone away."""
    tonic, mode = name.split()
    own, other = ("minor", "major") if mode == "minor" else ("major", "minor")
    pitch = pitch_class(tonic)
    near = [(pitch + (3 if own == "minor" else 9), other), (pitch, other), (pitch + 5, own), (pitch + 7, own), (pitch + 11, own)]
    at = int(rng.choice(len(near), p=[0.3, 0.15, 0.22, 0.22, 0.11]))
    return Key.of(near[at][0], near[at][1]).name


def _is_key(rng: np.random.Generator, known: PromptFacts) -> str:
    key = known.get("key", Key.of(int(rng.integers(12)), "minor").name)
    return worded(rng, "is_key", key=key if rng.random() < 0.5 else near_key(rng, key))


ASKED_METERS = ("4/4", "3/4", "6/8")  # those that are asked about from sound


def _is_meter(rng: np.random.Generator, known: PromptFacts) -> str | None:
    meter = known.get("meter")
    if meter == "4/4" and rng.random() < 0.4:
        return None  # the common one is asked about less
    others = [name for name in ASKED_METERS if name != meter]
    return worded(rng, "is_meter", meter=meter if meter and rng.random() < 0.5 else str(rng.choice(others)))


def _is_long(rng: np.random.Generator, known: PromptFacts) -> str:
    """Longer or shorter than some minutes near its duration."""
    want, seconds = bool(rng.random() < 0.5), int(known.get("duration", 200))
    bounds = [n for n in range(1, 11) if seconds != 60 * n]
    fitting = [(n, longer) for n in bounds for longer in (True, False) if (seconds > 60 * n) is (longer == want)]
    fitting.sort(key=lambda item: abs(seconds - 60 * item[0]))
    number, longer = fitting[min(int(rng.geometric(0.3)) - 1, len(fitting) - 1)]
    return worded(rng, "is_longer" if longer else "is_shorter", minutes=f"{COUNTED[number - 1]} minute{'s' if number > 1 else ''}")


def _is_louder(rng: np.random.Generator, known: PromptFacts) -> str | None:
    want, lufs = rng.random() < 0.5, float(known.get("loudness", "-12.5"))
    step = int(min(rng.geometric(0.35), 8))
    bound = int(np.ceil(lufs)) - step if want else int(np.floor(lufs)) + step
    return worded(rng, "is_louder", lufs=str(bound)) if bound < 0 else None  # levels are read as below full scale


def _is_loud(rng: np.random.Generator, known: PromptFacts) -> str | None:
    lufs = float(known.get("loudness", LOUD_LUFS))
    return None if QUIET_LUFS <= lufs < LOUD_LUFS else worded(rng, "is_loud", volume=str(rng.choice(["loud", "quiet"])))


def _nth_section(rng: np.random.Generator, known: PromptFacts) -> str:
    """A section by its number or from the end; one too many now and then."""
    count = len(form_items(known["form"])) if "form" in known else 4
    index = int(rng.integers(min(count + 1, len(ORDINALS))))
    return worded(rng, "nth_section", nth="last" if rng.random() < 0.15 else ORDINALS[index])


def _of_letter(kind: str) -> Asker:
    """The sections of one letter, one in ten of a letter that is not there; not of the last section, whose end only the duration tells."""

    def ask(rng: np.random.Generator, known: PromptFacts) -> str | None:
        names = [name for name, _ in form_items(known["form"])] if "form" in known else list("ABCD")
        inner = sorted(set(names) - {names[-1]})
        if rng.random() < 0.1:
            return worded(rng, kind, letter=chr(ord(max(names)) + 1))
        return worded(rng, kind, letter=str(rng.choice(inner))) if inner else None

    return ask


def _comes_back(rng: np.random.Generator, known: PromptFacts) -> str | None:
    """A section that is played again, or not, equally often."""
    names = [name for name, _ in form_items(known["form"])] if "form" in known else list("ABAC")
    inner = sorted(set(names) - {names[-1]})
    again, once = ([name for name in inner if (names.count(name) > 1) == often] for often in (True, False))
    if not again or not once:
        return None
    return worded(rng, "comes_back", letter=str(rng.choice(again if rng.random() < 0.5 else once)))


# --- what prompts or labels alone decide --------------------------------------------------------------------------------------

USUAL = {  # share of excerpts with an instrument: a rare one is asked for rather where it is, a common one where it is not
    "piano": 0.3, "mallets": 0.13, "organ": 0.2, "guitar": 0.28, "bass": 0.53, "strings": 0.23, "choir": 0.12, "brass": 0.2, "sax": 0.08,
    "woodwind": 0.06, "synth": 0.2, "drums": 0.5,
}  # fmt: skip
SUNG_ASKED = 0.2  # of clips without a voice, when asked for one: voices are the rarer
FORMS_OF_GENRE = {"waltz": "a waltz", "march": "a march", "ballad": "a ballad"}


def _judged(question: str, want: bool, reason: str) -> Exchange:
    return Exchange(question, f"{YES if want else NO}.", reason)


def named(kind: str) -> Maker:
    """What a clip has of instruments, genres or moods, in a list as `tasks` reads it."""

    def make(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
        if undecided(kind, {}, labels):
            return None
        question, value = worded(rng, kind), (labels or {}).get(kind)
        if value is None:
            return unanswered(question)
        said = ", ".join(value.split() if kind == "instruments" else value.split(", "))
        return Exchange(question, said, listened(rng, kind, said))

    return make


def has_chord(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """A chord among those given, or one like them; not asked about the sound."""
    names, want = facts.get("chords", "").split(), rng.random() < 0.5
    if not names:
        return None if labels else unanswered(worded(rng, "has_chord", chord=random_chord(rng)))
    asked = str(rng.choice(names))
    while not want and asked in names:
        asked = _near_chord(rng, asked)
    said = f"{YES}: {asked} is one of its chords." if want else f"{NO}: {asked} is not among its chords."  # as `replies.chord_has`
    return Exchange(worded(rng, "has_chord", chord=asked), said, reason("What are the chords?", as_known({"chords": facts["chords"]})))


def _near_chord(rng: np.random.Generator, name: str) -> str:
    root = name[:2] if name[1:2] in ("#", "b") else name[:1]
    fresh = random_chord(rng)
    return fresh if rng.random() < 0.4 else root + fresh.lstrip("ABCDEFG").lstrip("#").removeprefix("b")


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


def has_instrument(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """An instrument that is surely there, or surely not."""
    want = bool(rng.random() < 0.5)
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
    want = bool(rng.random() < 0.5)
    if labels and not (labels.get("genre") and labels.get("not_genre")):
        return None
    source = labels["genre" if want else "not_genre"] if labels else "jazz, rock, pop, classical, electronic, waltz"
    asked = str(rng.choice(source.split(", ")))
    question = worded(rng, "is_genre", genre=FORMS_OF_GENRE.get(asked, asked), name=asked)
    return _judged(question, want, listened(rng, "genre", labels["genre"])) if labels else unanswered(question)


def is_vocal(rng: np.random.Generator, facts: PromptFacts, labels: PromptFacts | None) -> Exchange | None:
    """Sung, or instrumental."""
    sung, ask_sung = (labels or {}).get("vocals"), rng.random() < 0.65
    if undecided("vocals", {}, labels) or (sung == "no" and rng.random() > SUNG_ASKED):
        return None
    return told(rng, worded(rng, "is_sung" if ask_sung else "is_instrumental"), "vocals", {}, labels)


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
    asked = worded(rng, field)
    question = CHOICE.format(question=asked, options="\n".join(marked))
    if value is None:
        return unanswered(question)
    because = reason(asked, as_known({field: value})) if field in facts else listened(rng, field, value)
    return Exchange(question, marked[list(order).index(0)], because)


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


# --- the table -----------------------------------------------------------------------------------------------------------------

MAKERS: dict[str, Maker] = {
    **{kind: _asking(kind, _plain(kind)) for kind in ("tempo", "key", "meter", "chords", "loudness", "duration", "vocals", "form")},
    "mode": _asking("key", _plain("mode")), "wheel": _asking("key", _plain("wheel"), heard=False),
    "relative": _asking("key", _plain("relative"), heard=False), "sections": _asking("form", _plain("sections")),
    "tempo_and_key": _asking("tempo", _plain("tempo_and_key")), "tempo_than": _asking("tempo", _tempo_than),
    "nth_section": _asking("form", _nth_section), "section_start": _asking("form", _of_letter("section_start")),
    "section_count": _asking("form", _of_letter("section_count")), "comes_back": _asking("form", _comes_back),
    "is_tempo": _asking("tempo", _is_tempo), "is_pace": _asking("tempo", _is_pace), "is_mode": _asking("key", _is_mode),
    "is_key": _asking("key", _is_key), "is_meter": _asking("meter", _is_meter), "is_long": _asking("duration", _is_long),
    "is_louder": _asking("loudness", _is_louder), "is_loud": _asking("loudness", _is_loud), "has_chord": has_chord,
    **{kind: named(kind) for kind in ("instruments", "genre", "mood")},
    "louder": louder, "has_instrument": has_instrument, "is_genre": is_genre, "is_vocal": is_vocal, "choice": choice,
}  # fmt: skip
"""How an exchange of each kind is made; None where this music cannot be asked."""
