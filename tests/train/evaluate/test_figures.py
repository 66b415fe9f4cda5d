"""Figures are what they are called: hand-made cases, mir_eval and scikit-learn's formulas as oracles, statistics under resampling."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path

import mir_eval
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mflamingo_cli.errors import UsageError
from mflamingo_cli.grounding.prose.captions import caption_of
from mflamingo_cli.measure.tagging import TAG_NAMES
from mflamingo_cli.train.evaluate import bootstrap, caption_metrics, ground_truth, music, question_accuracy, table, yesno
from mflamingo_cli.train.evaluate.bootstrap import Score
from mflamingo_cli.train.evaluate.ground_truth import Item
from mflamingo_cli.train.evaluate.probes import decoded_chords, family_counts, smoothed, tag_truth, voice_counts
from mflamingo_cli.train.mini.dialogue.prompt_facts import PHRASES, prompt_slots, random_facts
from mflamingo_cli.train.mini.frames import TOKEN_S, Clip
from mflamingo_cli.train.mini.synth.harmony import CHORDS, QUALITIES

KEYS = [(tonic, mode) for mode in ("major", "minor") for tonic in range(12)]


def item(row: dict, clip_labels: dict[str, str] | None = None, seconds: float = 20.0) -> Item:
    return Item(Clip({"index": 0, "duration": 30.0, **row}, Path()), 0.0, seconds, clip_labels or {})


# --- keys ------------------------------------------------------------------------------------------------------------


def test_key_weights_are_those_of_the_mirex_task() -> None:
    found = [music.mirex((9, "minor"), claim) for claim in ((9, "minor"), (4, "minor"), (0, "major"), (9, "major"), (2, "minor"))]
    assert found == [1, 0.5, 0.3, 0.2, 0]


def test_chance_is_what_a_random_key_reaches() -> None:
    assert np.mean([music.mirex(KEYS[5], claim) for claim in KEYS]) == pytest.approx(music.MIREX_CHANCE)


def test_a_key_nobody_names_is_wrong_and_the_constant_is_the_commonest() -> None:
    exact, mirex = music.key_scores("key", [(0, "major"), (0, "major"), (9, "minor")], [(0, "major"), None, (0, "major")])
    assert exact.value == pytest.approx(1 / 3)
    assert exact.constant == pytest.approx(2 / 3)
    assert mirex.value == pytest.approx((1 + 0 + 0.3) / 3)
    assert mirex.constant == pytest.approx((1 + 1 + 0.3) / 3)


# --- tempo, meter ------------------------------------------------------------------------------------------------------


def test_tempo_is_right_within_four_percent_and_its_octaves_count_apart() -> None:
    first, second = music.tempo_scores("tempo", [(100.0,), (100.0,), (90.0,), (90.0,)], [103.9, 50.0, 180.0, None])
    assert first.value == 0.25
    assert second.value == 0.75


def test_six_eight_has_two_tempi() -> None:
    row = {"tempo": 60.0, "meter": "6/8"}
    assert [music.same_tempo(ground_truth.tempo_truth(item(row)), bpm) for bpm in (60, 90, 120)] == [True, True, False]


def test_meter_is_the_mean_recall_of_its_classes() -> None:
    (score,) = question_accuracy.meter_scores("meter", ["4/4"] * 8 + ["3/4"] * 2, ["4/4"] * 8 + ["4/4", "3/4"])
    assert score.value == pytest.approx((1 + 0.5) / 2)
    assert score.constant == 0.5
    (constant,) = question_accuracy.meter_scores("meter", ["4/4"] * 8 + ["3/4"] * 2, ["4/4"] * 10)
    assert not constant.claimed


# --- chords ------------------------------------------------------------------------------------------------------------


def test_every_chord_of_the_generator_is_a_chord_to_mir_eval() -> None:
    for root, name in itertools.product(range(12), CHORDS):
        encoded_root, semitones, _ = mir_eval.chord.encode(music.harte(root, name))
        assert encoded_root == root
        tones = {tone % 12 for tone in CHORDS[name].tones}
        assert {0, *np.flatnonzero(semitones)} <= tones | {2, 10}  # a ninth's seventh is told apart nowhere here


def test_what_no_chord_covers_is_silence_or_unknown() -> None:
    chords = [[1.0, 3.0, 9, "min"], [3.0, 9.0, 5, "maj"]]
    assert music.chord_spans(chords, 2.0, 12.0, "X") == [(0.0, 1.0, "A:min"), (1.0, 7.0, "F:maj"), (7.0, 10.0, "X")]
    assert music.chord_spans(chords, 0.0, 2.0, "N") == [(0.0, 1.0, "N"), (1.0, 2.0, "A:min")]


def test_chord_agreement_is_the_share_of_time() -> None:
    true = [(0.0, 6.0, "C:maj"), (6.0, 8.0, "A:min7"), (8.0, 10.0, "X")]
    claim = [(0.0, 3.0, "C:7"), (3.0, 10.0, "A:min")]
    found = music.chord_agreement(true, claim)
    assert found["majmin"] == pytest.approx(5 / 8)
    assert found["root"] == pytest.approx(5 / 8)
    assert found["sevenths"] == pytest.approx(0 / 8)


def test_the_constant_chord_is_the_one_that_sounds_longest() -> None:
    truths = [[(0.0, 6.0, "C:maj7"), (6.0, 8.0, "A:min")], [(0.0, 8.0, "C:maj")]]
    majmin, *_ = music.chord_sequence_scores("chords", truths, [[(0.0, 8.0, "A:min")]] * 2)
    assert majmin.value == pytest.approx((2 / 8 + 0) / 2)
    assert majmin.constant == pytest.approx((6 / 8 + 1) / 2)


def test_chords_are_read_from_frames_and_a_slip_of_one_frame_is_smoothed_away() -> None:
    root, quality = np.full((50, 13), -4.0), np.full((50, len(QUALITIES)), -4.0)
    root[:25, 0], root[25:, 12], quality[:, QUALITIES.index("min")] = 4, 4, 4
    root[10], root[10, 7] = -4.0, 4
    assert decoded_chords(root, quality) == [(0.0, 25 * TOKEN_S, "C:min"), (25 * TOKEN_S, 50 * TOKEN_S, "N")]


def test_smoothing_keeps_a_constant() -> None:
    logits = np.tile(np.array([2.0, 0.0, -1.0]), (20, 1))
    assert np.allclose(np.exp(smoothed(logits)).sum(axis=1), 1)


def test_main_chords_are_compared_as_sets_without_spelling() -> None:
    f1, first = music.chord_scores("chords", [["Db", "Gb"], ["C"]], [["C#", "A"], []])
    assert f1.value == pytest.approx((2 * 1 / 4 + 0) / 2)
    assert first.value == 0.5


# --- sections ----------------------------------------------------------------------------------------------------------


def test_boundaries_are_scored_as_mir_eval_scores_them() -> None:
    assert music.boundary_f([10.0, 20.0], [11.0, 40.0], 60.0, 3.0) == pytest.approx(0.5)
    assert music.boundary_f([10.0, 20.0], [11.0, 40.0], 60.0, 0.5) == 0
    assert music.boundary_f([10.0, 20.0], [10.0, 20.0], 60.0, 0.5) == 1
    assert music.boundary_f([10.0, 20.0], [], 60.0, 3.0) == 0


# --- statistics ----------------------------------------------------------------------------------------------------------


def test_auc_is_the_chance_that_a_positive_ranks_above_a_negative() -> None:
    rng = np.random.default_rng(0)
    truths, values = rng.random(60) < 0.4, rng.integers(0, 6, 60)
    pairs = [(p > n) + 0.5 * (p == n) for p in values[truths] for n in values[~truths]]
    assert bootstrap.auc(np.column_stack([truths, values])) == pytest.approx(np.mean(pairs))
    assert math.isnan(bootstrap.auc(np.array([[1, 0.3], [1, 0.4]])))


def test_mean_average_precision_by_hand() -> None:
    rows = np.array([[1, np.nan, 4, 0.1], [0, 1, 3, 0.1], [1, 0, 2, 0.1], [0, np.nan, 1, 0.1]])  # two tags: truths, then scores
    assert bootstrap.mean_average_precision(rows) == pytest.approx(((1 + 2 / 3) / 2 + 0.5) / 2)  # a tie is no knowledge


def test_balanced_accuracy_is_the_mean_recall() -> None:
    assert bootstrap.balanced_accuracy(np.array([[0, 1], [0, 1], [0, 0], [2, 1]])) == pytest.approx((2 / 3 + 1) / 2)


def test_a_constant_score_reaches_no_more_than_the_base_rate() -> None:
    truths = np.array([[1.0, np.nan], [0, 1], [0, 0], [0, 0], [1, 0]])
    rows = np.hstack([truths, np.zeros_like(truths)])
    assert bootstrap.base_rate(rows) == pytest.approx((2 / 5 + 1 / 4) / 2)
    assert bootstrap.mean_average_precision(rows) <= bootstrap.base_rate(rows) + 1e-9


def test_micro_f1_is_pooled() -> None:
    assert bootstrap.micro_f1(np.array([[2, 1, 0], [0, 1, 3]])) == pytest.approx(2 * 2 / (2 * 2 + 2 + 3))


def test_an_ability_is_claimed_only_when_clearly_better_than_its_constant() -> None:
    rng = np.random.default_rng(1)
    truths = rng.random(200) < 0.5
    good, bad = np.column_stack([truths, rng.random(200) < 0.8]), np.column_stack([truths, rng.random(200) < 0.53])
    assert bootstrap.resampled("x", good, bootstrap.balanced_accuracy, 0.5).claimed
    assert not bootstrap.resampled("x", bad, bootstrap.balanced_accuracy, 0.5).claimed
    assert not bootstrap.mean("x", [1.0] * 3, [1.0] * 3).claimed


def test_the_error_of_a_resampled_mean_is_that_of_its_formula() -> None:
    values = (np.random.default_rng(2).random(400) < 0.3).astype(float)
    rows = np.column_stack([values, np.ones(400)])
    assert bootstrap.resampled("x", rows, bootstrap.share).error == pytest.approx(
        bootstrap.mean("x", list(values)).error, rel=0.2
    )  # 200 resamples


# --- instruments, styles, vocals, tags -----------------------------------------------------------------------------------


def test_families_nobody_is_sure_of_are_neither_right_nor_wrong() -> None:
    truths = [(frozenset({"piano", "drums"}), frozenset({"sax"}))]
    micro, *_ = question_accuracy.family_scores("instruments", truths, [["piano", "organ", "sax"]])
    assert micro.value == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))


def test_the_constant_of_families_is_the_best_fixed_set() -> None:
    truths = [(frozenset({"piano", "drums"}), frozenset(ground_truth.NAMED_FAMILIES) - {"piano", "drums"})] * 3
    truths += [(frozenset({"drums", "sax"}), frozenset(ground_truth.NAMED_FAMILIES) - {"drums", "sax"})]
    assert question_accuracy.best_families(truths) == ["drums", "piano"]


@pytest.mark.parametrize(
    ("text", "families"),
    [
        ("piano, bass, drums", ["piano", "bass", "drums"]),
        ("piano bass drums", ["piano", "bass", "drums"]),
        ("A saxophone, drum kit and strings.", ["sax", "drums", "strings"]),
        ("Guitars", ["guitar"]),
        ("I cannot tell that from the sound.", []),
        ("", []),
    ],
)
def test_families_are_read_from_answers(text: str, families: list[str]) -> None:
    assert ground_truth.families_in(text) == families


def test_a_clip_has_one_style_and_a_recording_three() -> None:
    truths, claims = [["jazz"], ["folk", "country"]], [["Jazz", "rock"], ["country", "rock", "folk"]]
    assert [s.value for s in question_accuracy.style_scores("style", truths, claims)] == [0.5]
    assert [s.value for s in question_accuracy.style_scores("style", truths, claims, clips="recordings")] == [1.0]


def test_counts_of_families_pass_over_unknown_tokens() -> None:
    labels = np.full((3, 12), 255, np.uint8)
    labels[:, 0], labels[:, 1] = 1, 0
    marks, known = family_counts(labels, np.where(np.arange(12) < 3, 1.0, -1.0)[None].repeat(3, 0))
    assert marks.sum(axis=0).tolist() == [3, 3, 0]
    assert known.sum(axis=0).tolist() == [3, 3]


def test_tags_between_yes_and_no_are_unknown() -> None:
    labels = np.zeros((4, len(TAG_NAMES)), np.uint8)
    labels[:, 0], labels[:, 1], labels[:, 2] = 128, 40, 255
    found = tag_truth(labels)
    assert found[0] == 1
    assert math.isnan(found[1])
    assert math.isnan(found[2])
    assert found[3] == 0


# --- truths ----------------------------------------------------------------------------------------------------------------


def test_a_recording_has_a_key_only_where_both_estimators_agree() -> None:
    recorded = {"kind": "recording", "tonic": 9, "mode": "minor"}
    assert ground_truth.key_truth(item({**recorded, "key2": [9, "minor"]})) == (9, "minor")
    assert ground_truth.key_truth(item({**recorded, "key2": [0, "major"]})) is None
    assert ground_truth.key_truth(item(recorded)) is None
    assert ground_truth.measured_key(item(recorded)) == (9, "minor")
    assert ground_truth.key_truth(item({"tonic": 9, "mode": "minor"}, {"key": "A minor"})) == (9, "minor")


def test_an_excerpt_in_two_keys_has_none() -> None:
    row = {"tonic": 9, "mode": "minor", "keys": [[0, 18, 9, "minor"], [18, 30, 2, "minor"]]}
    assert ground_truth.key_truth(item(row, {"key": "A minor"}, 20.0)) is None
    assert ground_truth.key_truth(item(row, {"key": "A minor"}, 18.0)) == (9, "minor")


def test_what_takes_long_is_made_once_for_a_sound(tmp_path: Path) -> None:
    clip, calls, sound = Clip({"index": 3, "audio": "a.flac"}, tmp_path), [], tmp_path / "a.flac"
    sound.write_bytes(b"")
    for _ in range(2):
        assert ground_truth.cached_json(clip, "x", lambda: calls.append(1) or {"a": [1.5, None]}) == {"a": [1.5, None]}
    assert calls == [1]
    os.utime(sound, ns=(2**62, 2**62))
    ground_truth.cached_json(clip, "x", lambda: calls.append(1))
    assert calls == [1, 1]
    assert not list(tmp_path.rglob("*.part"))


# --- captions --------------------------------------------------------------------------------------------------------------

ROW = {
    "tempo": 100.0, "tonic": 9, "mode": "minor", "style": "jazz", "duration": 40.0, "meter": "3/4",
    "sections": [[0, 20, "A"], [20, 40, "B"]], "chords": [[0, 10, 9, "min7"], [10, 40, 5, "maj"]],
}  # fmt: skip
HEARD = {
    "key": "A minor", "chords": "Am F", "meter": "3/4", "instruments": "piano drums", "absent": "sax", "genre": "jazz", "vocals": "no",
}  # fmt: skip


def test_a_true_caption_has_only_true_claims() -> None:
    said = {**HEARD, "tempo": "101", "duration": "40", "form": "A 0:00 B 0:21", "chords": "Am7 F"}
    verdicts = caption_metrics.check_claims(said, item(ROW, HEARD, 40.0), ())
    assert {name: verdict.right == verdict.checked for name, verdict in verdicts.items()} == dict.fromkeys(verdicts, True)
    assert sum(verdict.said for verdict in verdicts.values()) == sum(verdict.true for verdict in verdicts.values())


@pytest.mark.parametrize(
    ("claim", "right", "checked"),
    [
        ({"tempo": "50"}, 0, 1),
        ({"key": "C major"}, 0, 1),
        ({"chords": "Am C"}, 1, 2),
        ({"form": "A 0:00 B 0:31"}, 0, 1),
        ({"instruments": "piano sax organ"}, 1, 2),
        ({"genre": "rock"}, 0, 1),
        ({"vocals": "yes"}, 0, 1),
        ({"duration": "50"}, 0, 1),
        ({}, 0, 0),
    ],
)
def test_a_false_claim_is_checked_and_wrong(claim: dict[str, str], right: int, checked: int) -> None:
    verdicts = caption_metrics.check_claims(claim, item(ROW, HEARD, 40.0), ()).values()
    assert (sum(v.right for v in verdicts), sum(v.checked for v in verdicts)) == (right, checked)


def test_harmony_is_a_false_claim_where_there_is_none() -> None:
    drums = {name: value for name, value in ROW.items() if name not in ("tonic", "mode")} | {"chords": []}
    verdicts = caption_metrics.check_claims({"key": "C major", "chords": "C G", "tempo": "100"}, item(drums, {"meter": "3/4"}), ())
    assert {name: (verdict.right, verdict.checked) for name, verdict in verdicts.items()} == {"key": (0, 1), "chords": (0, 2)}


def test_what_the_teacher_measured_proves_nothing_about_a_recording() -> None:
    row = {**ROW, "kind": "recording", "key2": [9, "minor"]}
    verdicts = caption_metrics.check_claims({"key": "A minor", "duration": "40", "genre": "jazz"}, item(row, HEARD), ("key", "meter"))
    assert not {"key", "meter", "duration"} & set(verdicts)
    assert verdicts["genre"].right == 1


def test_copied_facts_are_exact_and_a_changed_one_is_noticed() -> None:
    rng = np.random.default_rng(4)
    for index in range(40):
        facts, style = random_facts(rng, 1.0), caption_metrics.STYLES[index % 4]
        text = caption_of(style, prompt_slots(facts), index)
        assert all(caption_metrics.faithful(text, facts).values()), (facts, text)
        assert not caption_metrics.hallucinated(text, facts)
        other = {**facts, "tempo": "61.7" if facts["tempo"] != "61.7" else "61"}
        assert not caption_metrics.faithful(text, other)["tempo"]
        assert caption_metrics.hallucinated(text, other)
        assert caption_metrics.hallucinated(text, {name: value for name, value in facts.items() if name != "tempo"})


@pytest.mark.parametrize(("text", "claims"), [
    ("At 87.5 BPM and in A minor, this rock track moves along, mastered loud at -9.8 LUFS.",
     {"tempo": "87.5", "key": "A minor", "loudness": "-9.8", "genre": "rock"}),
    ("Its main chords are C, G, Am and F. It lasts 213 s. Drums stand out, and nobody sings.",
     {"chords": "C G Am F", "duration": "213", "instruments": "drums", "vocals": "no"}),
    ("The form has two sections: A (0:00) and B (1:02). It is counted in 3/4.", {"form": "A 0:00 B 1:02", "meter": "3/4"}),
    ("It is not in C major.", {}), ("", {}),
])  # fmt: skip
def test_a_caption_is_read_back_as_the_facts_that_it_claims(text: str, claims: dict[str, str]) -> None:
    assert caption_metrics.parse_caption(text) == claims


def test_facts_are_read_from_the_phrases_of_a_prompt() -> None:
    facts = {**random_facts(np.random.default_rng(0), 1.0), "duration": "40"}
    phrases = [PHRASES[name].format(value) for name, value in facts.items()]
    assert caption_metrics.phrase_facts(phrases) == facts


def test_times_of_a_form() -> None:
    assert caption_metrics.form_starts("A 0:00 B 1:02 C 1:00:05") == [0, 62, 3605]


def test_noises_have_no_part_that_is_not_a_number() -> None:
    sounds = caption_metrics.noises(4.0, 1)
    assert len(sounds) == 6
    assert all(np.isfinite(sound).all() and 0.1 < np.abs(sound).max() <= 0.21 for sound in sounds)


# --- yes and no --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in yesno.KINDS if kind not in ("is_sung", "is_instrumental")])
def test_of_every_kind_one_statement_is_true_and_one_false(kind: str) -> None:
    clip_labels = {**HEARD, "not_genre": "metal, waltz"}
    for seed in range(20):
        found = yesno.statements(np.random.default_rng(seed), item(ROW, clip_labels), kind)
        assert [question.true for question in found] == [True, False]
        assert found[0].text != found[1].text
        assert "{" not in found[0].text + found[1].text


def test_singing_and_playing_are_asked_both_ways() -> None:
    rng = np.random.default_rng(0)
    assert [q.true for q in yesno.statements(rng, item(ROW, HEARD), "is_sung")] == [False]
    assert [q.true for q in yesno.statements(rng, item(ROW, HEARD), "is_instrumental")] == [True]
    assert not yesno.statements(rng, item(ROW, {}), "is_sung")


@pytest.mark.parametrize("kind", yesno.FACT_KINDS)
def test_questions_about_given_facts_are_answered_both_ways(kind: str) -> None:
    found = [yesno.statement_of_facts(np.random.default_rng(seed), kind) for seed in range(80)]
    assert {question.true for question in found if question} == {True, False}


@pytest.mark.parametrize(
    ("text", "answer"), [("Yes.", True), ("no, it is not", False), ("It may be.", None), ("", None), ("Yesterday", None)]
)
def test_an_answer_is_its_first_word(text: str, answer: bool | None) -> None:
    assert yesno.parsed(text) is answer


def test_the_usual_answer_to_a_question_is_no_help() -> None:
    questions = [yesno.Statement("?", about, true) for about, true in (("drums", True), ("drums", True), ("drums", False), ("sax", False))]
    assert yesno.even(questions) == [0, 2]


# --- tables ------------------------------------------------------------------------------------------------------------------


def test_lines_are_read_back_and_become_tables(tmp_path: Path) -> None:
    known = [
        Score("key, exact", 0.75, 100, 0.04, 0.1, 0.04, 1 / 24, seconds=20.0),
        Score("key, exact", 0.45, 80, 0.05, 0.1, 0.05, 1 / 24, clips="recordings", seconds=20.0),
        Score("key, exact", 0.8, 50, 0.05, 0.1, 0.05, system="librosa", seconds=20.0),
        Score("instrument tags, mAP", 0.5, 60, 0.03, 0.2, 0.03, system="encoder head", clips="recordings", seconds=20.0),
        Score("vocals, AUC", math.nan, 3, math.nan, 0.5, clips="recordings", seconds=20.0),
    ]
    path = tmp_path / "run.jsonl"
    path.write_text("".join(table.line(score) + "\n" for score in known), encoding="utf-8")
    assert json.loads(path.read_text().splitlines()[0])["interval"] == pytest.approx([0.75 - 1.96 * 0.04, 0.75 + 1.96 * 0.04])
    scored = table.read([path])
    assert scored[:4] == known[:4]
    text = "\n".join(table.markdown(scored))
    assert "| key, exact | synth | 0.7 | **0.750 ± 0.040** | 0.1 | 100 | met |" in text
    assert "| key, exact | recordings | 0.5 | **0.450 ± 0.050** | 0.1 | 80 | missed |" in text
    assert "2 x constant = 0.4" in text
    assert "| vocals, AUC | recordings | 0.85 | not measured |" in text
    assert "| key, exact | librosa | 20 s | **0.800 ± 0.050** |" in text


def test_what_is_no_result_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text('{"value": 1}\n')
    with pytest.raises(UsageError, match="not a line of"):
        table.read([path])


def test_singing_is_counted_by_sure_tokens_and_its_curve_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    labels = rng.choice([0, 1, 255], 4000).astype(np.uint8)
    logits = (rng.normal(0, 1, 4000) + (labels == 1)).astype(np.float32)[:, None]
    rows = np.stack([voice_counts(labels[at : at + 1000], logits[at : at + 1000]) for at in range(0, 4000, 1000)])
    assert rows.sum() == (labels != 255).sum()
    sure = labels != 255
    assert bootstrap.binned_auc(rows) == pytest.approx(roc_auc_score(labels[sure], logits[sure, 0]), abs=2e-3)
    assert np.isnan(bootstrap.binned_auc(rows[:, :2] * 0))
