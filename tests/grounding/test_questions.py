"""Laws of questions that facts decide: what is asked is read from the words, what is answered was measured, the rest is admitted."""

from __future__ import annotations

import dataclasses

import pytest

from mflamingo_cli.core.audio import Sound, Source
from mflamingo_cli.grounding import PHRASES, SURE, facts_text
from mflamingo_cli.grounding.questions import KINDS, Known, facts_asked, heard, is_yes_or_no, read, reply
from mflamingo_cli.grounding.replies import mixing_keys, named_key, scale
from mflamingo_cli.grounding.wordings import in_english
from mflamingo_cli.measure import Confidence, Facts, Key, Loudness, Segment, Tempo, Voices
from mflamingo_cli.schema import Clipped, Dynamics, FormPart, KeySpan, LoudPart, SongTags, Tag
from mflamingo_cli.tasks import TASKS
from mflamingo_cli.train.mini.dialogue.questions import QUESTIONS, UNKNOWN, YES_NO
from tests.bench.questions import verdicts

NO_ANSWER = "I cannot tell that from the sound."
SUNG = "Somebody sings, 0:12 to 0:20 and 0:40 to 0:50; more of the voice I cannot tell from the sound."
CHORDS = ("C:maj", "G:maj", "A:min", "F:maj", "C:maj", "G:maj", "A:min", "N")
FACTS = Facts(
    tempo=Tempo(124.0, (62.0,)),
    key=Key("C", "minor"),
    keys=(KeySpan(0.0, 64.0, "C minor", 0.9),),
    meter="4/4",
    beats=tuple((0.5 + 60 / 124 * number, 1 + number % 4) for number in range(200)),
    chords=tuple(Segment(8.0 * number, 8.0 * number + 8, label) for number, label in enumerate(CHORDS)),
    sections=(
        FormPart(0.0, 16.0, "A", None, -9.1),
        FormPart(16.0, 32.0, "B", None, -12.4),
        FormPart(32.0, 64.0, "A", None, -8.7, 0),
    ),
    loudness=Loudness(-9.8, 5.0, 0.7, Clipped(12, 0.0034)),
    dynamics=Dynamics(LoudPart(40.0, 52.0, -7.2), LoudPart(0.0, 9.3, -18.4), 3.25, 1840.0),
    confidence=Confidence(0.97, 0.9, 0.9),
)
TAGS = SongTags("Ocean", "Will Savino", "HyperRogue", "2004")
SONG = Known(FACTS, Sound("sha256:0", 64 * 16_000, Source("a.flac", 64.0, 44_100, 2, "flac", TAGS), 0.0, 16_000, ()))
UNSURE = Known(dataclasses.replace(FACTS, confidence=Confidence(0.7, 0.7, 0.7)), SONG.sound)
GUESSED = Known(dataclasses.replace(FACTS, confidence=Confidence(0.4, 0.4, 0.4)), SONG.sound)
NOTHING = Known(Facts(), dataclasses.replace(SONG.sound, source=dataclasses.replace(SONG.sound.source, tags=None)))

ANSWERS = {
    "What is the tempo?": "The tempo is 124 BPM.",
    "How fast is this?": "The tempo is 124 BPM.",
    "What BPM is this, and does it change?": "The tempo is 124 BPM. It does not change by more than 4 %.",
    "Is it faster than 120?": "Yes: the tempo is 124 BPM.",
    "Is the tempo below 120 BPM?": "No: the tempo is 124 BPM.",
    "Is it faster or slower than 130 BPM?": "Slower: the tempo is 124 BPM.",
    "Is it 124 BPM?": "Yes: the tempo is 124 BPM.",
    "Is this a slow song?": "No: it is fast, at 124 BPM.",
    "What is it in half-time?": "Half the tempo is 62 BPM, twice the tempo 248 BPM.",
    "What key is it in?": "It is in C minor.",
    "Is it in a major or a minor key?": "Minor: it is in C minor.",
    "Is it in a minor key?": "Yes: it is in C minor.",
    "Is it a major key?": "No: it is in C minor.",
    "Is it in A minor?": "No: it is in C minor.",
    "Is it in 5A?": "Yes: it is in C minor.",
    "Which scale should I solo with?": "It is in C minor: play C D Eb F G Ab Bb, or the minor pentatonic C Eb F G Bb.",
    "Does the key change?": "The key does not change: it is in C minor.",
    "How many flats does it have?": "C minor has 3 flats: Bb Eb Ab.",
    "What is the relative major?": "It is in C minor, whose relative key is Eb major.",
    "What is its Camelot code?": "It is in C minor: 5A on the Camelot wheel, 10m in Open Key.",
    "Which Camelot keys mix well with this?": (
        "It is in 5A (C minor), which mixes well with itself, 4A (F minor), 6A (G minor) and 5B (Eb major)."
    ),
    "What would I mix this with?": "A song in 5A (C minor), 4A (F minor), 6A (G minor) or 5B (Eb major), at 114.1 to 133.9 BPM.",
    "What is the time signature?": "It is in 4/4.",
    "Is it in 3/4?": "No: it is in 4/4.",
    "Is it a waltz?": "No: it is in 4/4.",
    "Where is the first downbeat?": "The first downbeat is at 0.50 s.",
    "What are the chords?": "Its main chords are C, G, Am and F.",
    "What chord is playing at 0:30?": "F at 0:30.",
    "What chord is playing at 30 seconds?": "F at 0:30.",
    "Which chord sounds at 1:00?": "No chord sounds at 1:00.",
    "What chord is playing at 9:00?": "9:00 is outside: the music runs from 0:00 to 1:04.",
    "What chord does it start on?": "C, at 0:00.",
    "What is the last chord?": "Am, at 0:48.",
    "What chord comes after the first one?": "G, at 0:08.",
    "What comes after G?": "After G comes Am.",
    "Which chord follows Bb?": "Bb is not among its chords.",
    "Is there a G7 chord?": "No: G7 is not among its chords.",
    "Does it use Am?": "Yes: Am, first at 0:16.",
    "How many chords are there?": "4 different chords, which change 6 times.",
    "What are the chords of section B?": "B, from 0:16: Am - F.",
    "When does the second section begin?": "The second section is B, 0:16 to 0:32.",
    "When does the tenth section start?": "There are only 3 sections: A 0:00, B 0:16, A 0:32.",
    "Where does section B start?": "Section B: 0:16 to 0:32.",
    "Does section A come back?": "Yes: section A comes 2 times: 0:00 to 0:16 and 0:32 to 1:04.",
    "Does section B come back?": "No: section B comes once, from 0:16 to 0:32.",
    "Is section A louder than section B?": "Yes: A (0:00 to 0:16) is at -9.1 LUFS, B (0:16 to 0:32) is at -12.4 LUFS.",
    "Which is longer, section A or section B?": "Neither: A (0:00 to 0:16) lasts 0:16, B (0:16 to 0:32) lasts 0:16.",
    "Which section is louder, section B or A?": "A is louder: B (0:16 to 0:32) is at -12.4 LUFS, A (0:00 to 0:16) is at -9.1 LUFS.",
    "Transpose it up 0 semitones": "C minor, up 0 semitones, is C minor.",
    "Where is section C?": "There is no section C: A 0:00, B 0:16, A 0:32.",
    "Which section is at 0:20?": "Section B, 0:16 to 0:32.",
    "What happens at 0:16?": "Section B begins around 0:16, 3.3 LU softer than A before it; the chord is Am.",
    "What is going on at 0:40?": "It is in section A, 0:32 to 1:04; the chord is G.",
    "What changes at 9:00?": "9:00 is outside: the music runs from 0:00 to 1:04.",
    "How does it end?": "It ends with section A, from 0:32, 3.7 LU louder than B before it; the last chord is Am.",
    "How does the song begin?": "It begins with section A, until 0:16; the first chord is C.",
    "What happens at the very end?": "It ends with section A, from 0:32, 3.7 LU louder than B before it; the last chord is Am.",
    "What is the loop in section B?": "B, from 0:16: Am - F.",
    "Is there a chord loop?": "No: no loop of chords carries most of it. Its main chords are C, G, Am and F.",
    "What is the loop?": "No loop of chords carries most of it. Its main chords are C, G, Am and F.",
    "What are the notes of the first chord?": "C has the notes C E G.",
    "What are the notes of the last chord?": "Am has the notes A C E.",
    "What are the notes of the tenth chord?": "No chord: it has 7, and the last one is Am at 0:48.",
    "Is the last chord the tonic?": "No: its last chord is Am, and it is in C minor.",
    "Is 0:30 in section A?": "No: it is in section B, 0:16 to 0:32.",
    "How long is a 16th note in ms?": "A sixteenth note lasts 121 ms at 124 BPM.",
    "What would you pitch it to for 128 BPM?": "128 BPM is 3.2 % faster than the song, which is at 124 BPM.",
    "Does it go faster towards the end?": "The tempo is 124 BPM. It does not change by more than 4 %.",
    "Which chords are borrowed?": "C, Am and F are borrowed from the parallel major of C minor.",
    "Which cadence does it use?": "No chord leads home to the tonic often enough to be called its cadence.",
    "Is it in a dorian mode?": "No: it is in C minor.",
    "Which chords are used most?": "C (0:16), G (0:16) and Am (0:16) sound longest.",
    "Where do its parts start?": "3 sections: A 0:00, B 0:16, A 0:32.",
    "What is the form?": "3 sections: A 0:00, B 0:16, A 0:32.",
    "How loud is it, and is it clipped?": (
        "It is at -9.8 LUFS, which is loud. Yes: samples stay at full scale or beyond it 12 times, 3.4 ms in all."
    ),
    "Is it louder than -14 LUFS?": "Yes: the loudness is -9.8 LUFS.",
    "Is it loud?": "Yes: the loudness is -9.8 LUFS.",
    "How dynamic is it?": "The loudness range is 5 LU.",
    "What is its true peak?": "Its true peak is 0.7 dBTP, above full scale, so a player may clip it.",
    "Is there any clipping?": "Yes: samples stay at full scale or beyond it 12 times, 3.4 ms in all.",
    "Where is the loudest part?": "The loudest part is 0:40 to 0:52, at -7.2 LUFS.",
    "What is the quietest moment of the song?": "The quietest part is 0:00 to 0:09, at -18.4 LUFS.",
    "How busy is it?": "On average, 3.2 notes or hits begin in a second.",
    "How bright is this track?": "The spectral centroid is at 1.8 kHz.",
    "How long is the song?": "It lasts 1:04.",
    "Is it longer than two minutes?": "No: it lasts 1:04.",
    "Does it last more than 60 s?": "Yes: it lasts 1:04.",
    "Who is the artist?": "The file's tags name the artist Will Savino.",
    "Which album is it from?": "The file's tags name the album HyperRogue.",
    "Is it in stereo?": "The file is flac, 44.1 kHz, stereo.",
    "How sure are you?": "Probability of being right: tempo 97 %, key 90 %, meter 90 %.",
}
REFUSED = {
    "Which instruments do you hear?": "I cannot tell the instruments from the sound.",
    "What genre is this?": "I cannot tell the genre from the sound.",
    "What is the mood?": "I cannot tell the mood from the sound.",
    "Is it sung?": "Whether somebody sings is not clear.",
    "Is there a guitar?": "I cannot answer that with yes or no; I know its tempo, key, chords, sections, loudness and length.",
    "Is the singer male or female?": NO_ANSWER,
    "What language is it sung in?": NO_ANSWER,
    "What are the lyrics?": NO_ANSWER,
    "What are the chords of the chorus?": "Which section is the chorus cannot be told; ask for one by its letter: A 0:00, B 0:16, A 0:32.",
    "Where does the drop start?": "Which section is the drop cannot be told; ask for one by its letter: A 0:00, B 0:16, A 0:32.",
    "What is the tempo of the drums?": NO_ANSWER,
    "How long does it take to learn this?": NO_ANSWER,
    "": NO_ANSWER,
}


@pytest.mark.parametrize("question", ANSWERS)
def test_what_facts_decide_is_answered_from_them(question: str) -> None:
    assert reply(question, SONG) == (ANSWERS[question], True)


@pytest.mark.parametrize("question", REFUSED)
def test_what_they_do_not_decide_is_admitted(question: str) -> None:
    assert reply(question, SONG) == (REFUSED[question], False)


@pytest.mark.parametrize("question", [*ANSWERS, *REFUSED])
def test_nothing_is_said_of_a_song_of_which_nothing_is_known(question: str) -> None:
    """But its length and its file, which are always known."""
    known = {name for name in ("duration", "duration_than", "file") if any(asked.kind is KINDS[name] for asked in read(question))}
    assert reply(question, NOTHING).answers == bool(known)


@pytest.mark.parametrize(("question", "answer"), [
    ("What is the tempo?", "The tempo is probably 124 BPM, or 62."),
    ("What key is it in?", "It is probably in C minor."),
    ("Is it faster than 120?", "Probably yes: the tempo is 124 BPM."),
    ("Does the tempo change?", "The tempo is probably 124 BPM, or 62. Whether it changes is not sure."),
    ("What would I mix this with?", "A song in 5A (C minor), 4A (F minor), 6A (G minor) or 5B (Eb major), at 114.1 to 133.9 BPM. "
     "The tempo and the key of this one are not sure."),
])  # fmt: skip
def test_what_is_not_sure_is_said_so(question: str, answer: str) -> None:
    assert reply(question, UNSURE) == (answer, True)


def test_a_tempo_that_changes_is_named_with_both() -> None:
    slow = [(0.6 * number, 1 + number % 4) for number in range(60)]
    fast = [(36.0 + 60 / 140 * number, 1 + number % 4) for number in range(80)]
    song = Known(dataclasses.replace(FACTS, beats=(*slow, *fast)), SONG.sound)
    assert reply("Does it speed up?", song).text == "The tempo is 124 BPM. It changes between 100 and 140 BPM."


def test_keys_are_named_with_their_starts_and_a_church_mode_has_its_own_notes() -> None:
    spans = (KeySpan(0.0, 24.0, "C major", 0.9), KeySpan(24.0, 48.0, "D major", 0.6))
    song = Known(dataclasses.replace(FACTS, keys=spans, key=Key("D", "minor"), scale="D dorian"), SONG.sound)
    assert reply("Is there a key change?", song).text == "The key probably changes: C major from 0:00 and D major from 0:24."
    assert reply("Which scale fits?", song).text == "It is in D minor, and its scale is D dorian: play D E F G A B C."
    assert reply("What mode is it in?", song).text == "Minor: it is in D minor, and its scale is D dorian."
    theirs = "Dm, Em, F, G, Am, Bdim and C"
    assert (
        reply("Which chords belong to this key?", song).text == f"It is in D minor, and its scale is D dorian, whose chords are {theirs}."
    )
    assert reply("What is the IV chord?", song).text == "It is in D minor, and its scale is D dorian; its IV is G."
    assert reply("What is the IV chord of D minor?", song).text == "The IV of D minor is Gm."


@pytest.mark.parametrize(("question", "sung", "unsung"), [
    ("Is it sung?", "Yes: somebody sings, 0:12 to 0:20 and 0:40 to 0:50.", "No: nobody sings."),
    ("Is it instrumental?", "No: somebody sings, 0:12 to 0:20 and 0:40 to 0:50.", "Yes: nobody sings."),
    ("When does somebody sing?", "Somebody sings, 0:12 to 0:20 and 0:40 to 0:50.", "No: nobody sings."),
    ("Who sings?", SUNG, "Nobody sings."),
    ("What are the vocals like?", SUNG, "Nobody sings."),
    ("Does anybody sing?", "Yes: somebody sings, 0:12 to 0:20 and 0:40 to 0:50.", "No: nobody sings."),
])  # fmt: skip
def test_who_sings_and_when(question: str, sung: str, unsung: str) -> None:
    spans = (Segment(12.0, 20.0, "singing"), Segment(22.0, 30.0, "speech"), Segment(40.0, 50.0, "singing"))
    for voices, answer in ((Voices(True, spans), sung), (Voices(False), unsung)):
        assert reply(question, Known(dataclasses.replace(FACTS, vocals=voices), SONG.sound)) == (answer, answer != SUNG)


@pytest.mark.parametrize(("question", "answer"), [
    ("Is there a chord loop?", "Yes: C, Am, Fm and G go round for 100 % of the harmony, I-vi-iv-V in degrees."),
    ("What is the loop?", "C, Am, Fm and G go round for 100 % of the harmony, I-vi-iv-V in degrees."),
    ("Are there any borrowed chords?", "Fm is borrowed from the parallel minor of C major."),
    ("Which cadence does it use?", "G, the dominant, leads home to C."),
])  # fmt: skip
def test_what_the_chords_of_a_loop_do_is_told(question: str, answer: str) -> None:
    chords = tuple(Segment(4.0 * at, 4.0 * at + 4, name) for at, name in enumerate(["C:maj", "A:min", "F:min", "G:maj"] * 4))
    assert reply(question, Known(dataclasses.replace(FACTS, key=Key("C", "major"), chords=chords), SONG.sound)) == (answer, True)
    assert not reply(question, Known(dataclasses.replace(FACTS, key=None, chords=()), SONG.sound)).answers


@pytest.mark.parametrize(("question", "answer"), [
    ("Which instruments do you hear?", "I hear guitar and drums; there may be others."),
    ("What genre is this?", "It sounds like rock."),
    ("What is the mood?", "It sounds calm."),
])  # fmt: skip
def test_what_is_measured_of_tags_is_named(question: str, answer: str) -> None:
    tags = (Tag("genre", "rock"), Tag("instruments", "guitar"), Tag("instruments", "drums"), Tag("mood", "calm"))
    assert reply(question, Known(dataclasses.replace(FACTS, tags=tags), SONG.sound)) == (answer, True)


def test_a_tag_that_is_there_is_said_to_be_and_one_that_is_not_is_not_denied() -> None:
    song = Known(dataclasses.replace(FACTS, tags=(Tag("genre", "rock"), Tag("instruments", "strings"))), SONG.sound)
    assert reply("Is it rock?", song) == ("Yes: it sounds like rock.", True)
    assert reply("Do you hear any strings?", song) == ("Yes: I hear strings.", True)
    assert reply("Is it metal?", song) == (NO_ANSWER, False)


def test_a_genre_is_named_by_a_noun() -> None:
    song = Known(dataclasses.replace(FACTS, tags=(Tag("genre", "classical"),)), SONG.sound)
    assert reply("What genre is this?", song).text == "It sounds like classical music."
    assert reply("Is it classical?", song).text == "Yes: it sounds like classical music."


def test_a_choice_is_answered_by_what_it_is() -> None:
    assert reply("Is it in C minor or in G minor?", UNSURE).text == "It is most likely in C minor."
    assert reply("Is it fast or slow?", UNSURE).text == "It is most likely fast, at 124 BPM."
    assert reply("Is it fast or slow?", GUESSED).text == "It is perhaps fast, at 124 BPM."
    for hertz, word in ((3000.0, "Bright"), (500.0, "Dark")):
        song = Known(dataclasses.replace(FACTS, dynamics=dataclasses.replace(FACTS.dynamics, brightness_hz=hertz)), SONG.sound)
        assert reply("Is it bright or dark?", song).text == f"{word}: the spectral centroid is at {hertz / 1000:g} kHz."


@pytest.mark.parametrize(("question", "english"), [
    ("Wie schnell ist das Lied?", "how fast is the song?"),
    ("whats the temop", "what is the tempo"),
    ("Quels sont les accords ?", "what chords ?"),
    ("Le morceau est-il en si b\u00e9mol majeur ?", "the song is it in Bb major ?"),
    ("How long are a hundred and twenty-four bars?", "How long are 124 bars?"),
    ("From one twenty to one thirty-two?", "From 120 to 132?"),
    ("Is this one twenty seconds long?", "Is this one 20 seconds long?"),
    ("Is it in B flat major or F-sharp minor?", "Is it in Bb major or F# minor?"),
    ("How long is a thirty-second note?", "How long is a thirty-second note?"),
    ("Is it in a minor?", "Is it in A minor?"),
    ("Is it in a minor key?", "Is it in a minor key?"),
    ("Is it in a major or a minor?", "Is it in a major or a minor?"),
    ("What is the tempo?", "What is the tempo?"),
])  # fmt: skip
def test_other_words_for_a_question_are_made_english(question: str, english: str) -> None:
    assert in_english(question) == english


@pytest.mark.parametrize(("question", "key"), [
    ("Ist es in C-Moll?", "C minor"), ("Ist es in c-Moll?", "C minor"), ("Ist es in F-Dur?", "F major"),
    ("Ist es in Fis-Moll?", "F# minor"),
    ("Ist es in Es-Dur?", "Eb major"), ("Ist es in H-Moll?", "B minor"), ("Ist es in B-Dur?", "Bb major"), ("Is it in A major?", "A major"),
    ("Is it in A minor?", "A minor"), ("is it in a minor?", "A minor"), ("Is it in a minor key?", None), ("È in la minore?", "A minor"),
    ("Is it in an major key?", None), ("Is it in 8A?", "A minor"),
])  # fmt: skip
def test_a_key_is_read_by_its_tonic_and_its_mode(question: str, key: str | None) -> None:
    (asked,) = read(question)
    named = named_key(asked.words)
    assert (named and named.name) == key


@pytest.mark.parametrize(("question", "answer"), [
    ("What is the dominant chord?", "It is perhaps in C minor; its dominant is Gm or G."),
    ("If I put a capo on 3, what key shape do I play?", "It is perhaps in C minor; with a capo on fret 3, play in A minor."),
    ("What are the Roman numerals of the chords?", "It is perhaps in C minor: C (I), G (V), Am (#vi), F (IV)."),
    ("How long is a 1/8 note?", "A 1/8 note lasts 242 ms at perhaps 124 BPM."),
    ("Is it faster than 120?", "Perhaps yes: the tempo is 124 BPM."),
    ("Is it faster or slower than 120?", "Perhaps faster: the tempo is 124 BPM."),
    ("How many flats does it have?", "It is perhaps in C minor, which has 3 flats: Bb Eb Ab."),
])  # fmt: skip
def test_what_is_a_guess_is_told_as_one(question: str, answer: str) -> None:
    assert reply(question, GUESSED) == (answer, True)


def test_a_chord_has_the_degree_that_theory_gives_it() -> None:
    chords = tuple(Segment(8.0 * at, 8.0 * at + 8, label) for at, label in enumerate(("C:min", "Ab:maj", "D:dim", "G:7")))
    song = Known(dataclasses.replace(FACTS, chords=chords), SONG.sound)
    assert reply("What are the Roman numerals of the chords?", song).text == "It is in C minor: Cm (i), Ab (VI), Ddim (ii°), G7 (V)."


@pytest.mark.parametrize(("key", "question", "answer"), [
    (Key("Bb", "minor"), "Is it B flat aeolian?", "Yes: it is in Bb minor."),
    (Key("C#", "minor"), "Is it in Db aeolian?", "Yes: it is in C# minor."),
    (Key("C#", "minor"), "Is it in D aeolian?", "No: it is in C# minor."),
])  # fmt: skip
def test_a_tonic_is_the_same_however_it_is_spelled(key: Key, question: str, answer: str) -> None:
    assert reply(question, dataclasses.replace(SONG, facts=dataclasses.replace(FACTS, key=key))).text == answer


@pytest.mark.parametrize(("last", "home"), [("C:min", True), ("C:min7", True), ("C:maj", False), ("C:dim", False), ("C:sus4", False)])
def test_a_song_comes_home_on_the_triad_of_its_tonic(last: str, home: bool) -> None:
    facts = dataclasses.replace(FACTS, chords=(Segment(0.0, 4.0, "G:min"), Segment(4.0, 8.0, last)))
    assert reply("Does it end on the tonic?", dataclasses.replace(SONG, facts=facts)).text.startswith("Yes" if home else "No")


def test_one_missed_beat_is_no_change() -> None:
    beats = FACTS.beats[:77] + FACTS.beats[78:]
    assert "does not change" in reply("Is the tempo steady?", Known(dataclasses.replace(FACTS, beats=beats), SONG.sound)).text


@pytest.mark.parametrize(("key", "notes"), [
    (Key("C", "major"), "C D E F G A B"),
    (Key("F#", "major"), "F# G# A# B C# D# E#"),
    (Key("Bb", "minor"), "Bb C Db Eb F Gb Ab"),
    (Key("G#", "minor"), "G# A# B C# D# E F#"),
])  # fmt: skip
def test_a_scale_has_every_letter_once(key: Key, notes: str) -> None:
    assert " ".join(scale(key.tonic, key.mode)) == notes


def test_keys_that_mix_are_neighbours_on_the_camelot_wheel() -> None:
    for mode, side, other in (("major", "B", "A"), ("minor", "A", "B")):
        for pitch in range(12):
            own, *near = [key.camelot for key in mixing_keys(Key.of(pitch, mode))]
            hour = int(own[:-1])
            assert set(near) == {f"{hour % 12 + 1}{side}", f"{(hour - 2) % 12 + 1}{side}", f"{hour}{other}"}


# --- the words of people -------------------------------------------------------------------------------------------------

SLOTS = {"nth": "third", "letter": "B", "bpm": "120", "mode": "minor", "key": "A minor", "meter": "3/4", "pace": "slow", "chord": "Am"}
SLOTS |= {
    "minutes": "two minutes",
    "lufs": "-14",
    "a": "guitar",
    "b": "bass",
    "is_there": "Is there a guitar",
    "genre": "jazz",
    "name": "jazz",
    "volume": "loud",
}
READ_AS = {  # the kinds of mini's training that facts decide
    "tempo": {"tempo"}, "key": {"key", "key_mode"}, "mode": {"key_mode"}, "meter": {"meter"},
    "chords": {"chords"}, "wheel": {"key_codes"},
    "relative": {"key_relative"}, "tempo_and_key": {"tempo", "key"}, "is_loud": {"volume"},
    "instruments": {"instruments"}, "genre": {"genre"}, "mood": {"mood"}, "vocals": {"vocals"},
    "sections": {"form"}, "form": {"form"}, "nth_section": {"section_nth"}, "section_start": {"section_start"},
    "section_count": {"section_start"}, "loudness": {"loudness"}, "duration": {"duration"}, "tempo_than": {"tempo_than"},
    "is_mode": {"key_is"}, "is_key": {"key_is"}, "is_meter": {"meter_is"}, "is_above": {"tempo_than"}, "is_below": {"tempo_than"},
    "is_pace": {"pace"}, "is_longer": {"duration_than"}, "is_shorter": {"duration_than"}, "is_louder": {"loudness_than"},
    "has_chord": {"chord_has"}, "comes_back": {"section_back"}, "is_sung": {"vocals"}, "is_instrumental": {"vocals"},
}  # fmt: skip
SPOKEN = [(kind, words.format(**SLOTS)) for kind, several in (QUESTIONS | YES_NO).items() if kind in READ_AS for words in several]


@pytest.mark.parametrize(("kind", "question"), SPOKEN)
def test_a_question_is_read_in_all_the_words_that_mini_was_taught(kind: str, question: str) -> None:
    names = {name for name, one in KINDS.items() if any(asked.kind is one for asked in read(question))}
    assert names <= READ_AS[kind]
    assert names


ADMITTED = {"artist", "title", "album", "year", "named_section", "key_changes", "tempo_changes", "vocals", "mood", "genre"}


@pytest.mark.parametrize("question", [words.format(m=1, s="05") for words in UNKNOWN])
def test_what_nobody_can_know_is_not_taken_for_a_fact(question: str) -> None:
    names = {name for name, one in KINDS.items() if any(asked.kind is one for asked in read(question))}
    assert names <= ADMITTED


@pytest.mark.parametrize(("question", "task"), [
    ("Tell me about this song.", None), ("Describe it.", None), ("Sum it up in one sentence.", None),
    ("Which instruments do you hear?", "instruments"), ("What genre is it and how fast is it?", None), ("What is the tempo?", None),
    ("Tell me the tempo of this song.", None), ("Describe the mood of this song.", "mood"), ("Who made it?", None),
])  # fmt: skip
def test_what_only_hearing_decides_is_the_model_s(question: str, task: str | None) -> None:
    assert heard(question) == task


def test_a_kind_hears_a_task_and_names_facts_that_a_prompt_has() -> None:
    assert {kind.hears for kind in KINDS.values()} - {None} <= TASKS.keys()
    assert {name for kind in KINDS.values() for name in kind.facts} <= {*PHRASES, "duration", "tags"}


def test_a_prompt_holds_the_facts_that_are_asked_about() -> None:
    assert facts_asked("What would I mix this with?") == {"tempo", "key"}
    assert facts_asked("Tell me about this song.") is None
    given = facts_text(FACTS, 64.0, SURE, facts_asked("What is the tempo, and how long is it?"))
    assert given == "Measured facts: tempo 124 BPM; duration 64 s."


@pytest.mark.parametrize("question", ["Is this a slow song?", "does anyone sing", "Is it in 3/4?"])
def test_a_question_for_yes_or_no_is_recognised(question: str) -> None:
    assert is_yes_or_no(question)


@pytest.mark.parametrize("question", [
    "What key is this in?", "Can you tell me the key?", "Which chords do you hear?", "Describe it.", "", "Is it in a major or a minor key?",
])  # fmt: skip
def test_other_questions_are_not(question: str) -> None:
    assert not is_yes_or_no(question)


def test_a_hostile_question_is_read_in_no_time() -> None:
    for words in ("is it in " * 33, "chord " * 49 + "at", "A" * 300, "is there a " + "b" * 280, "more than " * 30, "(" * 300):
        assert reply(words, SONG).text
    for words in ("is it in " * 2000, "chord " * 3000 + "at", "A" * 20_000, "is there a " + "b" * 9000, "more than " * 2000, "(" * 5000):
        assert reply(words, SONG).text


def test_questions_in_many_words_are_answered_or_rightly_refused() -> None:
    found = [verdict for *_, verdict in verdicts()]
    assert len(found) >= 250
    assert found.count("right") >= 0.97 * len(found)
