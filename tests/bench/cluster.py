"""Songs per hour with `--engine ray` on this machine, one worker killed on the way, and whether the records are the local engine's.

python -m tests.bench.cluster [SONGS] [SECONDS]
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import soundfile

from mflamingo_cli import load, requests
from mflamingo_cli.backends.base import OpenOptions
from mflamingo_cli.core.audio import SAMPLE_RATE
from mflamingo_cli.library import ray as engine
from mflamingo_cli.library.plan import RunPlan
from tests import clips
from tests.library.test_ray import by_path, workers


def main(n_songs: int = 100, seconds: float = 30.0) -> None:
    """Print one JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        songs = [str(Path(folder, f"{number:04}.flac")) for number in range(n_songs)]
        for number, song in enumerate(songs):
            soundfile.write(song, clips.song(seconds, bpm=70.0 + number % 90), SAMPLE_RATE)
        began = time.perf_counter()
        with load("mini", remember=False) as model:
            local = [model.analyze(song) for song in songs]
        local_s = time.perf_counter() - began
        work = RunPlan((), requests.analyze_request(), "mini", OpenOptions())
        engine.connect(None)
        found = engine.ask_cluster(work)
        began = time.perf_counter()
        records = []
        for finished in engine.analyses(songs, work, found):
            records.append(finished.record)
            if len(records) == n_songs // 3:
                os.kill(workers("MapWorker")[0], signal.SIGKILL)
        cluster_s = time.perf_counter() - began
    per_hour = {name: round(3600 * n_songs / seconds) for name, seconds in (("local", local_s), ("ray", cluster_s))}
    same = by_path(records) == by_path([replace(record) for record in local]) and len(records) == n_songs
    print(json.dumps({"songs": n_songs, "seconds": seconds, "songs_per_hour": per_hour, "same_records": same}))


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, float), sys.argv[1:], strict=False)))
