"""What a question asks: the table of kinds of questions that facts decide, in the words of people.

A question is read as one or several kinds: the first row that fits takes its words away from the rows behind it. What no row fits is not
guessed at: a model of few abilities admits it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from mflamingo_cli.grounding import NO_ANSWER, derived, replies, theory
from mflamingo_cli.grounding.prose.captions import STYLES, write_caption
from mflamingo_cli.grounding.replies import FactAnswer, Known, Words
from mflamingo_cli.grounding.wordings import in_english
from mflamingo_cli.measure.tags import RULES
from mflamingo_cli.parsers import plain
from mflamingo_cli.styles import CAPTION_STYLES

IT = r"(?:it|this|that|(?:the|this|that)(?: \w+)? (?:song|track|piece|music|tune|recording|mix|beat|loop))"
IS = rf"(?:is|are|was) {IT}"
COUNT = r"(?:\d+(?:\.\d+)?|an?|one|two|three|four|five|six|seven|eight|nine|ten)"
TIME = rf"(?P<time>\d+(?::\d\d)+|{COUNT} ?-?(?:s|secs?|seconds?|m|mins?|minutes?)\b)"
NTH = rf"(?P<nth>{'|'.join(replies.ORDINALS)}|last|\d\d?(?:st|nd|rd|th))"
BPM = r"(?P<bpm>\d{2,3}(?:\.\d+)?)(?!\d| ?(?:%|percent\b))"
TONIC = r"[A-G](?:#|b|[- ]?sharp|[- ]?flat)?"
KEY = (
    r"(?P<key>[A-H](?:is|es|s)?[- ](?:moll|dur)\b|"
    r"(?:an? )?(?:[A-Ga-g](?:#|b|[- ]?sharp|[- ]?flat)? ?)?-?(?:major|minor)|(?-i:[A-G](?:#|b)?m?)|1?\d[AB])"
)
CHORD = r"(?P<chord>[A-G][#b]?(?:m(?:aj)?|min|dim|aug|sus|add)?\d{0,2}(?:b5)?(?: (?:major|minor|diminished|augmented)\b)?)(?![\w#])"
LETTER = r"(?P<letter>[A-Z])"
OTHER_NTH = NTH.replace("<nth>", "<other_nth>")
CHANGES = r"(?:chang\w*|var(?:y|ies|iation\w*)|steady|constant|stable|stay\w*|drift\w*|fluctuat\w*|speeds? up|slows? down)"
CHORD = rf"(?-i:{CHORD})"
INSTRUMENTS = (
    r"(?:instruments?|pianos?|guitars?|bass(?:es|line)?|drums?|percussion|strings?|violins?|cellos?|synth\w*|brass|horns?|trumpets?|"
    r"sax\w*|flutes?|clarinets?|organs?|choirs?|keyboards?|vocals?|voices?|singers?|singing|rap\w*|melod\w+|solos?|lyrics?|words)"
)
UNNAMED = (
    r"(?:pre-?chorus|chorus|refrain|hook|verse|bridge|intro|outro|drop|breakdown|build-?up|coda|interlude|"
    r"(?<!i )(?<!to )solo(?! (?:with|over|to|on|along)))"
)
NAMED = "|".join(rule.name for rule in RULES)
NOTE = rf"(?P<note>{TONIC})"
LETTERS = r"(?P<letters>(?-i:[A-Ha-h]\b(?:(?:,| and| or| compared (?:to|with)| vs\.?) (?:section )?[A-Ha-h]\b)*))"
QUALIFIED = r"(?P<chord>[A-G][#b]?(?:(?:m|maj|min|dim|aug|sus|add)\d{0,2}(?:b5)?|\d{1,2}|(?<=[#b])))"  # more than a letter
ASKS_FIT = r"^\W*(?:does|do|is|can|could|would|will|should)\b[^?]*?\b(?:mix|blend|match|fit|go|work|compatible|clash)\w*\b[^?]*?"
DEGREE = r"(?P<degree>tonic|subdominant|dominant)"
SHARE = r"(?:(?:an? )?(?P<share>half|third|quarter|eighth|sixteenth|1/(?:2|3|4|8|16))(?: of)?(?: an?| the| one)?[ -])"
MANY = rf"(?:(?<![\d/.])(?P<many>\d{{1,3}}(?:\.\d+)?|{'|'.join(derived.COUNTS)})(?P<half> and a half)?[ -])"
NOTE_VALUE = (
    rf"(?:{SHARE}|{MANY})?(?:(?P<kind>dotted|triplet) )?(?P<note>(?:whole|half)(?=[ -]note)|(?:quarter|eighth|sixteenth)(?! of )|"
    r"1/(?:1|2|4|8|16|32)|beat|bar|measure)s?(?:[ -]notes?)?(?: (?P<kind_>dotted|triplet)s?)?(?P<half_> and a half)?"
)
PART = rf"(?:the )?(?:{NTH} (?:section|part)|(?:section|part) {LETTER})"
ABOUT_SO = "(?P<about>about|around|roughly|approximately|nearly|almost)"
LEVEL = r"-?\d+(?:\.\d+)?"
QUALITY = (
    r"(?P<quality>(?:(?:(?:half[- ])?diminished|dominant|major|minor)[ -])?(?:sevenths?|7ths?)|half[- ]diminished|diminished|augmented|"
    r"suspended|major|minor)"
)
AMOUNT = r"(?:by )?(?P<amount>an?|one|two|three|four|five|six|seven|eight|nine|ten|\d\d?)?"
UNIT = (
    r"(?P<unit>(?:minor|major) (?:second|third|sixth|seventh)s?|"
    r"semitones?|half[ -]steps?|whole[ -](?:steps?|tones?)|tones?|octaves?|fifths?|fourths?)"
)
WAY = r"(?P<way>up|down|higher|lower|above|below)"
OF_A_KEY = rf" (?:in|of|to) (?:(?:the|this|its) (?:key|song|track)\b(?! of)|(?:the key of )?{KEY}(?![\w#/]))"
OF_TEMPO = (
    r"(?:^|(?<=\?))(?!\W*(?:is|are|was|were|do|does|did|has)\b)"
    r"(?=[^?]*\b(?:tempo|bpm|fast\w*|slow\w*|spe+d\w*|pitch\w*|fader)\b)(?![^?]*\b(?:sure|confiden\w*|certain\w*|probab\w*|likel\w*)\b)"
)
LESS = r"(?P<slower>slow\w*|down|lower\w*|reduc\w*|decreas\w*|drop\w*)"
MORE = r"(?:faster|quicker|up|higher|rais\w*|increas\w*|sped)"
PERCENT = r"\d+(?:\.\d+)?) ?(?:%|percent\b)"  # behind the name of its group
NUMERAL = r"(?P<numeral>(?-i:VII|VI|IV|V|III|II|I|vii|vi|iv|v|iii|ii|i))"
YES_OR_NO = "I cannot answer that with yes or no"
ABOUT = "I know its tempo, key, chords, sections, loudness and length"

ASKED = "question"  # among the words of a question: all of it
MOST_CHARACTERS = 300  # of a question that is read here; a longer one is a text

Say = Callable[[Known, Words], FactAnswer]


@dataclass(frozen=True)
class QuestionKind:
    """A kind of question: the words that ask it, the sentence that answers it, and the facts that decide it, by their names in a prompt.

    Where `hears` names a task, the model is asked that, if it is able to; the sentence is for models that are not.
    """

    asks: tuple[re.Pattern[str], ...]
    say: Say
    facts: Sequence[str] = ()
    hears: str | None = None


class Asked(NamedTuple):
    """A kind of question that was asked, by its name too, where its words begin, and those that vary."""

    name: str
    kind: QuestionKind
    at: int
    words: Words


def _cannot(sentence: str = NO_ANSWER) -> Say:
    return lambda known, words: FactAnswer(sentence, answers=False)


def _row(*words: str, say: Say, facts: str = "", hears: str | None = None) -> QuestionKind:
    return QuestionKind(tuple(re.compile(one, re.IGNORECASE) for one in words), say, facts.split(), hears)


def _tags(name: str, asked: str | None = None) -> Say:
    return partial(replies.tag, name=name, asked=asked or name)


KINDS: Mapping[str, QuestionKind] = {
    # what the file itself says
    "artist": _row(
        r"\bwho (?:is|are) (?:the )?(?:artist|band|singer|composer|performer|musicians?)\b",
        rf"\bwho (?:\w+ ){{0,2}}(?:made|wrote|plays|sings|composed|performs|recorded) {IT}",
        r"\b(?:which|what|name the) (?:artist|band|composer)\b",
        r"\bwho(?:se| is) (?:song )?(?:is )?(?:it|this|that)\b",
        rf"\b{IS} by\b",
        r"(?<!similar )\bartist\b",
        facts="tags",
        say=_tags("artist"),
    ),
    "title": _row(
        rf"\bwhat(?:'s| is) {IT} called\b",
        r"\b(?:what|which) (?:song|track|tune|piece) (?:is|was) (?:this|it|that)\b",
        r"\b(?:title|name of (?:the|this) (?:song|track|tune|piece))\b",
        facts="tags",
        say=_tags("title"),
    ),
    "album": _row(r"\balbum\b", facts="tags", say=_tags("album")),
    "year": _row(
        r"\bwhat year\b",
        r"\bwhich year\b",
        rf"\b{IS} from (?:19|20)\d\d\b",
        rf"\bwhen did {IT} come out\b",
        rf"\bwhen (?:was|is) {IT} (?:released|recorded|made|written|from)\b",
        facts="tags",
        say=_tags("date", "year"),
    ),
    "file": _row(
        r"\bsampl(?:e|ing) rate\b",
        r"\b(?:codec|file (?:format|type))\b",
        rf"\b{IS} (?:in )?(?:stereo|mono)\b",
        r"^\W*(?:mono or stereo|stereo or mono)\W*$",
        r"\b\d+(?:\.\d+)? ?khz\b",
        say=replies.file_format,
    ),
    "file_is": _row(
        rf"\b{IS} (?:file )?(?:an? )?(?P<codec>wav|mp3|flac|ogg|opus|vorbis|aac|alac|lossless|lossy)\b(?: file)?", say=derived.file_is
    ),
    "why": _row(r".*\b(?:why|how do you know|how did you)\b.*", say=_cannot("I can tell what was measured, not why it is so.")),
    # how sure it is
    "confidence": _row(
        r"(?:\b(?:how|is the (?P<of>\w+)) )?\b(?:sure|certain|confident|reliable)\b(?P<about>[^?]*)",
        facts="tempo key meter",
        say=replies.confidence,
    ),
    # what a section is called
    "named_section": _row(rf".*\b(?P<part>{UNNAMED})s?\b.*", facts="sections", say=replies.named_section),
    # what follows from key, tempo and chords
    "bar_at": _row(
        r"\b(?:when|where|what time)\b[^?]*?\b(?:bar|measure) (?:number |no\.? )?(?P<number>\d{1,4})\b[^?]*",
        r"\b(?:when|where|what time)\b[^?]*?\b(?P<number>\d{1,4})(?:st|nd|rd|th) (?:bar|measure)\b[^?]*",
        rf"\b(?:when|where|what time)\b[^?]*?\b(?!first){NTH} (?:bar|measure)\b[^?]*",
        facts="beats meter",
        say=derived.bar_at,
    ),
    "bar_of": _row(rf"\b(?:which|what) (?:bar|measure|beat)\b[^?]*?\b(?:{PART}|{TIME})[^?]*", facts="beats meter", say=derived.bar_of),
    "beat_count": _row(
        r"\bhow many (?P<count>bars?|measures|beats)\b"
        rf"[^?]*?\b(?:(?:(?P<until>until|till|before|up to)|(?P<beyond>after|since|between|from)) )?{PART}\b[^?]*",
        rf"\bhow long (?:is|are|does) (?:{PART}|{IT})(?: last)? in (?P<count>bars|measures|beats)\b",
        r"\bhow many (?P<count>bars?|measures|beats)\b(?![^?]*\b(?:(?:per|an?|each|one|every) (?:bar|measure|minute)|first|last|until|till|"
        r"before|after|between|from|by|in \d+|at|sections?|parts?)\b)[^?]*",
        facts="beats meter",
        say=derived.beat_count,
    ),
    "note_length": _row(
        r"\b(?:how long|length|duration|delay(?: time)?|reverb|decay|milliseconds|ms|time between)\b[^?]*?"
        rf"\b{NOTE_VALUE}\b(?:[^?]*?\b(?:at|in|for) {BPM} ?bpm\b)?[^?]*",
        rf"\b{NOTE_VALUE} (?:delay|length|duration)\b[^?]*",
        rf"\bwhat (?:is|are) {NOTE_VALUE}\b[^?]*?\bin (?:seconds|ms|milliseconds)\b",
        facts="tempo meter",
        say=derived.note_length,
    ),
    "tempo_scaled": _row(
        rf"{OF_TEMPO}[^?]*?\b(?:percent|%|fader|factor|how much|pitch)\b[^?]*?\b(?:to|for|reach|match|get)\b[^?]*?(?<![-:\d])\b{BPM}\b"
        r"(?! ?(?:lufs|db|h?z|s|secs?|seconds?|min\w*)\b|:)[^?]*",
        rf"{OF_TEMPO}[^?]*?\b(?:at|to) (?P<share>{PERCENT}(?! (?:slower|faster|lower|higher))[^?]*",
        rf"{OF_TEMPO}[^?]*?\b(?P<share>{PERCENT} (?:of|speed)\b[^?]*",
        rf"{OF_TEMPO}(?:(?=[^?]*\b{LESS}\b)|(?=[^?]*\b{MORE}\b))[^?]*?\b(?P<percent>{PERCENT}[^?]*",
        facts="tempo",
        say=derived.tempo_scaled,
    ),
    "key_distance": _row(
        r"\bhow (?:far|(?:many|much)\b[^?]*?\b(?:semitones?|half[ -]steps?|steps?|transpos\w+))\b[^?]*?"
        rf"\b(?:to|from|in|into|of) {KEY}"
        r"(?![\w#/])[^?]*",
        rf"\b(?:in|to|into) {KEY}(?![\w#/])[^?]*?\bhow (?:many|far)\b[^?]*?\b(?:semitones?|half[ -]steps?|steps?|transpos\w+)\b[^?]*",
        facts="key",
        say=theory.key_distance,
    ),
    "transposed": _row(
        rf"(?:[^?]*?\b(?P<chords>chords)\b)?[^?]*?\b{WAY} {AMOUNT} ?{UNIT}\b[^?]*",
        rf"(?:[^?]*?\b(?P<chords>chords)\b)?[^?]*?\b{AMOUNT} ?{UNIT} {WAY}\b[^?]*",
        facts="key chords",
        say=derived.transposed,
    ),
    "capo": _row(r"[^?]*\bcapo\b[^?]*?(?P<fret>\d\d?)[^?]*", facts="key", say=derived.capo),
    "key_note": _row(
        rf"\bcan i play (?:an? )?(?-i:{NOTE}) (?:over|on|with|to|along)\b[^?]*",
        rf"\bis (?:the note )?{NOTE} (?:in|part of|within|a note (?:in|of)) (?:the |its )?(?:key|scale)\b",
        facts="key",
        say=derived.key_note,
    ),
    "ends_home": _row(
        r"\b(?P<ends>ends?|starts?|begins?|clos\w+|finish\w*) (?:on|with|at) (?:the |its )?(?:tonic|root|home)\b(?: chord)?",
        r"\bis (?:the |its )?(?P<ends>last|final|first) chord (?:the |its )?(?:tonic|root|home)\b",
        facts="chords key",
        say=theory.ends_home,
    ),
    "degree": _row(
        rf"\bchord\b[^?]*\b{DEGREE}\b",
        rf"\b{DEGREE} chord\b",
        r"\b(?:the|its) (?P<degree>subdominant|dominant)\b(?=\W*$| (?:of|in) (?:the|this) (?:song|track|key)\b)",
        facts="key",
        say=derived.degree,
    ),
    "key_chords": _row(
        rf"\bchords\b[^?]*?\b(?:belong to|fit|are in|of|in) (?:the |this |its |that )(?:key|scale)\b(?: of {KEY}(?![\w#/]))?",
        rf"\bchords are (?:there )?in (?P<key>{TONIC} ?-?(?:major|minor))\b",
        rf"\bdiatonic chords\b(?:{OF_A_KEY})?",
        rf"\b(?:the|its) {NUMERAL}(?: chord)?\b(?:{OF_A_KEY})?",
        rf"\b{NUMERAL} chord\b(?:{OF_A_KEY})?",
        facts="key",
        say=theory.key_chords,
    ),
    "chord_notes": _row(
        rf"\bnotes\b[^?]*?\b{CHORD}/(?P<bass>(?-i:[A-G][#b]?))(?![\w#])[^?]*",
        rf"\bnotes\b[^?]*?\b(?:{CHORD} chord|chord {CHORD.replace('chord', 'chord_')})\b[^?]*",
        rf"\bnotes\b[^?]*?\b(?-i:{QUALIFIED})(?![\w#])[^?]*",
        say=theory.chord_notes,
    ),
    "nth_chord_notes": _row(rf"\bnotes (?:of|in) (?:the |its )?{NTH} chord\b", facts="chords", say=theory.nth_chord_notes),
    "scale_notes": _row(
        rf"\b(?:notes\b[^?]*?\b(?:in|of)|what is) (?:the )?(?:(?:key|scale) of )?(?P<key>{TONIC} ?-?(?:major|minor))\b(?! chord)[^?]*",
        facts="key",
        say=theory.scale_notes,
    ),
    "numerals": _row(
        r"\broman numerals?\b[^?]*", r"\b(?:degrees|functions) (?:of|are) the chords\b", facts="key chords", say=derived.numerals
    ),
    "section_next": _row(
        rf"\b(?:which|what) (?:section|part)\b[^?]*?\b(?P<way>after|before|follows?) (?:section |part )?(?-i:{LETTER})\b",
        rf"\bwhat (?:(?:comes?|is|happens|plays)\b[^?]*?\b(?P<way>after|before)|(?P<way_>follows?)) (?:section|part) {LETTER}\b",
        facts="sections",
        say=derived.section_next,
    ),
    "section_share": _row(
        rf"\b(?:how much|what (?:share|percentage|fraction|proportion)|how many percent)\b[^?]*?\b(?:section|part) {LETTER}\b[^?]*",
        facts="sections",
        say=derived.section_share,
    ),
    "loop": _row(
        rf"\b(?P<whether>is there|does {IT} (?:have|use)|do you hear) (?:an? |any )?(?:chord |harmonic )?(?:loop|vamp)\b",
        r"\b(?P<whether>do(?:es)?) (?:the |its )?(?:chords?|harmony|(?:chord )?progression) (?:loop|repeat|go round|come round)\b",
        rf"\b(?P<whether>does) {IT} loop\b",
        r"\b(?:what|which) (?:is|are) (?:the|its) (?:chord |harmonic |main )?(?:loops?|vamp)\b(?! (?:in|of) (?:section|part))",
        r"\bwhich chords? (?:loop|repeat|go round|come round)\b",
        facts="chords key",
        say=derived.loop,
    ),
    "borrowed": _row(r"(?:\bchords?\b[^?]*?)?\b(?:borrowed|modal interchange)\b[^?]*", facts="chords key", say=derived.borrowed),
    "cadence": _row(
        r"\bcadences?\b[^?]*", r"\bwhich chord (?:leads|comes|resolves) (?:back )?home\b", facts="chords key", say=derived.cadence
    ),
    "chord_before": _row(
        rf"(?:\b(?:which|what) chords? )?\b(?:comes? |is |stands )?before (?:the |an? )?(?:chord )?{CHORD}",
        facts="chords",
        say=derived.chord_before,
    ),
    "chord_when": _row(
        rf"\b(?:when|where|how often|how many times)\b[^?]*?\b(?-i:{QUALIFIED})(?![\w#])[^?]*",
        rf"\b(?:when|where|how often|how many times)\b[^?]*?\b(?:{CHORD} chord|chord {CHORD.replace('chord', 'chord_')})\b[^?]*",
        rf"\b(?:when|where|how often|how many times) (?:does|do|is|are|(?:do|can) (?:you|i|we) hear) (?:the |an? )?{CHORD}"
        r"(?: (?:sound|play|occur|appear|heard|used)\w*)+[^?]*",
        rf"\b(?:when|where|how often|how many times) (?:do|can) (?:you|i|we) hear (?:the |an? )?{CHORD}[^?]*",
        facts="chords",
        say=derived.chord_when,
    ),
    "chords_in": _row(
        rf"\bchords?\b[^?]*?\b(?:between|from) {TIME} (?:and|to|until|till|-) {TIME.replace('<time>', '<until>')}",
        rf"\bchords\b[^?]*?\b(?:in )?the first {TIME}",
        r"\bchords\b[^?]*?\b(?:at the (?:beginning|start)|first)\b",
        r"\bfirst (?:\w+ )?chords\b",
        facts="chords",
        say=derived.chords_in,
    ),
    "chord_quality": _row(
        rf"\bdoes [^?]*?\b(?P<only>only|just) (?:have|use|contain)\w* {QUALITY} chords?\b",
        r"\b(?:(?:is|are) there|does [^?]*?(?:have|use|contain))\b[^?]*?(?:\b(?P<only>only|just|nothing but) )?"
        rf"(?-i:(?<![A-G] )(?<![A-G][#b] ))\b{QUALITY} chords?\b",
        rf"\b(?P<count>how many) (?:different )?{QUALITY} chords?\b[^?]*",
        rf"\b(?:is|are) (?P<only>all|every|each)(?: of)?(?: the| its)? chords? (?:an? )?{QUALITY}\b",
        rf"\b(?:is|are) (?:the |its )?chords (?P<only>all|only) {QUALITY}\b",
        facts="chords",
        say=derived.chord_quality,
    ),
    "chord_most": _row(
        r"(?:\b(?P<many>two|three|four|five|\d) )?\bchord(?P<several>s)?\b[^?]*\b(?:most|longest)\b[^?]*",
        r"\b(?:most|longest)\b[^?]*\bchord\b[^?]*",
        facts="chords",
        say=derived.chord_most,
    ),
    # sections by letter, number and time
    "section_extreme": _row(
        r"\b(?:(?:which|what) (?:section|part) is (?:the )?)(?P<extreme>longest|shortest|loudest|quietest|softest)\b"
        r"(?:,? and how (?:long|loud|quiet) is (?:it|that)\b)?",
        r"\b(?P<extreme>longest|shortest) (?:section|part)\b",
        r"\b(?P<extreme>loudest|quietest|softest) section\b",
        facts="sections",
        say=derived.section_extreme,
    ),
    "section_repeats": _row(
        r"\b(?:which|what|does any|do any) (?:sections?|parts?) (?:is |are |gets? )?(?:repeat\w*|comes? back|returns?)\b",
        facts="sections",
        say=derived.section_repeats,
    ),
    "sections_compared": _row(
        rf"\b(?:{NTH} section|(?:section|part) {LETTER})\b[^?]*?\b(?P<than>louder|quieter|softer|longer|shorter)\b[^?]*?\bthan\b"
        rf"[^?]*?\b(?:{OTHER_NTH}|(?:section|part) (?P<other>[A-Z])|(?-i:(?P<other_>[A-Z])))\b",
        r"\b(?P<which>which|what)\b[^?]*?\b(?P<than>louder|quieter|softer|longer|shorter)\b[^?]*?\b(?:section|part) (?-i:(?P<letter>[A-Z]))"
        r"[^?]*?\bor (?:section |part )?(?-i:(?P<other>[A-Z]))\b",
        facts="sections",
        say=derived.sections_compared,
    ),
    "section_loudness": _row(
        rf"\b(?:loud\w*|volume|level|quiet\w*)\b[^?]*?\b(?:sections?|parts?) {LETTERS}",
        rf"\b(?:sections?|parts?) {LETTERS}[^?]*\b(?:loud|quiet)\w*\b[^?]*",
        rf"\b(?:loud\w*|volume|level|quiet\w*)\b[^?]*?\b{NTH} (?:section|part)\b",
        r"\bhow (?:loud|quiet) (?:is|are) (?P<letters>(?-i:[A-Z]))\W*$",
        facts="sections",
        say=derived.section_loudness,
    ),
    "section_sung": _row(
        rf"\b(?:section|part) (?-i:{LETTER})\b[^?]*\b(?:sung|sing\w*|vocals?|voices?|instrumental)\b",
        rf"\b(?:sing\w*|vocals?|voices?)\b[^?]*\b(?:section|part) (?-i:{LETTER})\b",
        rf"(?:\bdoes (?:any|some)(?:body|one) )?\b(?:sing\w*|sung|vocals?|voices?)\b[^?]*\b{NTH} (?:section|part)\b",
        rf"\b{NTH} (?:section|part)\b[^?]*\b(?:sing\w*|sung|vocals?|voices?|instrumental)\b",
        facts="sections vocals",
        say=derived.section_sung,
    ),
    "moment": _row(
        rf"\bwhat (?:happens|changes|begins|starts|is (?:going on|happening|there|new|playing)|plays)\b[^?]*?\b(?:at|around) {TIME}",
        facts="sections chords",
        say=replies.moment,
    ),
    "section_is": _row(
        rf"\bis {TIME} (?:still |already )?(?:in|part of|within) (?:section|part) {LETTER}\b", facts="sections", say=replies.section_is
    ),
    "section_at": _row(rf"\b(?:which|what) (?:section|part)\b[^?]*\bat {TIME}", facts="sections", say=replies.section_at),
    "chord_beside_section": _row(
        rf"\bchords?\b[^?]*?\b(?P<way>before|after|follows?) (?:section|part) {LETTER}\b[^?]*",
        facts="chords sections",
        say=derived.chord_beside_section,
    ),
    "chords_of_section": _row(
        rf"\b(?:chords?|(?:chord )?progression|loop|harmony|changes) (?:\w+ ){{0,3}}(?:section|part) {LETTER}\b",
        rf"\bchords (?:of|in) (?-i:{LETTER})\W*$",
        rf"\bchord\b[^?]*?\b(?:start|beginning) of (?:section|part) {LETTER}\b",
        facts="chords sections",
        say=replies.chords_of_section,
    ),
    "ends": _row(
        rf"\bhow does {IT} (?P<last>end|finish|close|conclude)\b",
        rf"\bhow does {IT} (?:begin|start|open)\b",
        r"\bwhat (?:happens|is there) at the (?:very )?(?:(?P<last>end)|start|beginning)\b",
        facts="sections chords",
        say=replies.ends,
    ),
    "section_nth": _row(rf"\b{NTH} (?:section|part)\b", facts="sections", say=replies.section_nth),
    "section_back": _row(
        rf"\b(?:section|part) {LETTER}\b[^?]*?\b(?:come(?:s)? back|return|repeat)\w*", facts="sections", say=replies.section_back
    ),
    "section_start": _row(
        rf"(?:\b(?:when|where|how (?:often|long|many)|is|does|at what) [^?]*)?\b(?:section|part) {LETTER}\b[^?]*",
        r"\b(?-i:(?P<letter>[A-Z])) section\b[^?]*",
        r"\b(?:when|where) (?:does|do|is|will) (?-i:(?P<letter>[A-Z])) (?:start|begin|end|come|enter)\w*\b[^?]*",
        facts="sections",
        say=replies.section_start,
    ),
    "form": _row(
        r"\bsections\b",
        r"\bhow many (?:sections|parts)\b",
        r"\b(?:form|structure|arrangement)\b",
        rf"\bhow is {IT} (?:built|structured|arranged)\b",
        r"\bparts does\b",
        r"\b(?:when|where) do (?:its|the) parts (?:start|begin)\b",
        facts="sections",
        say=replies.form,
    ),
    # changes, before what changes
    "key_changes": _row(
        rf"\b(?:key|tonality)\b[^?.]*?\b{CHANGES}",
        rf"\b{CHANGES} (?:of |in |the )*key\b",
        r"\b(?:modulat\w+|transpos\w+|key changes?)\b",
        facts="keys key",
        say=replies.key_changes,
    ),
    "tempo_changes": _row(
        rf"\b(?:tempo|bpm|speed|pulse|beat)\b[^?.]*?\b{CHANGES}",
        rf"\b{CHANGES} (?:of |in |the )*(?:tempo|speed)\b",
        rf"\bdoes {IT} (?:speed up|slow down|(?:get|go|become) (?:faster|slower))\b[^?]*",
        facts="tempo",
        say=replies.tempo_changes,
    ),
    # between two values
    "loudness_between": _row(
        rf"\b(?:is|are|was|does)\b[^?]*?\bbetween (?P<low>{LEVEL}) ?(?:lufs |lkfs |db\w* )?(?:and|to) (?P<high>{LEVEL}) ?"
        r"(?:lufs|lkfs|db\w*)",
        facts="loudness",
        say=derived.loudness_between,
    ),
    "tempo_between": _row(
        r"\b(?:is|are|was|does)\b[^?]*?\bbetween (?P<low>\d{2,3}) ?(?:bpm )?(?:and|to) (?P<high>\d{2,3})\b"
        r"(?: ?bpm)?(?! ?(?:lufs|db|s\b|sec|min))",
        facts="tempo",
        say=derived.tempo_between,
    ),
    "mixes_with": _row(
        rf"{ASKS_FIT}"
        rf"\b(?:{BPM} ?bpm\b[^?]*?\b)?(?:in |with |to |and |into )(?:an? (?:track|song) )?(?:in )?{KEY}(?![\w#/])[^?]*",
        rf"{ASKS_FIT}\b{BPM} ?bpm\b[^?]*",
        facts="key tempo",
        say=derived.mixes_with,
    ),
    "tempo_than": _row(
        r"(?:\b(?:tempo|bpm|speed)\b[^?]{0,12}?)?\b(?P<than>faster|slower|quicker|above|below|over|under|higher|lower|more|less)"
        rf"(?P<both> or (?:faster|slower|above|below|over|under))? (?:than |or )?(?:a )?{BPM}\b(?! ?(?:lufs|db|s\b|sec|min))"
        r"(?: ?(?:bpm|beats))?",
        facts="tempo",
        say=replies.tempo_than,
    ),
    "tempo_is": _row(
        rf"\b(?:is|does|has)\b[^?]*?\b{BPM} ?(?:bpm|beats per minute)",
        rf"\bis the (?:tempo|bpm) {BPM}\b",
        rf"\b{IS} at {BPM}\b(?! ?(?:lufs|db|s\b|sec|min|hz|khz))",
        facts="tempo",
        say=replies.tempo_is,
    ),
    "pace": _row(
        rf"\b(?:{IS}|is the (?:tempo|speed)) (?:an? )?(?P<pace>fast|slow|quick|upbeat|up-?tempo)\b(?: (?:song|track|piece|one))?",
        r"\b(?:does|has) [^?]*?\ban? (?P<pace>fast|slow|quick) (?:tempo|pulse|beat|speed|pace)\b",
        facts="tempo",
        say=replies.pace,
    ),
    "tempo_octaves": _row(
        r"(?:\btempo\b[^?]*?)?\b(?:half|double)[ -]?time\b(?:[^?]*?\btempo\b)?",
        r"\b(?:half|double|twice) the (?:tempo|bpm)\b",
        facts="tempo",
        say=replies.tempo_octaves,
    ),
    # key
    "key_mixing": _row(
        r"\b(?:camelot|keys?)\b[^?]*\b(?:mix|match|fit|compatible|go(?:es)? (?:well )?with)\w*[^?]*",
        r"\b(?:compatible|matching|neighbou?ring) (?:camelot )?keys?\b",
        r"\bkeys (?:are|is) (?:close|near|related|neighbou?ring)\b[^?]*",
        r"\bharmonic(?:ally)? (?:mix\w*|compatible)\b",
        facts="key",
        say=replies.key_mixing,
    ),
    "mixing": _row(
        rf"\b(?:mix|blend|go(?:es)? well|play (?:before|after|next))\b[^?]*\b(?:with|after|before)\b(?: {IT})?",
        rf"\b(?:mix|blend|follow) {IT}(?: with)?",
        rf"\bwhat (?:goes|works|fits|mixes)(?: well| best)? with\b(?: {IT})?",
        facts="key tempo",
        say=replies.mixing,
    ),
    "key_parallel": _row(r"\bparallel (?:key|major|minor)\b", facts="key", say=replies.key_parallel),
    "key_relative": _row(r"\brelative (?:key|major|minor)\b", r"\bkeys? (?:is|are) relative\b", facts="key", say=replies.key_relative),
    "key_signature": _row(r"\bkey signature\b", r"\bhow many (?:sharps|flats)\b", facts="key", say=replies.key_signature),
    "key_scale": _row(
        r"\bscales?\b[^?]*",
        r"\b(?:which|what) notes (?:can|could|should|may|do|fit|work|belong|to|"
        rf"are in(?! (?:the |its )?(?:\w+ )?(?:chord|{INSTRUMENTS})))\b[^?]*",
        rf"\b(?:solo|improvise|jam) (?:over|with|to|on|along)(?: {IT})?\b[^?]*",
        facts="key",
        say=replies.key_scale,
    ),
    "scale_is": _row(
        rf"\b(?:{IS}|does {IT} use|is the (?:mode|scale)) (?:in )?(?:an? |the )?(?:{NOTE} )?"
        r"(?P<mode>dorian|phrygian|lydian|mixolydian|aeolian|ionian)\b(?: mode| scale)?",
        facts="key",
        say=theory.scale_is,
    ),
    "key_mode": _row(
        r"(?<!chord )(?<!chord in )(?<!chord a )"
        r"\b(?:key (?:is )?)?(?:in )?(?:an? )?(?:major|minor)(?: key)?,? or (?:in )?(?-i:an? )?(?:major|minor)\b(?: key| mode| scale)?",
        r"\bmode\b",
        facts="key",
        say=replies.key_mode,
    ),
    "key_codes": _row(r"\bcamelot\b[^?]*", r"\bopen ?key\b[^?]*", facts="key", say=replies.key_codes),
    "key_is": _row(
        rf"\b(?:{IS}|is the (?:key|song|track)) (?:in )?(?:the key of )?{KEY}(?: key)?(?![\w#/])(?! (?:second|third|sixth|seventh|chord))",
        rf"\bis {KEY} the key\b",
        facts="key",
        say=replies.key_is,
    ),
    "key": _row(r"\b(?:key|tonic|tonality|tonal cent(?:re|er))\b", facts="key", say=replies.key),
    # meter
    "meter_is": _row(
        rf"\b(?:{IS}|is the (?:meter|metre|time signature)|{IS} counted|count it) (?:in )?(?P<meter>\d\d? ?/ ?\d\d?)",
        rf"\b{IS} (?:a waltz|in (?:three|waltz time))",
        rf"\b{IS} in (?P<meter>[2-9]|1[0-2])(?![\w/:]|\s?(?:bpm|lufs|min|sec|s\b))",
        facts="meter",
        say=replies.meter_is,
    ),
    "meter_changes": _row(rf"\b(?:time[ -]?signature|meter|metre)s?\b[^?.]*?\b{CHANGES}", facts="meter", say=replies.meter_changes),
    "meter": _row(
        r"\btime[ -]?signature\b",
        r"\b(?:meter|metre)\b",
        rf"\bhow (?:is {IT}|do (?:i|you|we)|should (?:i|we)) count(?:ed)?\b(?: {IT})?",
        r"\bbeats (?:are )?(?:per|in a) bar\b",
        facts="meter",
        say=replies.meter,
    ),
    "first_beat": _row(
        r"\b(?:first )?down-?beat\b", r"\bfirst (?:beat|bar)\b", r"\bwhere (?:is|does) the one\b", facts="meter", say=replies.first_beat
    ),
    "tempo": _row(
        r"\b(?:tempo|bpm|speed|pace)\b",
        r"\bbeats (?:per|a) minute\b",
        rf"\bhow (?:fast|slow|quick) (?:is|are|was|does)\b(?: {IT})?",
        r"^\W*how fast\W*$",
        facts="tempo",
        say=lambda known, words: replies.tempo(known),
    ),
    # chords
    "chord_at": _row(
        rf"\b(?:chords?|harmony)\b[^?]*?\b(?:at|around|after) (?:the )?{TIME}",
        rf"\bat {TIME},?[^?]*\bchord\b",
        facts="chords",
        say=replies.chord_at,
    ),
    "chord_after": _row(
        rf"(?:\b(?:which|what) chords? )?\b(?:comes? )?(?:after|follows?|following) (?:the |an? )?(?:chord )?{CHORD}",
        facts="chords",
        say=replies.chord_after,
    ),
    "chord_nth": _row(
        rf"\bchord\b[^?]*\b(?P<after>after|follows?|following) the {NTH}(?: (?:one|chord))?",
        rf"\b{NTH} chord\b",
        r"\bchord\b[^?]*\b(?P<ends>starts?|begins?|opens?|ends?|clos\w+)\b[^?]*",
        r"\b(?P<ends>starts?|begins?|ends?) (?:on|with)[^?]*\bchord\b",
        facts="chords",
        say=replies.chord_nth,
    ),
    "chord_has": _row(
        rf"\b(?:is there|are there|does {IT} (?:have|use|contain)|do you hear|can you hear) (?:an? |the |any )?"
        rf"(?:chord )?{CHORD}(?: chord)?",
        rf"(?<!often )(?<!times )(?<!when )(?<!where )\bdoes (?:the )?(?:chord )?{CHORD} (?:chord )?(?:occur|appear|come|sound)\w*",
        rf"\bis (?:an? )?{CHORD} (?:among|one of|in) (?:the |its )?chords?",
        facts="chords",
        say=replies.chord_has,
    ),
    "chord_count": _row(
        r"\bhow (?:many|(?P<each>often))\b[^?]*\bchords?\b[^?]*",
        r"\bwhen do(?:es)? [^?]*\b(?:chords? change|change chords?)\b",
        r"\bhow (?P<each>long) (?:does|do|is|are) (?:each|every|an?|one|the) chords?\b[^?]*",
        facts="chords",
        say=replies.chord_count,
    ),
    "chords": _row(
        r"\bchords?\b", r"\b(?:harmony|harmonies|progression)\b", facts="chords", say=lambda known, words: replies.chords(known)
    ),
    # loudness and length
    "clipping": _row(
        r"(?:\b(?P<count>how (?:many|often|much))\b[^?]*?)?\b(?:clip\w*|unclipped|overload\w*)\b", facts="loudness", say=replies.clipping
    ),
    "distortion": _row(r"\bdistort\w*\b(?! by\s)", say=derived.distortion),
    "true_peak": _row(r"\b(?:true peak|peaks?|headroom|dbtp)\b", facts="loudness", say=replies.true_peak),
    "extreme": _row(
        r"\b(?P<extreme>loudest|quietest|softest)\b(?: (?:part|section|moment|passage|bit|point|place)\b)?",
        r"\b(?P<extreme>loud|quiet|soft)(?:er)? (?:part|moment|passage|bit)\b",
        r"\b(?:when|where)\b[^?]*\b(?:gets?|getting|becomes?) (?P<extreme>loud|quiet|soft)\w*",
        facts="dynamics",
        say=replies.extreme,
    ),
    "density": _row(
        rf"\bhow (?:busy|dense|sparse) (?:is|are) {IT}",
        r"\b(?:density|onsets?)\b",
        r"\bhow many (?:notes|onsets|hits)\b[^?]*",
        facts="dynamics",
        say=replies.density,
    ),
    "bright": _row(
        rf"\b{IS} (?:an? )?(?P<bright>bright|dark)\b(?P<or> or (?:an? )?(?:bright|dark)\b)?"
        r"(?: (?:sounding )?(?:mix|song|track|piece|sound))?",
        facts="dynamics",
        say=derived.bright,
    ),
    "brightness": _row(
        r"\b(?:brightness|spectral cent(?:roid|er|re))\b", rf"\bhow (?:bright|dark) is {IT}", facts="dynamics", say=replies.brightness
    ),
    "dynamics": _row(r"\b(?:dynamics?(?: range)?|loudness range|lra|compressed)\b", facts="loudness", say=replies.dynamics),
    "loudness_than": _row(
        r"(?:\bloudness\b[^?]{0,12}?)?\b(?P<than>louder|quieter|softer|above|below|over|under|more|less)"
        r"(?P<both> or (?:louder|quieter|softer))? (?:loud )?(?:than )?"
        r"(?P<lufs>-?\d+(?:\.\d+)?) ?(?:lufs|db\w*)",
        facts="loudness",
        say=replies.loudness_than,
    ),
    "streaming": _row(
        r"[^?]*\b(?:spotify|youtube|apple music|tidal|streaming)\b[^?]*",
        r"\btoo (?:loud|quiet|hot)\b[^?]*",
        facts="loudness",
        say=derived.streaming,
    ),
    "loudness_is": _row(
        r"^\W*(?:is|does|has)\b[^?]*?(?P<lufs>-\d+(?:\.\d+)?) ?(?:lufs|lkfs|db\w*)", facts="loudness", say=derived.loudness_is
    ),
    "volume": _row(
        rf"\b{IS} (?:an? )?(?P<volume>loud|quiet)\b(?P<or> or (?:an? )?(?:loud|quiet)\b)?(?: (?:song|track|piece|one))?",
        facts="loudness",
        say=replies.volume,
    ),
    "loudness": _row(
        r"\b(?:loudness|lufs|volume)\b",
        rf"\bhow (?:loud|quiet) (?:is|are|was) {IT}",
        r"\bhow loud\b",
        facts="loudness",
        say=replies.loudness,
    ),
    "duration_is": _row(
        rf"\b{IS} (?:{ABOUT_SO} |exactly )?{TIME}(?: (?:long|in length)\b|\W*$)",
        facts="duration",
        say=derived.duration_is,
    ),
    "duration_than": _row(
        rf"\b(?:(?P<than>longer|shorter|more|less)(?P<both> or (?:longer|shorter))? than|(?P<than_>over|under)) {TIME}",
        facts="duration",
        say=replies.duration_than,
    ),
    "duration": _row(
        rf"\bhow long (?:(?:is|are|was) {IT}|does {IT} (?:last|run|play|go on))\b",
        r"^\W*how long\W*$",
        r"\b(?:duration|running time|run-?time|length)\b(?: in (?P<seconds>seconds))?",
        r"\bhow many (?:minutes|(?P<seconds>seconds))\b[^?]*",
        facts="duration",
        say=replies.duration,
    ),
    # what only hearing decides
    "has_tag": _row(
        rf"\b(?:{IS}|does {IT} (?:have|sound|feel)|(?:is|are) there|(?:do|can) you hear)(?: (?:an?|any|some|like|the))*"
        rf" (?P<tag>{NAMED})\b(?: (?:song|track|piece|music|or \w+))?",
        say=derived.has_tag,
    ),
    "instruments": _row(
        r"\b(?:which|what|name|list)\b[^?]*\binstruments\b[^?]*",
        r"\b(?:list|name) every instrument\b[^?]*",
        r"\binstrumentation\b",
        rf"\bwhat is {IT} played (?:on|with)\b",
        r"^instruments\b",
        say=partial(replies.named, kind="instruments"),
        hears="instruments",
    ),
    "genre": _row(
        r"\b(?:genre|style)\b",
        rf"\bwhat (?:kind|sort|type) of (?:music|song|track)\b(?: is {IT})?",
        say=partial(replies.named, kind="genre"),
        hears="genre",
    ),
    "mood": _row(
        r"\bmoods?\b",
        rf"\bhow does {IT} feel\b",
        r"\b(?:vibe|atmosphere|feeling|emotions?)\b",
        say=partial(replies.named, kind="mood"),
        hears="mood",
    ),
    "vocals": _row(
        r"\b(?P<when>when|where) (?:does|do|is|are) (?:somebody|someone|anyone|the (?:voice|singer|singing|vocals?)|they)\b[^?]*",
        r"\bwhether (?:it|this) (?:is )?(?:sung|(?P<without>instrumental))\b",
        r"\bwhether (?:somebody|someone|anybody|anyone) (?:sings|is singing)\b",
        rf"\b{IS} (?:sung or instrumental|instrumental or sung)\b",
        rf"\b{IS} (?:an? )?(?P<without>instrumental)\b(?: (?:song|track|piece))?",
        r"\bis the (?:song|track|piece) (?P<without>without) (?:vocals|singing|a voice)\b",
        rf"\b{IS} (?:sung|a song with words)\b",
        rf"\bdoes {IT} have (?:any )?(?:vocals|singing|a (?:voice|singer))\b(?:\W+if so\b.*)?",
        r"\b(?:(?:is|are) there|do (?:you|i|we) hear|can (?:you|i) hear) (?:any )?(?:vocals|singing|an? (?:voice|singer|vocalist))\b",
        r"\b(?:do(?:es)?|is) (?:anyone|anybody|someone|somebody) sing(?:ing)?\b(?: in this song)?",
        r"^(?:describe the )?vocals\b.*",
        r"\bwhat (?:is|are) the (?P<who>vocals?|voice|singer|singing) like\b",
        rf"\b(?P<who>who) (?:sings|is singing|is the singer|is the vocalist)\b(?: (?:in |on )?{IT})?",
        facts="vocals",
        say=replies.vocals,
    ),
    "describe": _row(
        rf"\bsum {IT} up\b",
        r"\btell me (?:everything|all)\b[^?]*",
        rf"\b(?:describe|summari[sz]e|review|introduce|caption|sum up) {IT}\b",
        rf"\btell (?:me|us)(?: (?!a story)\w+){{0,4}}? about {IT}\b",
        r"^\W*describe\W*$",
        r"\bwhat do you hear\b",
        r"\b(?:give|write)\b[^?]*\b(?:summary|description|overview|caption|review)\b[^?]*",
        rf"\bwhat (?:is|can you say about) {IT}(?: like)?\W*$",
        say=lambda known, words: FactAnswer(write_caption(caption_style(words[ASKED]), known.facts, known.sound.duration_s)),
    ),
}
"""Every kind by its name, the more special ones first."""

_OF_A_PART = re.compile(
    rf"\b{INSTRUMENTS}\b|\b(?:language|original|cover|male|female|swing|swung|straight|shuffle)\b|"
    r"\b(?:in|at) the (?:beginning|start|end|middle)\b",
    re.IGNORECASE,
)
_YES_OR_NO = re.compile(r"\W*(?:is|are|was|were|am|does|do|did|has|have|had|can|could|will|would|should)\b", re.IGNORECASE)
_AND_WHETHER = re.compile(  # behind what was read: "and in minor", ", loud and in minor", ", in minor"
    r"\n *(?:,? ?\b(?P<joint>and|but) (?:also )?(?:is (?:it|this) )?|, )"
    r"(?P<other>(?!(?:or|if|when|where|why|how|what|which)\b)\w[^\n?]*)\W*$",
    re.IGNORECASE,
)
_BEGINS = re.compile(rf"\W*(?:(?:is|are|was|does|has) {IT}(?: (?:have|use|contain))?|(?:is|are) there)\b", re.IGNORECASE)
_OPEN = re.compile(r"\b(?:what|which|how|who|whose|when|where|why|tell|describe|name|list)\b", re.IGNORECASE)


def is_yes_or_no(question: str) -> bool:
    """Whether a question asks for yes or no: it begins with a verb, holds no question word and offers no choice."""
    return bool(_YES_OR_NO.match(question)) and not _OPEN.search(question) and " or " not in question


def read(question: str) -> list[Asked]:
    """The kinds of questions that a question asks, in the order of its words; nothing where it asks something else."""
    if question.strip() in DOCUMENTED:  # it names instruments and mixes, and is no question about them
        return [Asked("describe", KINDS["describe"], 0, {})]
    whole = in_english(plain(question)) if len(question) <= MOST_CHARACTERS else ""
    rest, found = whole, list[Asked]()
    for name, kind in KINDS.items():
        if match := next(filter(None, (pattern.search(rest) for pattern in kind.asks)), None):
            words = {slot.rstrip("_"): word for slot, word in match.groupdict().items() if word}
            found.append(Asked(name, kind, match.start(), words))
            rest = rest[: match.start()] + "\n" * (match.end() - match.start()) + rest[match.end() :]
    found.sort(key=lambda asked: asked.at)
    if found and _OF_A_PART.search(rest):  # "the tempo of the drums": not about the whole song
        return []
    if found and _YES_OR_NO.match(whole) and (other := _AND_WHETHER.search(rest)):
        if also := _also(whole, other.start("other")):
            return [*(one for one in found if one.at <= other.start()), *also]
        if other["joint"] or " and " in other["other"]:
            return []  # half an answer would be taken for a whole one
    return found


def _also(question: str, at: int) -> list[Asked]:
    """What the second half of a question for yes or no asks, which begins at a character."""
    if question[at:].startswith("not "):
        return []
    begins = _BEGINS.match(question)
    return read(f"{begins[0] if begins else 'is it'} {question[at:]}") or read(f"is it {question[at:]}")


def facts_asked(question: str) -> set[str] | None:
    """The facts that a question is about, by their names in a prompt; None where that cannot be read, or where it is about all."""
    asked = read(question)
    names = {name for one in asked for name in one.kind.facts}
    return names if asked and all(one.kind.facts for one in asked) else None


def heard(question: str) -> str | None:
    """The task that a question comes down to where only hearing decides it; None where facts do, or nothing."""
    asked = read(question)
    return asked[0].kind.hears if len(asked) == 1 else None


def reply(question: str, known: Known) -> FactAnswer:
    """Answer a question from the facts, in a sentence for each kind that it asks; what they do not decide is admitted."""
    found = read(question)
    said = [asked.kind.say(known, {**asked.words, ASKED: question}) for asked in found]
    if not said:
        return FactAnswer(f"{YES_OR_NO}; {ABOUT}." if is_yes_or_no(question) else NO_ANSWER, answers=False)
    if len({tuple(asked.kind.facts) for asked in found}) == 1 and _CHOICE.search(question):
        said = [FactAnswer(_YES_OR_NO_WORD.sub(_without_yes_or_no, one.text), one.answers) for one in said]
    return FactAnswer(" ".join(dict.fromkeys(one.text for one in said)), any(one.answers for one in said))


_CHOICE = re.compile(r"\b(?:or|oder)\b(?! not)", re.IGNORECASE)  # "Is it in C or in G?" asks which, and not yes or no
_YES_OR_NO_WORD = re.compile(r"^(?:(?:Yes|No)|(?P<doubt>Probably|Perhaps) (?:yes|no)): (?P<first>\w)(?P<rest>.*?\bis )?")
DOUBTS: Mapping[str | None, str] = {None: "", "Probably": "most likely ", "Perhaps": "perhaps "}
"""How a choice that is not sure is hedged, by what stands before its yes or no."""


def _without_yes_or_no(said: re.Match[str]) -> str:
    doubt, rest = DOUBTS[said["doubt"]], said["rest"]
    return f"{said['first'].upper()}{rest}{doubt}" if rest else f"{doubt}{said['first']}"[:1].upper() + f"{doubt}{said['first']}"[1:]


CAPTIONS: Mapping[str, str] = {
    "sentence": "short",
    "short": "short",
    "briefly": "short",
    "technical": "technical",
    "critic": "critic",
    "review": "critic",
}
"""Words in a request to describe the song, and the style of caption they ask for; else the full one."""


DOCUMENTED: Mapping[str, str] = {prompt: style for style, prompt in CAPTION_STYLES.items() if style in STYLES}
"""The prompts of the captions that facts write, and their styles."""


def caption_style(question: str) -> str:
    """The style of caption that a request to describe the song asks for."""
    if style := DOCUMENTED.get(question.strip()):
        return style
    return next((style for word, style in CAPTIONS.items() if word in question.casefold()), "full")
