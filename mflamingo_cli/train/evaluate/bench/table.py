"""The table of benchmarks.

A row cites where its layout and its rule are described. What has no official rule that can be computed here says so: NV-Embed, METEOR and
BERTScore need models of their own, judges are asked with `--judge` alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from mflamingo_cli.train.evaluate.bench import own_rows, readers
from mflamingo_cli.train.evaluate.bench.choices import choice_measures, letters_rule, name_rule, words_rule
from mflamingo_cli.train.evaluate.bench.items import Benchmark
from mflamingo_cli.train.evaluate.bench.texts import CAPTION, CHARACTER_ERRORS, EMPTY, WORD_ERRORS

WITHOUT_MODELS = "METEOR and BERTScore, which LP-MusicCaps reports too, need models of their own and are not computed"

BENCHMARKS: Mapping[str, Benchmark] = {
    row.name: row
    for row in (
        Benchmark(
            "mmau", "github.com/Sakshi113/MMAU, mmau-test-mini.json and evaluation.py, v05.15.25", readers.mmau,
            choice_measures(words_rule), {"test-mini, music": "76.35 %"},
        ),
        Benchmark(
            "mmau-pro", "huggingface.co/datasets/gamma-lab-umd/MMAU-Pro, and its evaluation in github.com/NVIDIA/NeMo-Skills",
            readers.mmau_pro, choice_measures(None), {"music": "65.60 %"},
            "the official rule takes the option that is nearest in NV-Embed-v2 and is not computed; questions about several recordings "
            "and open ones are left out",
        ),
        Benchmark(
            "mmar", "github.com/ddlBoJack/MMAR, MMAR-meta.jsonl and code/evaluation.py", readers.mmar,
            choice_measures(words_rule), {"music": "48.66 %"},
        ),
        Benchmark(
            "muchomusic", "zenodo.org/records/12709974 and github.com/mulab-mir/muchomusic", readers.muchomusic,
            choice_measures(letters_rule), {"perceptual subset of RUListening": "74.58 %"}, "all questions, not the perceptual subset",
        ),
        Benchmark(
            "nsynth", "magenta.tensorflow.org/datasets/nsynth, examples.json; rule of github.com/QwenLM/Qwen-Audio, "
            "eval_audio/evaluate_note_analysis.py", readers.nsynth, choice_measures(name_rule), {"source": "75.89 %", "family": "80.76 %"},
        ),
        Benchmark(
            "gtzan", "github.com/jongpillee/music_dataset_split, GTZAN_split/test_filtered.txt (Kereliuk, Sturm, Larsen: arXiv 1507.04761)",
            readers.gtzan, choice_measures(name_rule), {"a split that is not stated": "84.45 %"},
        ),
        Benchmark(
            "medley-solos-db", "zenodo.org/records/3464194 (Lostanlen 2019), and mirdata's loader", readers.medley_solos_db,
            choice_measures(name_rule), {"test": "90.86 %"},
        ),
        Benchmark(
            "musiccaps", "huggingface.co/datasets/google/MusicCaps; measures of github.com/seungheondoh/lp-music-caps, "
            "lpmc/utils/metrics.py", readers.musiccaps, CAPTION, {"rated by GPT-5": "8.8 of 10"}, WITHOUT_MODELS, judged=True,
        ),
        Benchmark(
            "musicinstruct", "github.com/zihaod/MusiLingo, data/music_data/MusicInstruct; measures as for musiccaps",
            readers.musicinstruct, CAPTION, {"long, rated by GPT-5": "97.1"}, WITHOUT_MODELS, judged=True,
        ),
        Benchmark(
            "song-describer", "github.com/mulab-mir/song-describer-dataset, docs/datacard.md; measures as for musiccaps",
            readers.song_describer, CAPTION, {}, WITHOUT_MODELS, judged=True,
        ),
        Benchmark(
            "jamendo-lyrics", "github.com/f90/jamendolyrics; rule of music-ir.org/mirex/wiki/2021:Automatic_Lyrics_Transcription",
            readers.jamendo_lyrics, (*WORD_ERRORS, CHARACTER_ERRORS[0], EMPTY),
        ),
        Benchmark(
            "opencpop", "github.com/wenet-e2e/opencpop, segments/test.txt; errors are those of characters", readers.opencpop,
            (*CHARACTER_ERRORS, EMPTY), {"test": "12.9 % of WER"},
        ),
        Benchmark(
            "musdb18-lyrics", "zenodo.org/records/3989267 (Schulze-Forster 2021); rule as for jamendo-lyrics", readers.musdb_lyrics,
            (*WORD_ERRORS, CHARACTER_ERRORS[0], EMPTY), {"test": "19.6 % of WER"}, "lines of singing that the transcribers are sure of",
        ),
        Benchmark(
            "rows", "a file of rows: mflamingo_cli/train/README.md", own_rows.read, own_rows.MEASURES,
            note="questions of the test split; tempi are right within 4 %, keys and meters exactly",
        ),
    )
}  # fmt: skip
