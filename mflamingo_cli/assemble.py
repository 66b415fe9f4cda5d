"""Facts and answers -> Analysis.

The table of facts is walked; no fact is known by name here but how it is written. Times are seconds from the start of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from mflamingo_cli import schema
from mflamingo_cli.backends.base import BackendInfo, Completion
from mflamingo_cli.checks import Check, CheckOptions, wrong
from mflamingo_cli.core.audio import LONG_S, PART_S, Sound, count_windows
from mflamingo_cli.errors import MFlamingoError
from mflamingo_cli.grounding import NO_ANSWER, questions
from mflamingo_cli.grounding.prose.captions import write_caption
from mflamingo_cli.grounding.reasoning import reason
from mflamingo_cli.grounding.replies import Known
from mflamingo_cli.measure import FACTS, Confidence, Facts, Key, Loudness, Tempo, Voices
from mflamingo_cli.measure.activity import EDGE_S
from mflamingo_cli.measure.compare import Comparison
from mflamingo_cli.measure.grid import describe
from mflamingo_cli.parsers import Vocals, is_unknown
from mflamingo_cli.requests import FREE_TEXT, TAG_KINDS, PreparedSong, Request, answerable, styles_of_facts
from mflamingo_cli.schema import (
    Analysis,
    AudioInfo,
    Claim,
    Command,
    Dynamics,
    FormPart,
    KeyInfo,
    LoudPart,
    MeterInfo,
    Result,
    Tag,
    TagKind,
    TempoInfo,
    VocalsInfo,
)
from mflamingo_cli.tasks import Task
from mflamingo_cli.text import RECORD_DIGITS, clock, tidy
from mflamingo_cli.thinking import Thought

CUT_THINKING = {
    "budget": "the reasoning was ended at {} tokens, as --thinking-budget says",
    "loop": "the reasoning repeated itself and was ended; try --repetition-penalty 1.1",
}
UNHEARD_S = 1.0  # of a song that the model was not given before a warning says so: less is the last echo
SUNG = 0.5  # of a section from which it is called sung
KEY_RELATIONS = {"relative": ", its relative key", "parallel": ", its parallel key", "fifth": ", a fifth away", None: ""}
NOTHING_TO_HEAR = ("silent", "too_short")  # not a fault of the file: the record says skipped, and why
READ = ("tempo", "key", "meter")  # answers that must be a number or a name; an empty list is an answer


def assemble(
    request: Request,
    song: PreparedSong,
    info: BackendInfo,
    answers: Mapping[str, Completion],
    encode_s: float | None,
    generate_s: float | None,
) -> Analysis:
    """The record of a song: its facts and the answers by the names of their tasks, with the seconds that encoding and generating took."""
    sound = song.sound
    texts = {name: completion.text for name, completion in answers.items()}
    asked = [task for task in answerable(request, info) if task.name in texts]
    parsed, claims = _checked(request, asked, song, info, {task.name: task.parse(texts[task.name]) for task in asked})
    warnings = [*_limits(request, sound, info, answers, parsed), *_beside_range(request, song.facts)]
    result = None
    if request.command in ("analyze", "caption"):
        shown = (*FACTS, *TAG_KINDS) if request.only is None else request.only
        by_facts, of_facts = _written(request, song, info)
        result, disagreements = _result(song.facts or Facts(), shown, parsed | by_facts, grounded=info.grounded)
        result = replace(result, caption_source="measured" if by_facts else "model" if result.caption else None)
        warnings, claims = [*warnings, *disagreements], claims + of_facts
    thought = parsed.get("think") or Thought(None, parsed.get("ask"), False)
    answers_it = None if not request.question else bool(thought.answer) and not is_unknown(thought.answer or "")
    if request.question and not answers:
        thought, answers_it = _by_facts(request, song, info)
    used = [completion.usage for completion in answers.values()]
    path, path_b64 = schema.path_fields(sound.source.path) if sound else (None, None)
    times = (song.decode_s, song.measure_s, encode_s, generate_s)
    return Analysis(
        command=request.command,
        status="ok",
        path=path,
        path_b64=path_b64,
        audio_id=sound.id if sound else None,
        audio=_audio_info(sound, info, to_model=bool(request.tasks)) if sound else None,
        result=result,
        thinking=tidy(thought.thinking or "") or None,
        text=tidy(thought.answer or "") or None,
        question=request.question or None,
        answerable=answers_it,
        raw=texts if request.keep_raw else None,
        claims=claims,
        model=schema.ModelInfo(info.model, info.revision, info.backend, info.dtype) if request.tasks and info.backend != "none" else None,
        usage=schema.UsageInfo(sum(u.tokens_in for u in used), sum(u.tokens_out for u in used)),
        timing=schema.TimingInfo(*(_rounded(seconds, 3) for seconds in times)),
        warnings=(*warnings, *wrong(claims)),
        only=request.only,
    )


def _checked(
    request: Request, asked: Sequence[Task], song: PreparedSong, info: BackendInfo, parsed: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[Claim, ...]]:
    """The answers with their free text as it may be shown, and what that text claims."""
    checked, claims = dict(parsed), tuple[Claim, ...]()
    for task in asked:
        answer = parsed.get(task.name)
        text = answer.answer if isinstance(answer, Thought) else answer
        if isinstance(text, str) and task.name in FREE_TEXT:
            shown, found = Check.whole(text, song.facts, song.duration_s or 0.0, request.check_of(task, info.grounded))
            checked[task.name] = answer._replace(answer=shown) if isinstance(answer, Thought) else shown or None
            claims += found
    return checked, claims


def _written(request: Request, song: PreparedSong, info: BackendInfo) -> tuple[dict[str, str], tuple[Claim, ...]]:
    """The captions that facts write, by the names of their tasks, and what they claim."""
    facts = song.facts or Facts()
    captions = {name: write_caption(style, facts, song.duration_s) for name, style in styles_of_facts(request, info).items()}
    held = CheckOptions("mark", grounded=True, describes=True)
    return captions, tuple(claim for text in captions.values() for claim in Check.whole(text, facts, song.duration_s or 0.0, held)[1])


def _by_facts(request: Request, song: PreparedSong, info: BackendInfo) -> tuple[Thought, bool]:
    """The answer to a question that the model was not asked, as reasoning and sentence, and whether it is one."""
    if song.sound is None:
        return Thought(None, NO_ANSWER, False), False
    known = Known(song.facts or Facts(), song.sound)
    said = questions.reply(request.question, known)
    return Thought(reason(request.question, known) if request.command == "think" else None, said.text, False), said.answers


def failed(path: str | None, command: Command, error: MFlamingoError) -> Analysis:
    """The record of an input that gave no result."""
    name, path_b64 = (None, None) if path is None else schema.path_fields(path)
    info = schema.ErrorInfo(error.code, tidy(str(error)), error.retryable)
    status: Literal["skipped", "error"] = "skipped" if error.code in NOTHING_TO_HEAR else "error"
    return Analysis(command=command, status=status, path=name, path_b64=path_b64, error=info)


def given(sound: Sound, info: BackendInfo) -> tuple[int, int]:
    """What the model is given of a song, from its first sound on as much as it can take: the first sample and the one after the last."""
    first = first_given(sound.sounding, sound.start_s, sound.rate_hz)
    return first, min(sound.n_samples, first + int(info.geometry.max_audio_s * sound.rate_hz))


def first_given(sounding: Sequence[tuple[float, float]], start_s: float, rate_hz: int) -> int:
    """The sample at which a song begins that begins after silence, counted from the part that was asked for."""
    silent = round((sounding[0][0] - start_s) * rate_hz) if sounding else 0
    return silent if silent >= EDGE_S * rate_hz else 0


def _audio_info(sound: Sound, info: BackendInfo, *, to_model: bool) -> AudioInfo:
    source, (first, last) = sound.source, given(sound, info)
    return AudioInfo(
        duration=round(source.duration_s, 3),
        sample_rate=source.sample_rate,
        channels=source.channels,
        codec=source.codec,
        start=round(sound.start_s, 3),
        end=round(sound.end_s, 3),
        windows=count_windows(last - first, info.geometry.mel.window_s) if to_model else 0,
        truncated=to_model and last < sound.n_samples,
        damaged=sound.damaged,
        sounding=tuple((round(start, 3), round(end, 3)) for start, end in sound.sounding),
        tags=source.tags,
    )


def _limits(
    request: Request, sound: Sound | None, info: BackendInfo, answers: Mapping[str, Completion], parsed: dict[str, Any]
) -> list[str]:
    """Warnings of what the model was not given, did not finish, or said unreadably."""
    decided_by_ear = any(name not in FACTS or not info.grounded for name in answers)  # else they only stand beside what was measured
    warnings = [*sound.warnings, *_of_parts(request, sound, info, decided_by_ear)] if sound else []
    if cut := [name for name, completion in answers.items() if completion.finish == "length"]:
        warnings.append(f"{', '.join(cut)}: cut at {request.options.max_new_tokens} tokens; raise --max-tokens")
    if looped := [name for name, completion in answers.items() if completion.finish == "loop"]:
        warnings.append(f"{', '.join(looped)}: stopped, because the text repeated itself; try --repetition-penalty 1.1")
    for why in {completion.cut_thinking for completion in answers.values() if completion.cut_thinking}:
        warnings.append(CUT_THINKING[why].format(request.options.thinking_budget))
    answered = [name for name, completion in answers.items() if name in READ and name not in cut and not is_unknown(completion.text)]
    if unread := [name for name in answered if parsed[name] is None]:
        warnings.append(f"{', '.join(unread)}: the model's answer could not be understood; -v shows it")
    return warnings


def _beside_range(request: Request, facts: Facts | None) -> Iterator[str]:
    """A warning where no octave of the tempo is in the range that was asked for."""
    bpm = facts and facts.tempo.bpm
    if bpm and request.tempo_range and not request.tempo_range[0] <= bpm <= request.tempo_range[1]:
        low, high = request.tempo_range
        yield f"tempo: no octave of {bpm:.1f} BPM lies between {low:g} and {high:g}; it was left as measured"


def _of_parts(request: Request, sound: Sound, info: BackendInfo, decided_by_ear: bool) -> Iterator[str]:
    """Warnings of a long song: that it was measured in parts, and, where answers rest on it, that the model was given only one."""
    if sound.duration_s > LONG_S and request.command == "analyze":
        parts = f"parts of {PART_S // 60} minutes, as it is longer than {LONG_S // 60}"
        yield f"measured in {parts}: tempo, key and meter are those of the longest share; choose a part with --start and --end"
    first_s, last_s = (at / sound.rate_hz for at in given(sound, info))
    silent_from_s = sound.sounding[-1][1] - sound.start_s if sound.sounding else sound.duration_s
    if decided_by_ear and silent_from_s - last_s >= UNHEARD_S:
        part = f"{clock(sound.start_s + first_s)} to {clock(sound.start_s + last_s)}" if first_s else f"the first {clock(round(last_s))}"
        lengths = f"{part} of {clock(round(sound.duration_s))}"
        yield f"the model was given only {lengths}; choose another part with --start and --end"


# --- the result ------------------------------------------------------------------------------------------------------------

Recorded = tuple[Any, str | None]  # the value in the record, and a sentence where fact and claim disagree


def _result(known: Facts, shown: Collection[str], parsed: Mapping[str, Any], *, grounded: bool) -> tuple[Result, list[str]]:
    """The facts of these names with claims beside them, sections with the voices in them, and the sentence of each disagreement.

    A `grounded` model fills no gap by its own guess.
    """
    facts = Facts().updated(known, [name for name in FACTS if name in shown])
    values: dict[str, Any] = {}
    warnings = []
    for name, fact in FACTS.items():
        value, claim = getattr(facts, name), parsed.get(name)
        if name in RECORD:
            compared = fact.compare(value, claim) if fact.compare else Comparison(None)
            value, warning = RECORD[name](value, claim, compared, grounded)
            warnings += [warning] if warning else []
        if hasattr(facts.confidence, name):
            value = replace(value, confidence=_rounded(getattr(facts.confidence, name), 2))
        values[name] = value
    grid, segments = describe(facts.beats)
    values["tempo"] = replace(values["tempo"], grid=grid, segments=segments)
    values["sections"] = tuple(_section(section, known.vocals) for section in values["sections"])
    tags = _tags(known.tags, parsed)
    values |= {kind: _names(tags, kind) for kind in TAG_KINDS if kind in shown} | {"tags": tags if "tags" in shown else ()}
    return Result(**values, caption=parsed.get("caption")), warnings


def _names(tags: Sequence[Tag], kind: TagKind) -> tuple[str, ...]:
    """The names of a kind, each once whatever its case."""
    found: dict[str, str] = {}
    for tag in tags:
        if tag.kind == kind:
            found.setdefault(tag.name.casefold(), tag.name)
    return tuple(found.values())


def _tags(measured: Sequence[Tag], parsed: Mapping[str, Any]) -> tuple[Tag, ...]:
    """What was measured and what the model names, side by side; they agree where the names are the same but for their case."""
    named = [Tag(kind, name, source="model") for kind in TAG_KINDS for name in parsed.get(kind) or ()]
    keys = [{(tag.kind, tag.name.casefold()) for tag in tags} for tags in (measured, named)]
    both = keys[0] & keys[1]
    return tuple(replace(tag, agrees=True) if (tag.kind, tag.name.casefold()) in both else tag for tag in (*measured, *named))


def _tempo(fact: Tempo, claim: float | None, compared: Comparison, grounded: bool) -> Recorded:
    if fact.bpm is None:
        return TempoInfo(bpm=claim, source="model" if claim else None, claimed=claim), None
    info = TempoInfo(_rounded(fact.bpm, RECORD_DIGITS), fact.alternatives, "measured", claim, compared.agrees)
    if compared.agrees is not False:
        return info, None
    relation = f", {compared.relation} of it" if compared.relation else ""
    return info, f"tempo: measured {fact.bpm:.1f} BPM, the model says {claim:.1f}{relation}"


def _key(fact: Key | None, claim: Key | None, compared: Comparison, grounded: bool) -> Recorded:
    claimed = claim.name if claim else None
    if fact is None:
        return (KeyInfo(claimed=claimed) if grounded or claim is None else _key_info(claim.usual, "model", claimed, None)), None
    warning = None
    if compared.agrees is False:
        warning = f"key: measured {fact.name}, the model says {claimed}{KEY_RELATIONS.get(compared.relation, '')}"
    return _key_info(fact, "measured", claimed, compared.agrees), warning


def _key_info(key: Key, source: schema.Origin, claimed: str | None, agrees: bool | None) -> KeyInfo:
    return KeyInfo(key.tonic, key.mode, key.name, key.camelot, key.openkey, key.id3, source, claimed, agrees)


def _meter(fact: str | None, claim: str | None, compared: Comparison, grounded: bool) -> Recorded:
    if fact is None:
        return MeterInfo(claim, "model" if claim else None, None), None
    warning = f"meter: measured {fact}, the model says {claim}" if compared.agrees is False else None
    return MeterInfo(fact, "measured", compared.agrees), warning


def _loudness(fact: Loudness, claim: None, compared: Comparison, grounded: bool) -> Recorded:
    clipped = fact.clipped and replace(fact.clipped, seconds=round(fact.clipped.seconds, 4))
    level, spread, peak = (_rounded(value, RECORD_DIGITS) for value in (fact.integrated_lufs, fact.range_lu, fact.true_peak_dbtp))
    return Loudness(level, spread, peak, clipped), None


def _dynamics(fact: Dynamics, claim: None, compared: Comparison, grounded: bool) -> Recorded:
    loudest, quietest = (
        part and LoudPart(round(part.start, 3), round(part.end, 3), round(part.lufs, RECORD_DIGITS))
        for part in (fact.loudest, fact.quietest)
    )
    return Dynamics(loudest, quietest, _rounded(fact.onsets_per_s, 2), _rounded(fact.brightness_hz, -1)), None


def _vocals(fact: Voices, claim: Vocals | None, compared: Comparison, grounded: bool) -> Recorded:
    claimed, description = claim or (None, None)
    if fact.present is None:
        return VocalsInfo(claimed, description, None if claimed is None else "model", claimed, spans=fact.spans), None
    described = description if compared.agrees else None
    warning = None
    if compared.agrees is False:
        warning = f"vocals: measured {'singing' if fact.present else 'none'}, the model says {description or 'yes' if claimed else 'none'}"
    return VocalsInfo(fact.present, described, "measured", claimed, compared.agrees, spans=fact.spans), warning


def _section(section: FormPart, voices: Voices) -> FormPart:
    """A section with whether most of it is sung, where it is known who sings when."""
    sung_s = sum(max(0.0, min(s.end, section.end) - max(s.start, section.start)) for s in voices.spans if s.label == "singing")
    known = voices.present is not None
    sung = sung_s >= SUNG * (section.end - section.start) if known else None
    return replace(section, sung=sung, lufs=_rounded(section.lufs, RECORD_DIGITS))


RECORD: Mapping[str, Callable[[Any, Any, Comparison, bool], Recorded]] = {
    "tempo": _tempo,
    "key": _key,
    "meter": _meter,
    "loudness": _loudness,
    "dynamics": _dynamics,
    "vocals": _vocals,
}
"""How a fact stands in the record where it is not written as it was measured."""


def facts_in(record: Analysis) -> Facts:
    """What a record says was measured, as it was measured but for rounding; what the model said is left out."""
    result = record.result or Result()
    own = {name: getattr(result, name) for name in ("keys", "scale", "beats", "chords", "sections", "loudness", "dynamics")}
    tempo, key, meter, vocals = result.tempo, result.key, result.meter, result.vocals
    return Facts(
        **own,
        tempo=Tempo(tempo.bpm, tempo.alternatives) if tempo.source == "measured" else Tempo(),
        key=Key(key.tonic, key.mode) if key.source == "measured" and key.tonic and key.mode else None,
        meter=meter.value if meter.source == "measured" else None,
        vocals=Voices(vocals.present, vocals.spans) if vocals.source == "measured" else Voices(),
        tags=tuple(tag for tag in result.tags if tag.source == "measured"),
        confidence=Confidence(tempo.confidence, key.confidence, meter.confidence, vocals.confidence),
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)
