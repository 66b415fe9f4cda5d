"""Laws of the one sentence: decoded once, measured once, encoded once, asked together; facts and claims side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from mflamingo_cli import assemble, grounding, measure, pipeline, requests, tasks
from mflamingo_cli.api import Model
from mflamingo_cli.backends.base import BackendInfo, Chunk, Encoded, GenerateOptions, SongPrompts, Usage, no_progress
from mflamingo_cli.core import audio as core_audio
from mflamingo_cli.core.audio import Audio
from mflamingo_cli.errors import AudioError, MFlamingoError, ModelError, UsageError
from mflamingo_cli.measure import Confidence, Facts, Key, Loudness, Segment, Tempo, Voices
from mflamingo_cli.requests import Piece, Step
from mflamingo_cli.schema import Analysis, FormPart, Tag, UsageInfo
from mflamingo_cli.thinking import think_prompt
from quant.geometry import AudioTokens, EncoderSizes, Geometry, MelConfig, TextSizes

RATE_HZ = 22_050
FACTS = Facts(
    tempo=Tempo(120.004, (60.0, 240.0)),
    key=Key("A", "minor"),
    chords=(Segment(0.0, 2.0, "A:min"), Segment(2.0, 4.0, "F:maj")),
    sections=(FormPart(0.0, 4.0, "A"),),
    loudness=Loudness(-14.123456, 3.0, float("nan")),
    confidence=Confidence(0.91234, 0.5),
)
ANSWERS = {
    "tempo": "119 BPM",
    "key": "A minor",
    "meter": "4/4",
    "instruments": "piano, drums",
    "genre": "House",
    "mood": "I cannot tell that from the sound.",
    "vocals": "No, instrumental.",
    "caption": "A calm piece.",
}


class Parrot:
    """A back end that answers each known question from a table, in two interleaved chunks, and counts its work."""

    def __init__(
        self, answers: dict[str, str], *, abilities: frozenset[str] | None = None, grounded: bool = False, max_audio_s: float = 60.0
    ):
        sizes = Geometry(
            "musicflamingo", MelConfig(), max_audio_s, EncoderSizes(8, 1, 1, 8, 1500), TextSizes(8, 1, 1, 1, 8, 4096), None, AudioTokens()
        )
        self.info = BackendInfo("parrot", "r1", "gguf", "cpu", "F16", "a test", 4096, sizes, abilities, grounded)
        self._answers, self.heard, self.calls, self.tell = answers, [], [], no_progress

    def encode(self, audios: Sequence[Audio]) -> list[Encoded]:
        self.heard += audios
        return [Encoded(10, None) for _ in audios]

    def generate(self, talks: Sequence[SongPrompts], options: GenerateOptions) -> Iterator[tuple[int, int, Chunk]]:
        self.calls += [[prompt.text for prompt in talk.prompts] for talk in talks]
        names = {task.prompt: name for name, task in tasks.TASKS.items()} | {p: "caption" for p in tasks.CAPTION_STYLES.values()}
        asked = [(song, number, prompt.text) for song, talk in enumerate(talks) for number, prompt in enumerate(talk.prompts)]
        texts = [next(self._answers[name] for prompt, name in {**names, "": "ask"}.items() if text.endswith(prompt)) for *_, text in asked]
        for half in (0, 1):
            for (song, number, _), text in zip(asked, texts, strict=True):
                words = len(text.split())
                ended = Usage(10, words) if half else None
                finish = ("stop" if words < options.max_new_tokens else "length") if half else None
                yield song, number, Chunk(text[len(text) // 2 :] if half else text[: len(text) // 2], finish, ended)

    def close(self) -> None: ...

    def __enter__(self) -> Parrot:
        return self

    def __exit__(self, *exc: object) -> None: ...


@pytest.fixture
def song(tmp_path):
    def make(seconds: float = 4.0, name: str = "song.wav") -> str:
        t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
        path = os.path.join(tmp_path, name)
        soundfile.write(path, 0.2 * np.sin(2 * np.pi * 220 * t) * (1 + np.sin(2 * np.pi * 2 * t)), RATE_HZ)
        return path

    return make


@pytest.fixture
def known(monkeypatch):
    """What measurement would find, so that the laws below are about the pipeline; measurement has its own tests."""
    calls = []
    monkeypatch.setattr(measure, "measure", lambda audio, meter=None, **_: calls.append(audio) or FACTS)
    return calls


def test_everything_is_done_once_and_in_order(song, known):
    backend = Parrot(ANSWERS)
    events = list(pipeline.run(song(), backend, requests.analyze_request()))
    assert [event.name for event in events if isinstance(event, Step)] == ["decoding", "measuring", "listening", "writing"]
    assert (len(known), len(backend.heard), len(backend.calls)) == (1, 1, 1)
    assert len(backend.calls[0]) == len(tasks.ANALYZE)
    assert isinstance(events[-1], Analysis)


def test_without_a_song_there_is_a_question_and_no_audio():
    backend = Parrot({"ask": "Another dominant."})
    *steps, record = pipeline.run(None, backend, requests.ask_request("What is a tritone substitution?"))
    assert [step.name for step in steps if isinstance(step, Step)] == ["writing"]
    assert (record.path, record.audio, record.audio_id, record.text, record.warnings) == (None, None, None, "Another dominant.", ())
    assert (backend.heard, backend.calls) == ([], [["What is a tritone substitution?"]])
    assert Analysis.from_json(record.to_json()) == record
    with pytest.raises(UsageError, match="caption needs a song"):
        list(pipeline.run(None, backend, requests.caption_request()))


def test_a_model_of_few_abilities_answers_no_question_about_music_in_general():
    with pytest.raises(ModelError, match="parrot answers questions about songs, not about music in general; name a song, or choose a full"):
        list(pipeline.run(None, Parrot(ANSWERS, abilities=frozenset({"ask"})), requests.ask_request("What is a tritone substitution?")))


@pytest.mark.parametrize(("last", "sentence"), [
    (Chunk("", "loop", Usage(1, 1)), "ask: stopped, because the text repeated itself; try --repetition-penalty 1.1"),
    (Chunk("", "stop", Usage(1, 1), "loop"), "the reasoning repeated itself and was ended; try --repetition-penalty 1.1"),
    (Chunk("", "stop", Usage(1, 1), "budget"), "the reasoning was ended at 5 tokens, as --thinking-budget says"),
])  # fmt: skip
def test_what_was_cut_is_a_warning(last, sentence):
    class Cut(Parrot):
        def generate(self, talks, options):
            yield 0, 0, Chunk("text")
            yield 0, 0, last

    *_, record = pipeline.run(None, Cut({}), requests.ask_request("Why?", options=GenerateOptions(thinking_budget=5)))
    assert (record.text, record.warnings) == ("text", (sentence,))


GROUNDED = frozenset({"caption", "ask", "think"})


def test_a_question_that_facts_decide_is_answered_without_the_model(song, known):
    backend = Parrot({}, abilities=GROUNDED, grounded=True)
    *steps, record = pipeline.run(song(), backend, requests.ask_request("What is the tempo?"))
    assert [step.name for step in steps] == ["decoding", "measuring"]
    assert (backend.heard, backend.calls) == ([], [])
    assert (record.text, record.question, record.answerable) == ("The tempo is 120 BPM.", "What is the tempo?", True)
    assert (record.thinking, record.claims, record.usage) == (None, (), UsageInfo(0, 0))


def test_think_tells_the_facts_that_decide(song, known):
    *_, record = pipeline.run(song(), Parrot({}, abilities=GROUNDED, grounded=True), requests.think_request("What key is it in?"))
    thought = "No key fits clearly better than all others; A minor comes first (50 % sure)."
    assert (record.thinking, record.text) == (thought, "It is perhaps in A minor.")


@pytest.mark.parametrize("grounded", [True, False])
@pytest.mark.parametrize("question", ["Is there a guitar?", "Does it have a flute?"])
def test_a_refusal_of_yes_or_no_is_an_answer_in_words(song, known, grounded, question):
    backend = Parrot({}, abilities=GROUNDED, grounded=grounded)
    *_, record = pipeline.run(song(), backend, requests.ask_request(question))
    assert (record.status, record.answerable, backend.calls) == ("ok", False, [])
    assert record.text.startswith("I cannot answer that with yes or no")


def test_captions_of_a_grounded_model_of_few_abilities_are_written_from_the_facts(song, known):
    backend = Parrot({"caption": "A calm piece."}, abilities=GROUNDED, grounded=True)
    record = Model(backend).caption(song())
    assert (backend.calls, record.result.caption_source, record.warnings) == ([], "measured", ())
    assert "120 BPM" in record.caption or "120 beats" in record.caption
    assert {claim.kind for claim in record.claims} >= {"tempo", "key"}
    assert all(claim.agrees is not False for claim in record.claims)
    *_, asked = pipeline.run(song(), backend, requests.ask_request("Tell me about this song."))
    assert (backend.calls, asked.text, asked.answerable) == ([], record.caption, True)


def test_its_own_words_are_there_for_those_who_ask_for_them(song, known):
    backend = Parrot({"caption": "A calm piece."}, abilities=GROUNDED, grounded=True)
    record = Model(backend).caption(song(), claims="raw")
    assert (record.caption, record.result.caption_source) == ("A calm piece.", "model")


def test_a_model_that_can_all_is_asked_whatever_it_is_asked(song, known):
    backend = Parrot({"ask": "I cannot tell."})
    *_, record = pipeline.run(song(), backend, requests.ask_request("Is there a guitar?"))
    assert (backend.calls, record.text, record.answerable) == ([["Is there a guitar?"]], "I cannot tell.", False)


def test_that_the_end_was_not_heard_is_said_only_where_hearing_decides(song, known):
    def warnings(question):
        backend = Parrot({"genre": "folk"}, abilities=GROUNDED | {"genre"}, grounded=True, max_audio_s=3.0)
        *_, record = pipeline.run(song(6.0), backend, requests.ask_request(question))
        return [warning for warning in record.warnings if "was given only" in warning]

    assert warnings("How loud is it?") == []
    assert warnings("Tell me about this song.") == []
    assert len(warnings("What genre is this?")) == 1
    beside = Parrot({"key": "A minor"}, abilities=GROUNDED | {"key"}, grounded=True, max_audio_s=3.0)
    record = Model(beside).analyze(song(6.0))
    assert (record.audio.truncated, [warning for warning in record.warnings if "was given only" in warning]) == (True, [])


def test_pieces_of_each_task_join_to_its_answer(song, known):
    events = list(pipeline.run(song(), Parrot(ANSWERS), requests.analyze_request()))
    for name, answer in ANSWERS.items():
        assert "".join(event.text for event in events if isinstance(event, Piece) and event.task == name) == answer


def test_claims_stand_beside_facts(song, known):
    result = Model(Parrot(ANSWERS)).analyze(song()).result
    assert (result.tempo.bpm, result.tempo.claimed, result.tempo.agrees, result.tempo.source) == (120.0, 119.0, True, "measured")
    assert (result.key.name, result.key.camelot, result.key.claimed, result.key.agrees) == ("A minor", "8A", "A minor", True)
    assert (result.meter.value, result.meter.source, result.meter.agrees) == ("4/4", "model", None)
    assert (result.tempo.confidence, result.key.confidence, result.meter.confidence) == (0.91, 0.5, None)
    assert result.chords[1].end == 4.0
    assert (result.instruments, result.genre, result.mood) == (("piano", "drums"), ("House",), ())
    assert (result.vocals.present, result.caption) == (False, "A calm piece.")


def test_what_is_measured_and_what_the_model_names_stand_side_by_side(song, monkeypatch) -> None:
    measured = replace(FACTS, tags=(Tag("genre", "house", 0.9, "measured"), Tag("mood", "energetic", 0.88, "measured")))
    monkeypatch.setattr(measure, "measure", lambda *_, **__: measured)
    record = Model(Parrot(ANSWERS)).analyze(song())
    assert (record.genre, record.mood, record.instruments) == (("house",), ("energetic",), ("piano", "drums"))
    assert [(tag.name, tag.source, tag.agrees) for tag in record.tags] == [
        ("house", "measured", True), ("energetic", "measured", None), ("piano", "model", None), ("drums", "model", None),
        ("House", "model", True),
    ]  # fmt: skip


def test_who_sings_is_measured_and_the_model_describes_the_voice(song, monkeypatch) -> None:
    sung = replace(FACTS, vocals=Voices(True, (Segment(0.0, 3.0, "singing"),)), confidence=Confidence(0.9, 0.5, vocals=0.9))
    monkeypatch.setattr(measure, "measure", lambda *_, **__: sung)
    record = Model(Parrot(ANSWERS)).analyze(song())
    assert (record.vocals.present, record.vocals.claimed, record.vocals.agrees) == (True, False, False)
    assert "vocals: measured singing, the model says none" in record.warnings
    assert [section.sung for section in record.sections] == [True]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"tempo": "60"}, "tempo: measured 120.0 BPM, the model says 60.0, half of it"),
        ({"key": "C major"}, "key: measured A minor, the model says C major, its relative key"),
        ({"key": "loud"}, "key: the model's answer could not be understood; -v shows it"),
    ],
)
def test_a_disagreement_is_a_warning_that_names_the_relation(song, known, answers, words):
    record = Model(Parrot(ANSWERS | answers)).analyze(song())
    assert words in record.warnings
    assert record.result.tempo.bpm == 120.0


def test_a_model_is_asked_only_what_it_can(song, known):
    backend = Parrot(ANSWERS, abilities=frozenset({"key"}))
    record = Model(backend).analyze(song())
    assert backend.calls == [[tasks.TASKS["key"].prompt]]
    assert (record.result.caption, record.result.genre, record.result.meter.value) == (None, (), None)


def test_a_model_that_can_nothing_still_lets_facts_through(song, known):
    record = Model(Parrot({}, abilities=frozenset())).analyze(song())
    assert (record.result.tempo.bpm, record.timing.encode_s, record.timing.generate_s) == (120.0, None, None)
    assert (record.usage.tokens_in, record.usage.tokens_out) == (0, 0)


def test_a_caption_from_a_model_that_writes_none_is_an_error(song, known):
    with pytest.raises(ModelError, match="writes no captions"):
        Model(Parrot(ANSWERS, abilities=frozenset({"key"}))).caption(song())


def test_a_grounded_caption_is_told_the_facts_but_claims_are_not(song, known):
    backend = Parrot(ANSWERS, grounded=True)
    Model(backend).analyze(song())
    told = [prompt for prompt in backend.calls[0] if prompt.startswith(grounding.GROUND_PREFIX)]
    assert told == [grounding.grounded_prompt(tasks.CAPTION_STYLES["full"], grounding.facts_text(FACTS, 4.0))]


def test_a_caption_in_a_key_that_was_too_unsure_to_be_told_is_still_held_to_it(song, known):
    backend = Parrot(ANSWERS | {"caption": "A song in D minor."}, grounded=True)
    record = Model(backend).analyze(song())
    assert not any("key A minor" in prompt for prompt in backend.calls[0])
    assert record.caption == "The tempo is 120 BPM. It is perhaps in A minor."
    assert [(claim.kind, claim.value) for claim in record.claims] == [("tempo", 120.0), ("key", "A minor")]


def test_a_model_that_was_told_nothing_is_marked_where_it_is_wrong(song, known):
    record = Model(Parrot(ANSWERS | {"caption": "A song in D minor."})).analyze(song())
    assert record.caption == "A song in D minor."
    assert [(claim.text, claim.fact) for claim in record.claims] == [("D minor", "A minor")]


def test_who_asks_is_told_unsure_facts_too(song, known):
    backend = Parrot({"ask": "A minor"}, grounded=True)
    Model(backend).ask(song(), "What key is it in?")
    assert backend.calls[0] == [grounding.grounded_prompt("What key is it in?", grounding.facts_text(FACTS, 4.0, 0.0, {"key"}))]
    assert "key A minor" in backend.calls[0][0]


@pytest.mark.parametrize("grounded", [False, True])
def test_ask_measures_only_for_a_model_that_is_told_facts(song, known, grounded):
    record = Model(Parrot({"ask": "Yes."}, grounded=grounded)).ask(song(), "Is it slow?")
    assert (record.text, record.result, record.thinking) == ("Yes.", None, None)
    assert (len(known) == 1) is grounded
    assert (record.timing.measure_s is not None) is grounded


def test_thinking_is_apart_from_the_answer(song, known):
    record = Model(Parrot({"ask": "<think>slow\x1b</think><answer>A ballad.</answer>"})).think(song(), "What is it?")
    assert (record.thinking, record.text) == ("slow", "A ballad.")


def test_a_song_longer_than_the_model_hears_is_cut_and_says_so(song, known):
    backend = Parrot(ANSWERS, max_audio_s=30.0)
    record = Model(backend).analyze(song(31.5))
    assert backend.heard[0].duration_s == 30.0
    assert known[0].duration_s == pytest.approx(31.5, abs=0.01)  # facts are of the whole song; resampling may round a sample away
    assert (record.audio.truncated, record.audio.windows) == (True, 1)
    assert record.warnings[0] == "the model was given only the first 0:30 of 0:32; choose another part with --start and --end"


def test_an_answer_that_was_cut_is_a_warning(song, known):
    record = Model(Parrot({"ask": "one two three"})).ask(song(), "?", max_new_tokens=3)
    assert record.warnings == ("ask: cut at 3 tokens; raise --max-tokens",)


def test_a_part_of_a_song_has_its_own_times(song, known):
    record = Model(Parrot({"ask": "x"})).ask(song(), "?", start_s=1.0, end_s=3.0)
    assert (record.audio.start, record.audio.end, record.audio.duration) == (1.0, 3.0, 4.0)


def test_raw_words_are_kept_only_on_request(song, known):
    assert Model(Parrot(ANSWERS)).analyze(song()).raw is None
    assert Model(Parrot(ANSWERS)).analyze(song(), keep_raw=True).raw == ANSWERS


def test_the_id_belongs_to_the_sound_not_to_the_file(song, known):
    first = Model(Parrot({"ask": "x"})).ask(song(), "?")
    other = Model(Parrot({"ask": "x"})).ask(song(name="copy.wav"), "?")
    part = Model(Parrot({"ask": "x"})).ask(song(), "?", end_s=2.0)
    assert first.audio_id == other.audio_id != part.audio_id
    assert first.audio_id.startswith("sha256:")


def test_nothing_that_is_not_a_number_reaches_the_record(song, known):
    record = Model(Parrot(ANSWERS)).analyze(song())
    assert '"true_peak_dbtp":null' in record.to_json()
    assert Analysis.from_json(record.to_json()).result.loudness.integrated_lufs == -14.12


@pytest.mark.parametrize(("code", "status"), [("silent", "skipped"), ("too_short", "skipped"), ("decode_failed", "error")])
def test_a_failure_is_a_record_too(code, status):
    record = assemble.failed("x\udce9.wav", "analyze", AudioError("x\x1b.wav: no", code=code))
    assert (record.status, record.error.code, record.error.message) == (status, code, r"x\x1b.wav: no")
    assert record.path_b64 is not None
    assert Analysis.from_json(record.to_json()).error == record.error


def test_what_was_prepared_ahead_is_not_done_again(song, known):
    backend, request = Parrot(ANSWERS), requests.analyze_request()
    path = song()
    heard = pipeline.prepare(path, request, backend.info)
    *_, record = pipeline.run(path, backend, request, heard)
    assert len(known) == 1
    assert record.result.tempo.bpm == 120.0


class Choosy(Parrot):
    """One that cannot hear songs of a certain length, nor talk about those of another; it fails with all that it has at once."""

    deaf_s, dumb_s = 5.0, 6.0

    def encode(self, audios: Sequence[Audio]) -> list[Encoded]:
        if any(audio.duration_s == self.deaf_s for audio in audios):
            raise ModelError("no memory to hear it", code="oom")
        self.heard += audios
        return [Encoded(round(audio.duration_s), None) for audio in audios]

    def generate(self, talks: Sequence[SongPrompts], options: GenerateOptions) -> Iterator[tuple[int, int, Chunk]]:
        if any(talk.encoded.n_tokens == self.dumb_s for talk in talks):
            raise ModelError("no memory to talk about it", code="oom")
        yield from super().generate(talks, options)


def together(paths, backend, **settings):
    """What became of each song: its record or its error."""
    ends = {}
    for index, event in pipeline.run_together([(path, None) for path in paths], backend, requests.analyze_request(), **settings):
        assert index not in ends, "nothing comes after a song's end"
        if isinstance(event, Analysis | MFlamingoError):
            ends[index] = event
    return [ends[index] for index in range(len(paths))]


def test_songs_together_are_answered_in_one_call_and_as_each_alone(song, known):
    paths, backend = [song(4.0, "a.wav"), song(3.0, "b.wav")], Parrot(ANSWERS)
    calls = []
    generate = backend.generate
    backend.generate = lambda talks, options: calls.append(len(talks)) or generate(talks, options)
    found = together(paths, backend)
    assert calls == [2]
    alone = [Model(Parrot(ANSWERS)).analyze(path) for path in paths]
    first, second = ([json.loads(record.to_json()) | {"timing": None} for record in records] for records in (found, alone))
    assert first == second


def test_one_songs_failure_does_not_fail_the_others(song, known):
    paths = [song(4.0, "a.wav"), song(5.0, "deaf.wav"), "missing.wav", song(6.0, "dumb.wav"), song(3.0, "b.wav")]
    found = together(paths, Choosy(ANSWERS))
    assert [str(end) if isinstance(end, MFlamingoError) else end.path for end in found] == [
        paths[0],
        "no memory to hear it",
        "missing.wav: there is no such file",
        "no memory to talk about it",
        paths[4],
    ]


def test_a_song_that_has_its_answers_is_not_asked_about_again(song, known):
    """The others may fail after it."""

    class Tired(Parrot):
        def generate(self, talks, options):
            for talk, prompt, chunk in super().generate(talks, options):
                if talk == 1 and chunk.finish:
                    raise ModelError("no memory to go on writing", code="oom")
                yield talk, prompt, chunk

    backend = Tired({"key": ANSWERS["key"]}, abilities=frozenset({"key"}))
    first, second = together([song(4.0, "a.wav"), song(3.0, "b.wav")], backend)
    assert first.status == "ok"
    assert isinstance(second, Analysis), "alone it is the first"
    assert len(backend.calls) == 3, "both together, then the second alone"


def test_no_memory_for_one_song_is_its_own_error(song, known, monkeypatch):
    load = core_audio.load

    def full(path: str, **settings: object) -> object:
        if path == "a.wav":
            raise MemoryError
        return load(path, **settings)

    monkeypatch.setattr(core_audio, "load", full)
    ends = [event for _, event in pipeline.run_together([("a.wav", None), (song(), None)], Parrot(ANSWERS), requests.analyze_request())]
    [error] = [event for event in ends if isinstance(event, MFlamingoError)]
    assert (error.code, str(error)) == ("oom", "a.wav: not enough memory; choose a part of it with --start and --end")
    assert isinstance(ends[-1], Analysis)


def test_a_question_that_is_not_text_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        requests.ask_request("caf\udce9?")


def test_what_think_describes_is_held_as_a_description_is() -> None:
    wanted = tasks.CAPTION_STYLES["full"]
    asked, thought = (replace(tasks.TASKS["tempo"], name="think", prompt=prompt) for prompt in (wanted, think_prompt(wanted)))
    request = requests.think_request("Tell me about this song.")
    held = request.check_of(thought, grounded=True)
    assert held == request.check_of(asked, grounded=True)
    assert (held.describes, held.complete) == (True, True)
    assert not request.check_of(replace(thought, prompt=think_prompt("How fast is it?")), grounded=True).describes
