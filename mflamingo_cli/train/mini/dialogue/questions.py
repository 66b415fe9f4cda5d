"""The words of questions: the first of each list is the one the command line asks. Slots in braces are filled by `answers`."""

from __future__ import annotations

from mflamingo_cli.styles import CAPTION_STYLES
from mflamingo_cli.tasks import TASKS

QUESTIONS: dict[str, tuple[str, ...]] = {
    "tempo": (
        TASKS["tempo"].prompt, "What is the tempo?", "How fast is this?", "How many beats per minute?", "What tempo does the song have?",
        "Tell me the BPM.", "bpm?", "What's the tempo of this track in BPM?", "Which tempo is it in?",
    ),
    "key": (
        TASKS["key"].prompt, "What key is this in?", "Which key is the track in?", "Tell me the key.", "key?", "What is the key?",
        "Name the tonic and mode.", "In which key is this piece written?", "What's the tonality of this music?",
    ),
    "mode": (
        "Is this song in major or minor?", "Major or minor?", "Is the key major or minor?", "Is it a major or a minor key?",
        "What is the mode, major or minor?",
    ),
    "wheel": ("What is its Camelot code?", "Which Camelot key is it?", "Give me the Camelot code."),
    "relative": ("What is the relative key?", "Which key is relative to this one?"),
    "tempo_and_key": ("What are the tempo and the key?", "Tell me the tempo and the key.", "Which tempo and which key does it have?"),
    "meter": (
        TASKS["meter"].prompt, "What's the time signature?", "What is the meter?", "Which meter is this in?", "In which meter is it?",
        "Tell me the time signature.", "meter?", "How is it counted?",
    ),
    "chords": (
        TASKS["chords"].prompt, "What chords are used?", "Which chords do you hear?", "What are the chords?", "Name the main chords.",
        "What are the main chords of this track?", "chords?", "What is the chord progression?", "List the chords.",
    ),
    "instruments": (
        TASKS["instruments"].prompt, "Which instruments are playing?", "What instruments do you hear?", "Name the instruments.",
        "List every instrument you can hear.", "What is it played on?", "instruments?", "Which instruments are used in this track?",
    ),
    "louder": ("Which is louder, the {a} or the {b}?", "What is more prominent, {a} or {b}?", "Is the {a} or the {b} louder?"),
    "genre": (
        TASKS["genre"].prompt, "What genre is it?", "Which style is this?", "What kind of music is this?", "Name the genre.", "genre?",
        "What style of music do you hear?", "Which genre does this track belong to?",
    ),
    "mood": (
        TASKS["mood"].prompt, "What mood does it have?", "Describe the mood.", "How does it feel?", "mood?", "Which mood does it set?",
    ),
    "vocals": (
        TASKS["vocals"].prompt, "Does this song have vocals?", "Describe the vocals, if there are any.", "vocals?",
        "Is it sung or instrumental?",
    ),
    "sections": ("How many sections does it have?", "How many parts does the song have?", "How many sections are there?"),
    "form": ("What is the form?", "List the sections with their times.", "What is the structure of this song?", "How is the song built?"),
    "nth_section": ("When does the {nth} section start?", "At what time does the {nth} section begin?", "Where does the {nth} part start?"),
    "section_start": ("When does section {letter} start?", "At what times does section {letter} begin?", "Where is section {letter}?"),
    "section_count": ("How often does section {letter} appear?", "How many times is section {letter} played?"),
    "loudness": ("How loud is it?", "What is the loudness?", "How many LUFS does it have?", "What is the integrated loudness?"),
    "duration": ("How long is it?", "How long is the song?", "What is the duration?", "How many seconds does it last?"),
    "tempo_than": ("Is it faster or slower than {bpm} BPM?", "Faster or slower than {bpm} BPM?", "Is the tempo above or below {bpm} BPM?"),
}  # fmt: skip
YES_NO: dict[str, tuple[str, ...]] = {  # answered "Yes." and "No." equally often
    "is_mode": ("Is this song in a {mode} key?", "Is it {mode}?", "Is the track in {mode}?", "Is this a {mode} key?"),
    "is_key": ("Is the key {key}?", "Is it in {key}?", "Is this song in {key}?", "Is {key} the key?"),
    "is_meter": ("Is it in {meter}?", "Is the meter {meter}?", "Is the time signature {meter}?", "Is this counted in {meter}?"),
    "is_above": ("Is the tempo above {bpm} BPM?", "Is it faster than {bpm} BPM?", "Does it have more than {bpm} BPM?"),
    "is_below": ("Is the tempo below {bpm} BPM?", "Is it slower than {bpm} BPM?", "Does it have less than {bpm} BPM?"),
    "is_pace": ("Is it {pace}?", "Is this a {pace} song?", "Is the tempo {pace}?"),
    "is_longer": ("Is it longer than {minutes}?", "Does it last more than {minutes}?", "Is the song longer than {minutes}?"),
    "is_shorter": ("Is it shorter than {minutes}?", "Does it last less than {minutes}?", "Is the song shorter than {minutes}?"),
    "is_louder": ("Is it louder than {lufs} LUFS?", "Is the loudness above {lufs} LUFS?"),
    "is_loud": ("Is it {volume}?", "Is this a {volume} track?", "Is the song {volume}?"),
    "has_chord": ("Is {chord} among the chords?", "Does it use the chord {chord}?", "Is {chord} one of the chords?"),
    "comes_back": ("Does section {letter} come back?", "Is section {letter} repeated?", "Does section {letter} return?"),
    "has_instrument": ("{is_there}?", "Can you hear {a}?", "Do you hear {a}?", "Does it have {a}?", "{is_there} in this song?"),
    "is_genre": ("Is this {genre}?", "Is it {genre}?", "Is the genre {name}?", "Would you call it {genre}?"),
    "is_sung": (
        "Is there singing?", "Are there vocals?", "Does anybody sing?", "Is there a singer?", "Can you hear a voice?", "Does someone sing?",
        "Is anyone singing in this song?",
    ),
    "is_instrumental": ("Is it instrumental?", "Is this an instrumental track?", "Is the song without vocals?"),
}  # fmt: skip
CHOICE = "{question} Choose the correct option from the following options:\n{options}"  # documented, as in the benchmarks of the paper
SPOKEN_INSTRUMENT = {  # with its article; plurals ask "Are there"
    "piano": "a piano", "mallets": "mallets", "organ": "an organ", "guitar": "a guitar", "bass": "a bass", "strings": "strings",
    "choir": "a choir", "brass": "brass", "sax": "a saxophone", "woodwind": "a woodwind", "synth": "a synth", "drums": "drums",
}  # fmt: skip
PLURALS = frozenset({"mallets", "strings", "drums"})
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
COUNTED = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
UNKNOWN: tuple[str, ...] = (  # neither sound nor measurement answers these
    "Who is the artist?", "Who sings this?", "Who wrote this song?", "What is the title?", "What is this song called?",
    "Which album is it from?", "What year was it released?", "When was this recorded?", "How old is this recording?",
    "Where does this music come from?", "Which country is it from?", "What are the lyrics?", "What does the singer sing about?",
    "What language are the lyrics in?", "What is the song about?", "Which words are sung first?", "Is the singer male or female?",
    "How many singers are there?", "What is the singer's name?", "What emotions does it evoke?", "Is it good music?", "Do you like it?",
    "How was it produced?", "What microphone was used?", "Which software made it?", "Is there reverb on the voice?", "Is it well mixed?",
    "Who produced it?", "Is it a live recording?", "Was it recorded in a studio?", "Who is heard at {m}:{s}?", "What is sung at {m}:{s}?",
    "Which instrument plays at {m}:{s}?", "When does the chorus start?", "When does the voice enter?", "Is there a solo?",
    "When is the drop?", "Which film would it suit?", "What would you compare it with?", "Name a similar artist.", "Is it in the charts?",
    "Can I dance to it?", "Is it for children?", "Tell me a story about it.", "What colour is it?", "How many people play?",
    "Does it use samples?", "Is it copyrighted?", "Who owns the rights?", "Is it a cover?", "Which band plays?", "Who is the composer?",
    "How much does it cost?", "What brand is the guitar?", "Does the key change?", "Does the tempo change?", "Is there a modulation?",
    "Is it played well?", "What is the melody?", "Which notes are played?", "Is the guitar out of tune?", "Is the bass fretless?",
    "Is this a happy song?", "Is it sad?", "How many instruments are there?", "Is there a violin?",
    "Is there a flute?", "Does a trumpet play?",
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
