"""Captions: every claim is a fact, every fact is told, nothing twice, and every line of the grammar is said by some song."""

from __future__ import annotations

import dataclasses
import re
from random import Random

import pytest

from mflamingo_cli.checks import Check, CheckOptions
from mflamingo_cli.claims import sentences
from mflamingo_cli.grounding.prose.captions import STYLES, caption_of, tell, write_caption
from mflamingo_cli.grounding.prose.grammar import Composer, parse_rule
from mflamingo_cli.grounding.prose.harmony import longest, progression
from mflamingo_cli.grounding.prose.phrases import RULES
from mflamingo_cli.grounding.prose.slots import CONDITIONS, TELLS, slots_of
from mflamingo_cli.measure import Confidence, Facts, Key, Tempo, Voices
from mflamingo_cli.schema import FormPart, Loudness, Segment
from mflamingo_cli.styles import CAPTION_STYLES
from tests.grounding.prose.songs import made_up_song

SONGS = [made_up_song(seed) for seed in range(150)]
ENRICHING = {
    "clipping",
    "dynamics",
    "density",
    "brightness",
    "wheel",
    "scale",
    "cadence",
    "borrowed",
    "rate",
    "",
}  # told where a sentence has room


def all_captions():
    return [(style, facts, duration_s, write_caption(style, facts, duration_s)) for facts, duration_s in SONGS for style in STYLES]


def test_every_slot_and_condition_of_the_grammar_exists():
    lines = [line for block in RULES.values() for line in parse_rule(block)]
    assert {slot for line in lines for slot in line.slots} == TELLS.keys()
    assert {name for line in lines for name in line.holds | line.fails} == CONDITIONS
    assert {part for line in lines for part in line.parts} <= RULES.keys()


def test_every_line_of_the_grammar_is_said_by_some_song(monkeypatch):
    from mflamingo_cli.grounding.prose import captions

    used = set()

    class Watched(captions.Composer):
        def sentence(self, rule, known):
            said = super().sentence(rule, known)
            used.update(self._used)
            return said

    monkeypatch.setattr(captions, "Composer", Watched)
    for seed in range(500):
        slots = slots_of(*made_up_song(seed))
        for style in STYLES:
            caption_of(style, slots, seed)
        captions.evidence_of(slots)
    lines = {line.text for name, block in RULES.items() if not name.startswith(("fact_", "step_")) for line in parse_rule(block)}
    assert len(lines - {line.text for line in used}) <= 0.06 * len(lines), sorted(lines - {line.text for line in used})


def test_no_claim_of_a_caption_contradicts_a_fact():
    for style, facts, duration_s, text in all_captions():
        _, claims = Check.whole(text, facts, duration_s, CheckOptions("mark"))
        assert [claim for claim in claims if claim.agrees is False] == [], (style, text)


NUMBER = re.compile(r"[0-9][0-9.:/]*[0-9]|[0-9]")


def test_every_number_of_a_caption_is_a_fact():
    for facts, duration_s in SONGS:
        slots = slots_of(facts, duration_s)
        values = [*slots.values.values(), *(value for scene in slots.scenes for value in scene.values.values())]
        known = set(NUMBER.findall(" ".join(values)))
        for style in STYLES:
            text = write_caption(style, facts, duration_s)
            assert set(NUMBER.findall(text)) <= known, (style, text)


def test_no_sentence_and_no_value_is_said_twice():
    for style, _, _, text in all_captions():
        said = [text[start:end].casefold() for start, end in sentences(text)]
        assert len(said) == len(set(said)), (style, text)
        whole = re.sub(r"[^.]*\b[Ss]ection [A-Z]\b(?:[^.]|\.(?=\d))*", "", text)  # two sections may be as far from those before them
        for value in re.findall(r"-?\d+(?:\.\d+)? (?:BPM|LUFS|LU|dBTP)\b", whole):
            assert whole.count(f" {value}") <= 1, (style, text)


def test_a_full_caption_tells_what_is_known_in_about_eight_sentences():
    known = told = 0
    lengths = []
    for facts, duration_s in SONGS:
        slots, composer = slots_of(facts, duration_s), Composer(RULES, Random(1))
        lengths.append(len(list(STYLES["full"](composer, slots))))
        known += len(slots.facts - ENRICHING)
        told += len(composer.told & slots.facts - ENRICHING)
    assert told >= 0.97 * known
    assert 5.5 <= sum(lengths) / len(lengths) <= 8.5
    assert max(lengths) <= 10


def test_the_same_facts_give_the_same_words_and_another_seed_others():
    facts, duration_s = SONGS[0]
    assert write_caption("full", facts, duration_s) == write_caption("full", facts, duration_s)
    assert len({write_caption("full", facts, duration_s, seed) for seed in range(20)}) >= 15


def test_captions_of_many_songs_begin_in_many_ways():
    starts = {" ".join(write_caption("full", *made_up_song(seed)).split()[:5]) for seed in range(200)}
    assert len(starts) >= 150


@pytest.mark.parametrize("style", STYLES)
def test_what_is_not_known_leaves_sentences_that_stand(style):
    for facts in (
        Facts(), Facts(tempo=Tempo(120.0)), Facts(key=Key("C", "major")), Facts(meter="3/4"), Facts(loudness=Loudness(-9.0)),
        Facts(vocals=Voices(True)), Facts(vocals=Voices(False)), Facts(sections=(FormPart(0, 40, "A"),)),
        Facts(chords=(Segment(0, 40, "C:maj"),)),
    ):  # fmt: skip
        for duration_s in (None, 40.0):
            text = write_caption(style, facts, duration_s)
            assert not re.search(r"[{}<>|]|None|  |\s[,.;]|,,|\.\.", text), text
            assert text == "" or text[0].isupper() or text[0].isdigit()
            assert text == "" or text.endswith(".")


def test_a_caption_of_a_song_of_which_nothing_is_known_says_so():
    assert write_caption("full", Facts()) == "This track gives little away: no tempo and no key can be measured."


@pytest.mark.parametrize(("confidence", "words"), [(0.7, "probably"), (0.4, "perhaps")])
def test_what_is_not_sure_is_said_to_be_probable(confidence: float, words: str):
    sureness = Confidence(confidence, confidence, 0.4, 0.5)
    facts = Facts(tempo=Tempo(97.0, (48.5,)), key=Key("D", "minor"), meter="3/4", vocals=Voices(True), confidence=sureness)
    hedges = f"(?:{words}|seems|likeliest|certain)"
    for style in ("full", "technical"):
        text = write_caption(style, facts, 60.0)
        for value in ("97 BPM", "D minor"):
            assert re.search(rf"(?i){hedges}[^.]*{value}|{value}[^.]*{hedges}", text), text
        assert "Somebody probably sings." in text
        assert "perhaps 3/4" in text or "perhaps in 3/4" in text


def test_tempo_and_key_are_told_whatever_the_opening_tells():
    sureness = Confidence(0.36, 0.88, None, 0.9)
    facts = Facts(tempo=Tempo(140.0, (70.0,)), key=Key("D", "minor"), vocals=Voices(False), confidence=sureness)
    for seed in range(400):
        for known in (facts, dataclasses.replace(facts, key=None), dataclasses.replace(facts, tempo=Tempo())):
            text = write_caption("full", known, 60.0, seed)
            assert ("140 BPM" in text) == (known.tempo.bpm is not None), text
            assert ("D minor" in text) == (known.key is not None), text


def test_only_sections_with_which_something_changes_are_told():
    def formed(*sections: FormPart) -> str:
        return write_caption("full", Facts(tempo=Tempo(97.0), key=Key("D", "minor"), sections=sections), 60.0)

    same = [FormPart(20.0 * at, 20.0 * at + 20, label, lufs=-10.0) for at, label in enumerate("ABC")]
    assert "section B" not in formed(*same)
    assert "0:20" in formed(same[0], dataclasses.replace(same[1], lufs=-6.0), same[2])


def test_a_section_that_comes_back_unchanged_is_told_once():
    sections = tuple(FormPart(10.0 * at, 10.0 * at + 10, label) for at, label in enumerate("ABABABC"))
    scenes = [scene for scene in slots_of(Facts(sections=sections), 70.0).scenes if "back" in scene.conditions]
    assert [(scene.values["letter"], scene.start_s) for scene in scenes] == [("A", 20.0), ("B", 30.0)]


def test_a_section_alone_that_returns_is_the_one():
    def formed(labels: str) -> set[str]:
        sections = tuple(FormPart(10.0 * at, 10.0 * at + 10, label) for at, label in enumerate(labels))
        return {write_caption("full", Facts(sections=sections), 60.0, seed) for seed in range(60)}

    assert any("the one that returns" in text for text in formed("ABCBDB"))
    assert not any("the one that returns" in text for text in formed("ABCBDA"))


def test_the_chord_that_sounds_longest_has_its_commonest_name():
    chords = tuple(Segment(2.0 * at, 2.0 * at + 2, name) for at, name in enumerate("C:7 G C G C G C F C".split()))
    assert longest(progression(chords))[0] == "C"


def test_degrees_are_named_only_where_the_key_is_sure():
    chords = tuple(Segment(2.0 * at, 2.0 * at + 2, name) for at, name in enumerate(("E:min C G D " * 6).split()))
    sure = Facts(key=Key("E", "minor"), chords=chords, confidence=Confidence(key=0.9))
    assert "i-VI-III-VII" in write_caption("technical", sure, 48.0)
    unsure = dataclasses.replace(sure, confidence=Confidence(key=0.5))
    assert "VI" not in write_caption("technical", unsure, 48.0)


def test_styles_are_those_that_can_be_asked_for():
    assert STYLES.keys() == CAPTION_STYLES.keys() - {"lyrics"}


def test_one_fact_is_told_in_one_plain_sentence():
    facts = Facts(tempo=Tempo(120.0), key=Key("A", "minor"), vocals=Voices(False), confidence=Confidence(key=0.7))
    told = [tell(name, facts) for name in ("tempo", "key", "vocals", "meter", "sections")]
    assert told == ["The tempo is 120 BPM.", "It is probably in A minor.", "Nobody sings.", None, None]
