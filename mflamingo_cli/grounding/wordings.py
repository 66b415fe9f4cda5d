"""A question in the words that the table of questions knows: short forms, slips of the keyboard, and other languages made English.

Only words that mean one thing wherever they stand are listed; the rest of a question stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mflamingo_cli.parsers import find_sung_keys

SHORT: Mapping[str, str] = {
    r"(what|where|when|who|how|it|that|how (?:fast|long|loud|slow|big))'s": r"\1 is",
    r"(what|where|when|who)s": r"\1 is",
    "wat|waht|whta|wht": "what",
    "wich|whcih|witch|whihc": "which",
    r"(?:dis|ths|tihs)(?= \w)": "this",
    "temop|tmepo|tempi": "tempo",
    "chrods?|cords|accords|choords?": "chords",
    "lenght|lengh": "length",
    "sogn|somg": "song",
    "kye|kee": "key",
    "b\\.?p\\.?m\\.?s?|beats per min": "bpm",
    r"time[ -]?sig(?:s|nature)?": "time signature",
    "loudnes|lowdness": "loudness",
    "instuments?|insturments?|instrumets?": "instruments",
    "gerne|genere|gender of music": "genre",
    "secs": "seconds",
    r"16ths?(?= notes?\b|\W*$)|(?<=dotted )16th": "sixteenth",
    r"8ths?(?= notes?\b|\W*$)|(?<=dotted )8th": "eighth",
    r"(is|does|are|was)n't": r"\1",
    r"(?-i:([A-G]))[ -]flat": r"\1b",
    r"(?-i:([A-G]))[ -]sharp": r"\1#",
    "(?:in )?common time": "in 4/4",
    "(?:in )?cut time": "in 2/2",
    # with no noun behind it, "a" is the note and no article; "in a major or a minor?" asks for one of the modes
    r"(?:(?<!or )|(?<=[b-g#] (?:major|minor) or ))a (major|minor)"
    r"(?=\W*$|,? or (?:in )?[b-g](?:#|b| sharp| flat)? (?:major|minor))": r"A \1",
    r"it is ([^,]+), (?:right|is it|correct|no|yes)(?=\W*$)": r"is it \1",
}
"""Other spellings of English words."""

_A_SONG = (
    r"(?= (?:es\b|(?:das|dieses|der|dieser|le|la|ce|cette|el|esta|este|il|lo|questo|questa) "
    r"(?:lied|song|st[uü]ck|titel|track|chanson|morceau|titre|canci[oó]n|tema|pieza|brano|canzone|pezzo)\b)|(?: (?:das|esto|questo))?\W*$)"
)
OTHERS: Mapping[str, str] = {
    # how many, which of them
    r"erste[nrs]?|premi[eè]re?|primer[oa]?|prim[oa]": "first",
    r"zweite[nrs]?|deuxi[eè]me|segund[oa]|second[oa]": "second",
    r"dritte[nrs]?|troisi[eè]me|tercer[oa]?|terz[oa]": "third",
    r"vierte[nrs]?|quatri[eè]me|cuart[oa]|quart[oa]": "fourth",
    r"letzte[nrs]?|derni[eè]re?|[uú]ltim[oa]": "last",
    r"(?:der |dem |den |la |le )?(?:teil|abschnitt|partie|parte|secci[oó]n|sezione)(?= (?:[b-df-h]|(?-i:[A-Z]))\b)": "section",
    r"wie lange? (?:ist|dauert)(?= section)|combien de temps dure(?= section)|cu[aá]nto dura(?= section)": "how long is",
    # how fast, how loud, how long
    r"wie schnell(?: ist)?|qu[eé] tan r[aá]pid[oa]|a qu[eé] velocidad|[aà] quelle vitesse|quanto [eè] veloce": "how fast is",
    r"wie laut(?: ist)?|qu[eé] tan fuerte|quanto [eè] forte": "how loud is",
    r"wie lange? (?:ist|dauert) ein takt": "how long is a bar",
    r"wie lange? (?:ist|dauert) ein (?:schlag|beat)": "how long is a beat",
    r"wie lange?(?: (?:ist|dauert|geht))?|cu[aá]nto dura|combien de temps dure|quelle (?:est la )?dur[eé]e|quanto dura": "how long is it",
    r"schneller als|m[aá]s r[aá]pid[oa] (?:que|de)|plus rapide que|pi[uù] veloce di": "faster than",
    r"langsamer als|m[aá]s lent[oa] (?:que|de)|plus lente? que|pi[uù] lento di": "slower than",
    r"lauter als|m[aá]s fuerte que|plus fort que": "louder than",
    r"leiser als": "quieter than",
    r"l[aä]nger als|m[aá]s larg[oa] que|plus longue? que": "longer than",
    r"k[uü]rzer als": "shorter than",
    r"quanto [eè] lung[oa]": "how long is",
    r"wie viele takte|cu[aá]ntos compases|combien de mesures": "how many bars",
    r"wie viele (?:teile|abschnitte)|combien de (?:parties|sections)|cu[aá]ntas (?:partes|secciones)|quante parti": "how many sections",
    r"laut(?! (?:de[mnrs]|die|das|tags?|datei\w*|meta\w*)\b)|fuerte": "loud",  # "laut den Tags": as the tags say
    r"fast(?= (?:zu|alle|immer|nur|nie|schon|ganz)\b)": "almost",
    "leise": "quiet",
    r"schnell|rapide|r[aá]pid[oa]|veloce": "fast",
    r"langsam|lente?|lent[oa]": "slow",
    r"wann beginnt (?:der )?(?:teil|abschnitt)": "when does section",
    r"wie oft|combien de fois|cu[aá]ntas veces|quante volte": "how often",
    r"wechseln?|change(?:nt)?|cambian?": "change",
    r"(?:bei|[aà]|a las?|um)(?= \d+:\d)": "at",
    r"(?:in )?(?:dur oder moll|moll oder dur)|(?:en |in )?(?:majeur ou mineur|mayor o menor|maggiore o minore)": "in major or minor",
    # what it is called, in which meter
    rf"(?:wie hei(?:ß|ss)t|comment s'appelle|c[oó]mo se llama|come si chiama){_A_SONG}": "what is the title of",
    r"geh[oö]ren zur": "belong to the",
    r"von wem ist|qui est l'artiste|de qui est|de qui[eé]n es|di chi [eè]": "who is the artist of",
    r"in welchem takt (?:ist|steht)|quelle est la mesure": "what is the time signature of",
    r"(?:eine?|une?|una) (?:walzer|valse|vals|valzer)": "a waltz",
    r"tempo(?:[aä]nderung(?:en)?|wechsel)": "tempo change",
    r"change (?:el|le|la|il|das|die)(?= (?:tempo|tonalit?))": "change the",
    # nouns
    r"tonart|tonalidad|tonalit[eéà]": "key",
    "akkorde|acordes|accordi": "chords",
    "akkord|acorde|accordo?": "chord",
    r"taktart|comp[aá]s|chiffrage|signature rythmique": "time signature",
    r"schl[aä]ge pro minute|pulsaciones por minuto|battements par minute": "bpm",
    r"lautheit|lautst[aä]rke|volumen": "loudness",
    r"l[aä]nge|duraci[oó]n|dur[eé]e|durata": "duration",
    r"k[uü]nstler(?:in)?|(?:der|den|dem|welcher|die|welche) interpret(?:in)?|artista": "artist",
    r"stimmung|ambiance|[aá]nimo|atmosph[eè]re": "mood",
    r"instrumente|instrumentos|strumenti": "instruments",
    r"g[eé]nero|stil(?:richtung)?|estilo": "genre",
    r"abschnitte|aufbau|estructura|struttura": "form",
    r"[uü]bersteuert|clippt": "clipped",
    # what goes with it
    r"passen (?:dazu|zu (?:diesem|dem) (?:lied|song|st[uü]ck))": "mix with this",
    r"womit (?:kann|k[oö]nnte|soll) ich (?:es|das(?: \w+)?|dieses \w+) mi(?:x|sch)en": "what would I mix this with",
    # parts of the sound
    r"schlagzeug|batterie|bater[ií]a|batteria": "drums",
    "klavier": "piano",
    "gitarre|guitare|guitarra|chitarra": "guitar",
    r"s[aä]nger(?:in)?|chanteu(?:r|se)|cantante": "singer",
    # who sings
    r"(?:wird|singt) (?:\w+ ){0,3}(?:gesungen|jemand)|gibt es gesang|hat (?:es|das \w+) gesang|hay (?:una )?(?:voz|voces|canto)"
    r"|canta alguien|est-ce que quelqu'un chante"
    r"|y a-t-il (?:du chant|une voix)|c'?[eè] (?:una voce|qualcuno che canta)": "does anyone sing",
    # the song, and small words
    r"ist es|est-ce(?: que c'est)?(?! qu)|est-ce qu'il est|c'est|est-il|est-elle|(?:\u00e8|^e)(?= (?:in|un[ao]?) )"
    r"|est[a\u00e1](?= en )": "is it",
    r"(?:das|dieses|des|dem|el|la|esta|le|ce|il) (?:lied(?:es)?|song|st[uü]cks?|canci[oó]n|pieza|tema|morceau|brano|chanson)": "the song",
    r"welche[rsn]?|qu[eé]|cu[aá]l(?:es)? (?:es|son)|quel(?:le)?s?(?: (?:est|sont))?(?: l[ae]s?)?": "what",
    r"(?:was|wie) ist (?:der|die|das)": "what is the",
    r"en(?= [A-G](?:#|b)? (?:major|minor))": "in",
    "ist(?= the song)": "is",
    r"ist (?:der|die|das)": "is the",
    "oder": "or",
    "(?<=in )moll": "minor",
    "(?<=in )dur": "major",
}
"""Words of German, Spanish, French and Italian."""

_ONES = "one|two|three|four|five|six|seven|eight|nine"
_TEENS = "ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_ORDINALS = f"first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|{_TEENS.replace('twelve', 'twelf').replace('|', 'th|')}th"
_VALUES = {word: at + 1 for at, word in enumerate(f"{_ONES}|{_TEENS}".split("|"))}
_VALUES |= {word: 10 * (at + 2) for at, word in enumerate(_TENS.split("|"))}
_ABOVE_TEN = rf"(?:(?:{_TENS})(?:[ -](?:{_ONES}))?|{_TEENS.removeprefix('ten|')})"
_AS_SPOKEN = rf"(?<!this )(?<!that )(?<!which )(?<!the )(?:one|two) (?:{_TENS})(?:[ -](?:{_ONES}))?(?! (?:sec\w*|min\w*|bars?|beats?)\b)"
_NUMBER = re.compile(  # "thirty-second" is an ordinal
    rf"\b(?:{_AS_SPOKEN}|(?:an?|{_ONES}) hundred(?:(?: and)? (?:{_ABOVE_TEN}|{_ONES}|ten))?|{_ABOVE_TEN})\b(?![ -](?:{_ORDINALS})\b)",
    re.IGNORECASE,
)


def _in_digits(number: re.Match[str]) -> str:
    """Words for a number above ten: `thirteen` -> `13`, `a hundred and twenty-four` -> `124`, `one twenty` -> `120`."""
    total = 0
    for word in re.split("[ -]", number[0].lower()):
        value = _VALUES.get(word, 0)
        hundreds = word == "hundred" or 0 < total < 10 <= value
        total = (100 * max(total, 1) if hundreds else total) + value
    return str(total)


_RULES = tuple((re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE), english) for words, english in [*SHORT.items(), *OTHERS.items()])


def in_english(question: str) -> str:
    """A question, plain, with all of these words replaced: `Wie schnell ist das Lied?` -> `how fast is the song?`."""
    for key in reversed(find_sung_keys(question)):
        question = question[: key.start] + key.value.name + question[key.end :]
    question = _NUMBER.sub(_in_digits, question)
    for words, english in _RULES:
        question = words.sub(english, question)
    return question
