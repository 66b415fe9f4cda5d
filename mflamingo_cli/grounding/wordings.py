"""A question in the words that the table of questions knows: short forms, slips of the keyboard, and other languages made English.

Only words that mean one thing wherever they stand are listed; the rest of a question stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

SHORT: Mapping[str, str] = {
    r"(what|where|when|who|how|it|that|how (?:fast|long|loud|slow|big))'s": r"\1 is",
    r"(what|where|when|who)s": r"\1 is",
    "wat|waht|whta|wht": "what",
    "wich|whcih|witch|whihc": "which",
    r"(?:dis|ths|tihs)(?= \w)": "this",
    "temop|tmepo|tempi": "tempo",
    "chrods?|cords|accords?|choords?": "chords",
    "lenght|lengh": "length",
    "sogn|somg": "song",
    "kye|kee": "key",
    "b\\.?p\\.?m\\.?s?|beats per min": "bpm",
    r"time[ -]?sig(?:s|nature)?": "time signature",
    "loudnes|lowdness": "loudness",
    "instuments?|insturments?|instrumets?": "instruments",
    "gerne|genere|gender of music": "genre",
    "secs": "seconds",
    r"(is|does|are|was)n't": r"\1",
    r"it is ([^,]+), (?:right|is it|correct|no|yes)(?=\W*$)": r"is it \1",
}
"""Other spellings of English words."""

OTHERS: Mapping[str, str] = {
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
    r"wie viele takte|cu[aá]ntos compases|combien de mesures": "how many bars",
    r"wann beginnt (?:der )?(?:teil|abschnitt)": "when does section",
    # nouns
    r"tonart|tonalidad|tonalit[eéà]": "key",
    r"akkorde?|acordes?|accordi": "chords",
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
    # who sings
    r"(?:wird|singt) (?:hier |da |darin )?(?:gesungen|jemand)|gibt es gesang|hat (?:es|das \w+) gesang|hay (?:una )?(?:voz|voces|canto)"
    r"|canta alguien|est-ce que quelqu'un chante"
    r"|y a-t-il (?:du chant|une voix)|c'?[eè] (?:una voce|qualcuno che canta)": "does anyone sing",
    # the song, and small words
    r"(?:das|dieses|des|dem|el|la|esta|le|ce|il) (?:lied(?:es)?|song|st[uü]cks?|canci[oó]n|pieza|tema|morceau|brano|chanson)": "the song",
    r"welche[rsn]?|qu[eé]|cu[aá]l(?:es)? (?:es|son)|quel(?:le)?s?(?: (?:est|sont))?(?: l[ae]s?)?": "what",
    r"(?:was|wie) ist (?:der|die|das)": "what is the",
    "ist es|est-ce": "is it",
    "ist(?= the song)": "is",
    r"ist (?:der|die|das)": "is the",
    "oder": "or",
    "(?<=in )moll": "minor",
    "(?<=in )dur": "major",
}
"""Words of German, Spanish, French and Italian."""

_RULES = tuple((re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE), english) for words, english in [*SHORT.items(), *OTHERS.items()])


def in_english(question: str) -> str:
    """A question, plain, with all of these words replaced: `Wie schnell ist das Lied?` -> `how fast is the song?`."""
    for words, english in _RULES:
        question = words.sub(english, question)
    return question
