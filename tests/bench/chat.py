"""Whether a model answers better with the turns before in its prompt or without: `python -m tests.bench.chat [MODEL]`.

On parts of the songs in tests/data each question is put alone and after three others; an answer is right when it
repeats what was measured. A caption is right when it names the measured tempo, key and all chords that the prompt told.
"""

from __future__ import annotations

import random
import sys
from collections import Counter

from mflamingo_cli import conversation, grounding, requests, tasks, text
from mflamingo_cli.backends import open_backend
from mflamingo_cli.measure import Facts
from mflamingo_cli.store.cache import Cache, default_folder
from tests.docs import ROOT

PARTS = [("ocean.opus", 0.0, 30.0), ("rlyeh.opus", 0.0, 60.0)]
QUESTIONS = {
    "tempo": ("How fast is this?", "And the tempo?"),
    "key": ("What key is this in?", "And the key?"),
    "chords": ("Which chords do you hear?", "What are its main chords?"),
    "loudness": ("How loud is it?", "What is its loudness?"),
    "sections": ("When do the sections begin?", "Where do its parts start?"),
    "caption": ("Describe this track in one sentence.", tasks.CAPTION_STYLES["full"]),
}


def told(facts: Facts) -> dict[str, list[str]]:
    """What a right answer holds, as the prompt says it; nothing for what was not measured."""
    words = {
        "tempo": [f"{facts.tempo.bpm:.1f}".removesuffix(".0")] if facts.tempo.bpm else [],
        "key": [facts.key.name] if facts.key else [],
        "chords": grounding.main_chords(facts),
        "loudness": [f"{facts.loudness.integrated_lufs:.1f}".removesuffix(".0")] if facts.loudness.integrated_lufs else [],
        "sections": [f"{section.label} ({text.clock(section.start)})" for section in facts.sections][:10],
    }
    words["caption"] = words["tempo"] + words["key"] + words["chords"]
    return {name: found for name, found in words.items() if found}


def main() -> None:
    """Print the share of right answers of each kind, alone and in conversation."""
    right: Counter[tuple[str, bool]] = Counter()
    asked: Counter[str] = Counter()
    dice = random.Random(0)
    with open_backend(*sys.argv[1:]) as model:
        for file, start_s, end_s in PARTS:
            settings = {"start_s": start_s, "end_s": end_s}
            path, folder = ROOT / "tests" / "data" / file, default_folder()
            begin = conversation.Conversation.begin(path, model, requests.ask_request("", **settings), Cache(folder) if folder else None)
            talk = requests.drain(begin)
            expected = told(talk._heard.facts)
            for kind, wording in [(name, words) for name in expected for words in QUESTIONS[name]]:
                before = dice.sample([other for other in QUESTIONS if other != kind], 3)
                for follows in (False, True):
                    talk.follows = follows
                    talk._turns.clear()
                    for question in [*(QUESTIONS[other][0] for other in before)] * follows + [wording]:
                        *_, record = talk.say(requests.ask_request(question, **settings))
                    right[kind, follows] += all(word in (record.text or "") for word in expected[kind])
                asked[kind] += 1
    print("right of    n  alone  after three others")
    for kind, count in asked.items():
        print(f"{kind:<8} {count:>4} {right[kind, False] / count:>6.2f} {right[kind, True] / count:>6.2f}")


if __name__ == "__main__":
    main()
