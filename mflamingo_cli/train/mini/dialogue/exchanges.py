"""What the language model is taught to say: exchanges made from given facts and from what a clip sounds like.

Nothing is said that neither prompt nor audio supports. `labels` is None where there is no audio and empty where the audio is no music.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mflamingo_cli.grounding import NO_ANSWER, grounded_prompt
from mflamingo_cli.grounding.prose.captions import caption_of, evidence_of
from mflamingo_cli.styles import CAPTION_STYLES
from mflamingo_cli.thinking import THINK_SUFFIX
from mflamingo_cli.train.mini.dialogue import prompt_facts
from mflamingo_cli.train.mini.dialogue.answers import MAKERS, NOT_KNOWN, pick
from mflamingo_cli.train.mini.dialogue.clip_labels import GENRES, INSTRUMENTS, MOOD_TAGS
from mflamingo_cli.train.mini.dialogue.prompt_facts import (
    FIELDS,
    NOTES,
    PHRASES,
    PromptFacts,
    ground_text,
    prompt_slots,
    random_facts,
)
from mflamingo_cli.train.mini.dialogue.questions import CAPTION_PROMPTS, UNKNOWN
from mflamingo_cli.train.mini.synth.arrange import choose
from mflamingo_cli.train.rows import Turn

NO_LYRICS = "I cannot write a lyric sheet: words are not something I can hear."
REASONING_SHARE = 0.15  # of the exchanges ask for the reasoning too, where a stage says nothing else
TRIES = 30  # draws of a kind before an excerpt counts as one that cannot be asked
NOTHING = "I can tell little about this track."
CHAT, LONGEST_CHAT = 0.25, 4  # of the exchanges with facts follow others about them, up to so many


# --- kinds of exchanges with their shares ------------------------------------------------------------------------------

Shares = Mapping[str, float]
CAPTIONS: Shares = {"caption:full": 4, "caption:short": 3, "caption:technical": 3, "caption:critic": 3}
MEASURED_KINDS: Shares = {  # about facts, answered CANNOT where they are not given
    "tempo": 1, "key": 1, "mode": 0.4, "wheel": 0.3, "relative": 0.3, "meter": 0.8, "chords": 1.2, "sections": 0.5, "form": 0.7,
    "nth_section": 0.7, "section_start": 0.4, "section_count": 0.3, "loudness": 0.5, "duration": 0.5, "tempo_than": 0.4, "is_tempo": 0.6,
    "is_pace": 0.4, "is_long": 0.5, "is_louder": 0.3, "is_loud": 0.3, "is_key": 0.6, "is_mode": 0.4, "is_meter": 0.5, "has_chord": 0.5,
    "comes_back": 0.4, "tempo_and_key": 0.4, "choice": 0.5,
}  # fmt: skip
LABEL_QUESTIONS: Shares = {"key": 1.2, "chords": 1.2, "meter": 0.8, "instruments": 1, "genre": 0.9, "mood": 0.6, "vocals": 0.8}
LABEL_KINDS: Shares = {
    "has_instrument": 1.5, "is_vocal": 1, "is_genre": 0.8, "is_meter": 0.8, "is_mode": 0.8, "is_key": 0.7, "louder": 0.4, "choice": 0.4,
    "mode": 0.4,
}  # fmt: skip
RARE = {("vocals", "yes"): 3.0, ("meter", "3/4"): 1.8, ("meter", "6/8"): 3.5}  # (kind, its answer): asked so much more often
OTHER: Shares = {"unknown": 4, "lyrics": 0.5, "tempo": 0.4, "duration": 0.2, "sections": 0.2, "form": 0.2, "nth_section": 0.2}
SOUND_ONLY: Shares = {  # what only sound could answer
    "instruments": 0.15, "genre": 0.15, "mood": 0.15, "vocals": 0.15, "has_instrument": 0.15, "is_genre": 0.1, "is_vocal": 0.15,
}  # fmt: skip
TEXT_KINDS: Shares = {**CAPTIONS, **MEASURED_KINDS, **SOUND_ONLY, "unknown": 2, "lyrics": 0.3}  # without audio
CAPTION_KINDS = tuple(CAPTIONS)
JUDGED = {  # questions for a truth, with the fact that answers them
    "is_tempo": "tempo", "is_pace": "tempo", "tempo_than": "tempo", "is_long": "duration", "is_louder": "loudness", "is_loud": "loudness",
    "is_key": "key", "is_mode": "key", "is_meter": "meter", "has_chord": "chords", "comes_back": "form",
}  # fmt: skip
DRILLS = {  # what is hardest to repeat and to judge, first learned with little else in the prompt
    "chords": ("chords", "chords", *CAPTION_KINDS),
    "form": ("form", "form", "nth_section", "section_start", "caption:full", "caption:technical", "caption:critic"),
    "number": ("tempo", "key", "meter", "loudness", "duration", "sections", *CAPTION_KINDS),
    "truth": tuple(JUDGED),
}
NUMBERS = ("tempo", "key", "meter", "loudness", "duration")
DRILL = 0.45  # of the exchanges without audio


# --- turns -----------------------------------------------------------------------------------------------------------


def make_turn(
    rng: np.random.Generator, kind: str, facts: PromptFacts, labels: PromptFacts | None, thinking: float = REASONING_SHARE
) -> Turn | None:
    """One exchange of a kind (also "unknown", "lyrics", "caption:STYLE") with facts in any order; None where it cannot be asked."""
    order = list(FIELDS)
    if rng.random() < 0.5:
        rng.shuffle(order)
    prefix = ground_text(facts, order)
    if kind.startswith("caption:"):
        return _caption_turn(rng, kind.partition(":")[2], prefix, facts, labels, thinking)
    if kind == "lyrics":
        return Turn(grounded_prompt(CAPTION_STYLES["lyrics"], prefix), NO_LYRICS)
    if kind == "unknown":
        asked = UNKNOWN[rng.integers(len(UNKNOWN))].format(m=int(rng.integers(0, 6)), s=f"{int(rng.integers(0, 60)):02d}")
        question, said, reason = asked, NO_ANSWER, NOT_KNOWN
    else:
        drawn = MAKERS[kind](rng, facts, labels)
        if drawn is None:
            return None
        question, said, reason = drawn.question, drawn.answer, drawn.rationale
    question = grounded_prompt(question, prefix)
    if rng.random() < thinking:
        return Turn(question + THINK_SUFFIX, f"<think>{reason}</think> Hence, the final answer is: <answer>{said}</answer>")
    return Turn(question, said)


def _caption_turn(
    rng: np.random.Generator, style: str, prefix: str, facts: PromptFacts, labels: PromptFacts | None, thinking: float
) -> Turn:
    slots = prompt_slots(facts, labels)
    text = (caption_of(style, slots, int(rng.integers(1 << 30))) if slots.facts else "") or NOTHING
    question = grounded_prompt(pick(rng, CAPTION_PROMPTS[style]), prefix)
    if rng.random() >= 0.5 * thinking:
        return Turn(question, text)
    reason = " ".join(evidence_of(slots)) or NOT_KNOWN
    return Turn(question + THINK_SUFFIX, f"<think> {reason} </think> <answer>\n{text} </answer>")


def _turn(
    rng: np.random.Generator, shares: Shares, facts: PromptFacts, labels: PromptFacts | None, thinking: float = REASONING_SHARE
) -> Turn:
    """An exchange of any of several kinds that this music can be asked; where it seems to have none, an unanswerable one."""
    for _ in range(TRIES):
        if turn := make_turn(rng, choose(rng, shares), facts, labels, thinking):
            return turn
    turn = make_turn(rng, "unknown", facts, labels)
    assert turn is not None
    return turn


def _drill(rng: np.random.Generator) -> Turn:
    """Few facts, to be repeated or judged: many chords, a form, or one or two of the others."""
    drill = str(rng.choice(list(DRILLS), p=[0.4, 0.2, 0.2, 0.2]))
    kind = str(rng.choice(DRILLS[drill]))
    field, facts = JUDGED.get(kind, drill), random_facts(rng, 0.15)
    if field == "chords":
        facts["chords"] = prompt_facts.random_chords(rng, 4)
    elif field == "form":
        letters, starts = prompt_facts.random_form(rng, max(2, prompt_facts.few_sections(rng)))
        facts |= {"sections": str(len(letters)), "form": prompt_facts.form_text(letters, starts)}
    else:
        name = next((word for word in (field, kind) if word in PHRASES), None) or str(rng.choice(NUMBERS))
        facts[name] = random_facts(rng, 1.0)[name]
    return make_turn(rng, kind, facts, None) or _drill(rng)  # a form without a return cannot be asked for one


def text_turn(rng: np.random.Generator) -> Turn:
    """An exchange without audio, with random facts (sometimes none), sometimes after another one."""
    if rng.random() < DRILL:
        return _drill(rng)
    facts = {} if rng.random() < 0.06 else random_facts(rng)
    turn = _turn(rng, TEXT_KINDS, facts, None)
    if rng.random() >= CHAT:
        return turn
    earlier = [_turn(rng, TEXT_KINDS, facts, None, 0.0) for _ in range(int(rng.integers(1, LONGEST_CHAT + 1)))]
    return Turn(turn.question, turn.answer, tuple((before.question, before.answer) for before in earlier))


def _facts(rng: np.random.Generator, labels: PromptFacts) -> PromptFacts:
    """Facts of a prompt with audio: mostly what would be measured in it, else anything, because given facts outrank the sound."""
    if not labels:  # no harmony is measured where there is no music
        facts = {} if rng.random() < 0.4 else random_facts(rng)
        return {name: value for name, value in facts.items() if name in ("tempo", "sections", "form", "loudness", "duration")}
    return prompt_facts.consistent_facts(rng, labels) if rng.random() < 0.6 else random_facts(rng)


def audio_turns(
    rng: np.random.Generator, labels: PromptFacts, count: int, thinking: float = REASONING_SHARE, confident: PromptFacts | None = None,
    measured: PromptFacts | None = None, captions: float = 0.0,
) -> list[Turn]:  # fmt: skip
    """Exchanges about one excerpt: plain questions about its labels, yes or no, a caption, the unanswerable, and given facts.

    Captions mention `confident` labels only, and facts are given of `measured` ones (default: all labels); `thinking` is the share that
    asks for the reasoning too. `captions` is the share that are captions whatever their turn is.
    """
    confident, measured = labels if confident is None else confident, labels if measured is None else measured
    plain = {kind: share * RARE.get((kind, labels.get(kind, "")), 1) for kind, share in LABEL_QUESTIONS.items()}
    turns: list[Turn] = []
    while len(turns) < count:
        place = 1 if captions and rng.random() < captions else len(turns) % 6
        if place in (0, 2):
            turns.append(_turn(rng, plain if place == 0 or rng.random() < 0.6 else {**plain, **LABEL_KINDS}, {}, labels, thinking))
        elif place == 1:
            turns.append(_turn(rng, CAPTIONS, {} if rng.random() < 0.4 else _facts(rng, measured), confident, thinking))
        elif place == 3:
            turns.append(_turn(rng, LABEL_KINDS, {} if rng.random() < 0.6 else _facts(rng, measured), labels, thinking))
        elif place == 4:
            turns.append(_turn(rng, OTHER, {} if rng.random() < 0.5 else _facts(rng, measured), labels, thinking))
        else:
            turns.append(_turn(rng, {**MEASURED_KINDS, **plain, **LABEL_KINDS}, _facts(rng, measured), labels, thinking))
    return turns


def random_labels(rng: np.random.Generator) -> PromptFacts:
    """What some excerpt might sound like: for a tokenizer, which must know all words before there is any audio."""
    names = [str(name) for name in rng.permutation(INSTRUMENTS)]
    genres = [str(name) for name in rng.permutation(GENRES)]
    cut, kinds = int(rng.integers(1, 7)), int(rng.integers(1, 4))
    facts = random_facts(rng, 1.0)
    labels = {
        "key": facts["key"],
        "chords": " ".join(dict.fromkeys(str(rng.choice(NOTES)) + str(rng.choice(["", "m", "dim"])) for _ in range(4))),
        "meter": str(rng.choice(["4/4", "3/4", "6/8"])),
        "instruments": " ".join(names[:cut]),
        "absent": " ".join(names[cut:]),
        "genre": ", ".join(genres[:kinds]),
        "not_genre": ", ".join(genres[kinds : kinds + 8]),
        "mood": ", ".join(str(name) for name in rng.permutation(list(MOOD_TAGS))[: int(rng.integers(1, 3))]),
        "vocals": str(rng.choice(["yes", "no"], p=[1 / 6, 5 / 6])),
    }
    return {name: value for name, value in labels.items() if rng.random() < 0.8}
