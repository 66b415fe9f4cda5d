"""What the language model is taught to say: questions, answers and captions made from given facts and from what a clip sounds like.

Facts are strings as a prompt shows them ("87.5", "A minor", "-9.8"). Nothing is said that neither prompt nor audio bears.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mflamingo_cli.measure.facts import Key
from mflamingo_cli.tasks import CAPTION_STYLES, GROUND_CHORDS, GROUND_PREFIX, TASKS, THINK_SUFFIX, grounded_prompt
from mflamingo_cli.train.compose import key_flats, pitch_name

FIELDS = ("tempo", "key", "meter", "chords", "sections", "loudness", "duration")  # the order of tasks.ground
PHRASES = {
    "tempo": "tempo {} BPM",
    "key": "key {}",
    "meter": "meter {}",
    "chords": "chords {}",
    "sections": "sections {}",
    "loudness": "loudness {} LUFS",
    "duration": "duration {} s",
}
CANNOT = "I cannot tell that from the sound."
NO_LYRICS = "I cannot write a lyric sheet: words are not something I can hear."
NOTHING = "I can tell little about this track."
SLOW_BPM, FAST_BPM = 80, 120  # below, and from: only these words are said about a tempo
TRIADS = {"maj": "", "7": "", "maj7": "", "sus4": "", "min": "m", "min7": "m", "dim": "dim"}  # what the ears claim of a chord

Facts = dict[str, str]  # of FIELDS; chords are separated by single spaces


@dataclass(frozen=True)
class Turn:
    """One question with its answer; `history` are the turns before it."""

    question: str
    answer: str
    history: tuple[tuple[str, str], ...] = ()


# --- questions; the first of each list is the one the command line asks ------------------------------------------

QUESTIONS: dict[str, tuple[str, ...]] = {
    "tempo": (
        TASKS["tempo"].prompt,
        "What is the tempo?",
        "How fast is this?",
        "How many beats per minute?",
        "What tempo does the song have?",
        "Tell me the BPM.",
        "bpm?",
        "What's the tempo of this track in BPM?",
    ),
    "key": (
        TASKS["key"].prompt,
        "What key is this in?",
        "Which key is the track in?",
        "Tell me the key.",
        "key?",
        "What is the key?",
        "Name the tonic and mode.",
        "In which key is this piece written?",
    ),
    "mode": (
        "Is this song in major or minor?",
        "Major or minor?",
        "Is the key major or minor?",
        "Is it a major or a minor key?",
        "What is the mode, major or minor?",
    ),
    "minor": ("Is this song in a minor key?", "Is it minor?", "Is the track in minor?"),
    "major": ("Is this song in a major key?", "Is it major?", "Is the track in major?"),
    "meter": (
        TASKS["meter"].prompt,
        "What's the time signature?",
        "What is the meter?",
        "Which meter is this in?",
        "How many beats are in a bar?",
        "Tell me the time signature.",
        "meter?",
    ),
    "chords": (
        TASKS["chords"].prompt,
        "What chords are used?",
        "Which chords do you hear?",
        "What are the chords?",
        "Name the main chords.",
        "What are the main chords of this track?",
        "chords?",
        "What is the chord progression?",
    ),
    "first_chord": ("What is the first chord?", "Which chord does it start on?", "With which chord does the song begin?"),
    "sections": ("How many sections does it have?", "How many parts does the song have?", "How many sections are there?"),
    "loudness": ("How loud is it?", "What is the loudness?", "How many LUFS does it have?", "What is the integrated loudness?"),
    "duration": ("How long is it?", "How long is the song?", "What is the duration?", "How many seconds does it last?"),
}
UNKNOWN: tuple[str, ...] = (
    TASKS["instruments"].prompt, TASKS["genre"].prompt, TASKS["mood"].prompt, TASKS["vocals"].prompt, "Who is the artist?",
    "Who sings this?", "Who wrote this song?", "What is the title?", "What is this song called?", "Which album is it from?",
    "What year was it released?", "When was this recorded?", "How old is this recording?", "Where does this music come from?",
    "Which country is it from?", "What are the lyrics?", "What does the singer sing about?", "What language are the lyrics in?",
    "What is the song about?", "Which words are sung first?", "Is the singer male or female?", "Is there a singer?", "Are there vocals?",
    "Is there singing?", "How many singers are there?", "Is it instrumental?", "What genre is it?", "Is this jazz?", "Is it rock or pop?",
    "Which style is this?", "Is it classical music?", "What kind of music is this?", "What mood does it have?", "Is it happy or sad?",
    "How does it make one feel?", "What emotions does it evoke?", "Is it good music?", "Do you like it?",
    "Which instruments are playing?", "Is there a guitar?", "Is there a piano?", "Are there drums?", "What is the lead instrument?",
    "Does a violin play?", "How was it produced?", "What microphone was used?", "Is there reverb on the voice?", "Is it well mixed?",
    "Who produced it?", "Is it a live recording?", "What happens at {m}:{s}?", "What is sung at {m}:{s}?", "When does the chorus start?",
    "When does the voice enter?", "Is there a solo?", "When is the drop?", "Which film would it suit?", "What would you compare it with?",
    "Name a similar artist.", "Is it in the charts?", "Can I dance to it?", "Is it for children?", "Tell me a story about it.",
    "What colour is it?", "How many people play?", "Does it use samples?", "Is it copyrighted?", "Who owns the rights?",
)  # fmt: skip
CAPTION_PROMPTS: dict[str, tuple[str, ...]] = {
    "full": (
        CAPTION_STYLES["full"],
        "Describe this track in full detail.",
        "Describe this song.",
        "Tell me all you can about this music.",
        "What do you hear?",
        "Describe this song from both a technical and artistic lens: mention tempo, harmony, and instrumentation, "
        "but also mood, lyrical themes, and structure.",
        "Give me a full musical picture: what's the style, BPM, and harmonic palette, "
        "and how do the vocals, instrumentation, and production shape its mood?",
    ),
    "short": (CAPTION_STYLES["short"], "Describe this song in one sentence.", "Give me a short caption.", "Sum it up in one sentence."),
    "technical": (CAPTION_STYLES["technical"], "Give me the technical details.", "Write a technical caption."),
    "critic": (CAPTION_STYLES["critic"], "Review this track like a critic.", "Write like a critic about this song."),
}

# --- captions: one sentence per known fact, in an order that belongs to the style ---------------------------------

SENTENCES: dict[str, dict[str, str]] = {
    "full": {
        "tempo": "This track runs at {tempo} BPM, a {pace} tempo.",
        "meter": "It is counted in {meter}.",
        "key": "The key is {key}.",
        "chords": "The harmony moves through {chords}.",
        "sections": "The form has {sections} {section_word}.",
        "duration": "It lasts {duration} s.",
        "loudness": "The loudness is {loudness} LUFS.",
    },
    "technical": {
        "key": "Harmonically the track rests in {key}.",
        "chords": "Its main chords are {chords}.",
        "tempo": "The pulse is {pace}, {tempo} BPM.",
        "meter": "The meter is {meter}.",
        "loudness": "The mix measures {loudness} LUFS.",
        "sections": "It unfolds in {sections} {section_word}.",
        "duration": "Its length is {duration} s.",
    },
    "critic": {
        "tempo": "At {tempo} BPM the track keeps a {pace} pace.",
        "key": "Its home is {key}.",
        "chords": "The chords turn around {chords}.",
        "meter": "The bars fall in {meter}.",
        "sections": "It is built from {sections} {section_word}.",
        "loudness": "It is mastered at {loudness} LUFS.",
        "duration": "It holds for {duration} s.",
    },
}
HEARD = {"key": "It sounds like {key}.", "chords": "I hear the chords {chords}."}  # in captions, where the prompt gave no such fact
SHORT = {
    "tempo": "at {tempo} BPM",
    "meter": "in {meter}",
    "key": "in {key}",
    "chords": "on the chords {chords}",
    "sections": "with {sections} {section_word}",
    "duration": "lasting {duration} s",
    "loudness": "at {loudness} LUFS",
}
CLOSING = "Genre, instruments and mood I cannot tell reliably."


def spoken_list(items: Sequence[str]) -> str:
    """`C, G and Am`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def pace(tempo: str) -> str:
    """The only words about speed: slow, moderate, fast."""
    bpm = float(tempo)
    return "slow" if bpm < SLOW_BPM else "fast" if bpm >= FAST_BPM else "moderate"


def _slots(facts: Facts) -> dict[str, str]:
    slots = dict(facts)
    if "tempo" in facts:
        slots["pace"] = pace(facts["tempo"])
    if "chords" in facts:
        slots["chords"] = spoken_list(facts["chords"].split())
    slots["section_word"] = "section" if facts.get("sections") == "1" else "sections"
    return slots


def caption(style: str, facts: Facts, heard: Facts | None = None) -> str:
    """A caption of one style that says every given fact, and what is heard where no fact was given."""
    heard = {name: value for name, value in (heard or {}).items() if name not in facts and name in HEARD}
    if style == "short":
        return _one_sentence(facts, heard)
    slots, sentences = _slots(facts), []
    for name, sentence in SENTENCES[style].items():
        if name in facts:
            sentences.append(sentence.format(**slots))
        elif name in heard:
            sentences.append(HEARD[name].format(**_slots(heard)))
    if not sentences:
        sentences.append(NOTHING)
    return " ".join([*sentences, CLOSING] if style == "full" else sentences)


def _one_sentence(facts: Facts, heard: Facts) -> str:
    slots = _slots(facts)
    parts = [phrase.format(**slots) for name, phrase in SHORT.items() if name in facts]
    parts += [("seemingly " + SHORT[name]).format(**_slots(heard)) for name in HEARD if name in heard]
    adjective = f"{slots['pace']} " if "pace" in slots else ""
    return f"A {adjective}track {', '.join(parts)}." if parts else NOTHING


# --- answers ---------------------------------------------------------------------------------------------------------


def answer(intent: str, facts: Facts, heard: Facts | None = None) -> str:
    """The short answer to a kind of question; given facts come before what is heard, and neither means CANNOT."""
    known = {**(heard or {}), **facts}
    if intent in ("mode", "minor", "major") and "key" in known:
        mode = known["key"].split()[-1]
        return mode if intent == "mode" else "Yes." if mode == intent else "No."
    if intent == "first_chord" and "chords" in known:
        return known["chords"].split()[0]
    if intent not in known:
        return CANNOT
    value = known[intent]
    forms = {"chords": " - ".join(value.split()), "loudness": f"{value} LUFS", "duration": f"{value} s"}
    return forms.get(intent, value)


TRACES = {
    "measured": "The {what} was measured, so I rely on it: {value}.",
    "key": "The notes settle around one tonic, and its third is {mode}.",
    "chords": "I follow the bass and the notes above it: {value}.",
    "none": "The sound does not tell me this, and nothing was measured about it.",
}


def think(intent: str, facts: Facts, heard: Facts | None = None) -> str:
    """Reasoning and answer in the paper's format (its section on MF-Think)."""
    final = answer(intent, facts, heard)
    field = {"mode": "key", "minor": "key", "major": "key", "first_chord": "chords"}.get(intent, intent)
    known = {**(heard or {}), **facts}
    if field in facts:
        trace = TRACES["measured"].format(what=field, value=_slots(facts)[field])
    elif field in known:
        trace = TRACES[field].format(mode=known["key"].split()[-1] if "key" in known else "", value=_slots(known)[field])
    else:
        trace = TRACES["none"]
    return f"<think>{trace}</think> Hence, the final answer is: <answer>{final}</answer>"


# --- facts -----------------------------------------------------------------------------------------------------------

_COMMON = ("", "m", "7", "maj7", "m7")
_RARE = ("dim", "sus4", "sus2", "aug", "m7b5", "dim7", "6", "m6", "9", "maj9", "m9", "add9")
_MEASURED_ROOTS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")  # as measure/chords.py spells them
_LETTER_NAMES = ("C", "C#", "Db", "D", "D#", "Eb", "E", "F", "F#", "Gb", "G", "G#", "Ab", "A", "A#", "Bb", "B")


def random_chord(rng: np.random.Generator) -> str:
    """A chord name: mostly spelled as measured, one in four of a rare kind."""
    root = rng.choice(_MEASURED_ROOTS if rng.random() < 0.8 else _LETTER_NAMES)
    return str(root) + str(rng.choice(_COMMON if rng.random() < 0.75 else _RARE))


def random_facts(rng: np.random.Generator, share: float | None = None) -> Facts:
    """Values nobody measured, each field present with probability `share`: what copying must work for."""
    share = float(rng.choice([0.35, 0.7, 0.9, 1.0])) if share is None else share
    names = [random_chord(rng) for _ in range(int(rng.integers(1, GROUND_CHORDS + 1)))]
    bpm, lufs = np.exp(rng.uniform(np.log(36), np.log(240))), rng.uniform(-42, -2)
    values = {
        "tempo": f"{bpm:.1f}".removesuffix(".0") if rng.random() < 0.8 else f"{bpm:.0f}",
        "key": f"{rng.choice(_LETTER_NAMES)} {rng.choice(['major', 'minor'])}",
        "meter": str(
            rng.choice(
                ["4/4", "3/4", "6/8", "2/4", "5/4", "7/8", "12/8", "9/8", "2/2"], p=[0.36, 0.2, 0.14, 0.06, 0.06, 0.06, 0.06, 0.03, 0.03]
            )
        ),
        "chords": " ".join(dict.fromkeys(names)),
        "sections": str(int(rng.integers(1, 10)) if rng.random() < 0.7 else int(rng.integers(10, 30))),
        "loudness": f"{lufs:.1f}".removesuffix(".0"),
        "duration": str(int(np.exp(rng.uniform(np.log(4), np.log(4000))))),
    }
    return {name: values[name] for name in FIELDS if rng.random() < share}


def ground_text(facts: Facts, order: Sequence[str] = FIELDS) -> str:
    """The grounding prefix as `tasks.ground` writes it, in any order."""
    parts = [PHRASES[name].format(facts[name]) for name in order if name in facts]
    return f"{GROUND_PREFIX}{'; '.join(parts)}." if parts else ""


def heard_facts(row: dict[str, Any], start: float, end: float) -> Facts:
    """What the ears can be asked of an excerpt: its key and its (up to four) longest chords as triads, in order of first sound."""
    tonic, mode = row["tonic"], row["mode"]
    flats = "b" in Key.of(tonic, mode).tonic or key_flats(tonic, mode)
    lengths: dict[str, float] = {}
    for chord_start, chord_end, root, quality in row["chords"]:
        overlap = min(chord_end, end) - max(chord_start, start)
        if overlap > 0.2:
            name = pitch_name(root, flats) + TRIADS[quality]
            lengths[name] = lengths.get(name, 0.0) + overlap
    longest = sorted(lengths, key=lambda name: -lengths[name])[:GROUND_CHORDS]
    heard = {"key": Key.of(tonic, mode).name}
    if longest:
        heard["chords"] = " ".join(name for name in lengths if name in longest)
    return heard


# --- turns -----------------------------------------------------------------------------------------------------------


def _pick(rng: np.random.Generator, texts: Sequence[str]) -> str:
    """The command line's own words half of the time, else a paraphrase."""
    return texts[0] if rng.random() < 0.5 else texts[rng.integers(len(texts))]


def _unknown(rng: np.random.Generator) -> str:
    text = UNKNOWN[rng.integers(4)] if rng.random() < 0.15 else UNKNOWN[rng.integers(len(UNKNOWN))]
    return text.format(m=int(rng.integers(0, 6)), s=f"{int(rng.integers(0, 60)):02d}")


def make_turn(rng: np.random.Generator, kind: str, facts: Facts, heard: Facts | None) -> Turn:
    """One exchange of a kind (an intent of QUESTIONS, "unknown", "lyrics", "caption:STYLE"); facts are asked in any order."""
    order = list(FIELDS)
    if rng.random() < 0.6:
        rng.shuffle(order)
    prefix = ground_text(facts, order)
    if kind == "lyrics":
        return Turn(grounded_prompt(CAPTION_STYLES["lyrics"], prefix), NO_LYRICS)
    if kind.startswith("caption:"):
        style = kind.partition(":")[2]
        text = caption(style, facts, heard)
        question = grounded_prompt(_pick(rng, CAPTION_PROMPTS[style]), prefix)
        if rng.random() < 0.1:
            trace = "I go through what was measured and what I hear." if facts else "I go by what I hear."
            return Turn(question + THINK_SUFFIX, f"<think> {trace} </think> <answer>\n{text} </answer>")
        return Turn(question, text)
    question = _unknown(rng) if kind == "unknown" else _pick(rng, QUESTIONS[kind])
    question = grounded_prompt(question, prefix)
    if rng.random() < 0.15:
        return Turn(question + THINK_SUFFIX, think(kind, facts, heard))
    return Turn(question, answer(kind, facts, heard))


KINDS: dict[str, float] = {  # shares
    "caption:full": 4, "caption:short": 3, "caption:technical": 3, "caption:critic": 3, "lyrics": 0.4, "unknown": 2.5, "tempo": 1,
    "key": 1, "mode": 0.4, "minor": 0.3, "major": 0.3, "meter": 0.8, "chords": 1.2, "first_chord": 0.4, "sections": 0.5, "loudness": 0.5,
    "duration": 0.5,
}  # fmt: skip


def draw_kind(rng: np.random.Generator) -> str:
    """A kind of exchange by the shares of KINDS."""
    weights = np.array(list(KINDS.values()))
    return list(KINDS)[rng.choice(len(KINDS), p=weights / weights.sum())]


CHORD_DRILL = 0.5  # of the exchanges without audio: chord names are the hardest facts to repeat


def _chord_drill(rng: np.random.Generator) -> Turn:
    """Many chords and little else, to be repeated."""
    facts = random_facts(rng, 0.15) | {"chords": " ".join(dict.fromkeys(random_chord(rng) for _ in range(GROUND_CHORDS)))}
    kind = str(rng.choice(["chords", "chords", "first_chord", "caption:short", "caption:technical", "caption:critic", "caption:full"]))
    return make_turn(rng, kind, facts, None)


def text_turn(rng: np.random.Generator) -> Turn:
    """An exchange without audio, with random facts (sometimes none), sometimes after another one."""
    if rng.random() < CHORD_DRILL:
        return _chord_drill(rng)
    facts = {} if rng.random() < 0.06 else random_facts(rng)
    turn = make_turn(rng, draw_kind(rng), facts, None)
    if rng.random() < 0.06:
        earlier = make_turn(rng, draw_kind(rng), random_facts(rng), None)
        return Turn(turn.question, turn.answer, ((earlier.question, earlier.answer),))
    return turn


def audio_turns(rng: np.random.Generator, heard: Facts, count: int) -> list[Turn]:
    """Exchanges about one excerpt: what the ears can be asked, something they cannot, a caption, and some with facts in the prompt.

    The facts are random ones: what is given outranks what is heard.
    """
    asked = rng.choice(["mode", "minor", "major", "first_chord", "key", "chords"])
    other = rng.choice(["unknown", "tempo", "meter", "duration"], p=[0.7, 0.12, 0.12, 0.06])
    turns = [make_turn(rng, kind, {}, heard) for kind in ("key", "chords", str(asked), str(other))]
    style = rng.choice(["caption:full", "caption:short", "caption:technical", "caption:critic", "lyrics"], p=[0.3, 0.22, 0.22, 0.22, 0.04])
    if rng.random() < 0.5:
        turns.append(make_turn(rng, str(style), {}, heard))
    while len(turns) < count:
        turns.append(make_turn(rng, draw_kind(rng), random_facts(rng), heard))
    return turns[:count]
