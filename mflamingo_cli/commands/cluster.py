"""`--engine ray`: the songs of a command on a cluster -> a folder of records, and the exit code that says how it went."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from mflamingo_cli.commands import terminal
from mflamingo_cli.commands.results import STDOUT
from mflamingo_cli.commands.songs import OK, Tally, list_songs
from mflamingo_cli.errors import MFlamingoError, UsageError
from mflamingo_cli.schema import Analysis

if TYPE_CHECKING:
    from mflamingo_cli.commands.options import SongOptions
    from mflamingo_cli.library.ray import Found, RayJob
    from mflamingo_cli.library.shards import ShardWriter
    from mflamingo_cli.pipeline import Request

HONOURED = {
    *("paths", "files_from", "null", "start", "end", "model", "backend", "device", "dtype", "kv_type", "threads", "offline", "no_cache"),
    *("max_tokens", "temperature", "top_p", "seed", "json", "output", "quiet", "verbose", "color", "progress", "dry_run"),
    *("given", "quantize", "shard", "engine", "ray_address"),
}


def on_cluster(songs: list[str], options: SongOptions, request: Request, voice: terminal.Reporter, hide_thinking: bool) -> int:
    """Hear all songs of which the output holds no record yet; the exit code, of earlier records too. Raises MFlamingoError."""
    from mflamingo_cli.library import ray

    ray.require()
    _refuse_others(options, voice)
    work = ray.RayJob(replace(request, keep_raw=options.verbose > 0), options.model, options.open, options.offline)
    ray.check_inputs(songs, work)
    if options.dry_run:
        list_songs(songs, options, request)
        return OK
    assert options.output is not None, "was refused"
    from mflamingo_cli.library.shards import ShardWriter

    parts = ShardWriter(options.output)
    voice.working("joining the cluster")
    with terminal.reserve_stdout():
        ray.connect(options.ray_address)
        found = ray.ask_cluster(work)
        voice.detail(f"{found.info.model}: {found.info.backend} on {found.info.device}, {found.info.dtype} ({found.info.reason})")
        return _hear(songs, parts, work, found, voice, hide_thinking)


def _refuse_others(options: SongOptions, voice: terminal.Reporter) -> None:
    """Raise UsageError for what was typed and this engine would not do; what was set is a warning."""
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in HONOURED or value == field.default or (field.name, value) == ("format", "json"):
            continue
        name = field.name.replace("_", "-")
        if field.name in options.given:
            raise UsageError(f"--{name} is not for --engine ray; leave it out")
        voice.warn(f"the setting {name} is not for --engine ray")
    if options.output in (None, *STDOUT) or os.path.isfile(options.output or ""):
        raise UsageError("--engine ray writes many files; name a folder or an address with --output, ending with .parquet for Parquet")


def _hear(songs: list[str], parts: ShardWriter, work: RayJob, found: Found, voice: terminal.Reporter, hide_thinking: bool) -> int:
    from mflamingo_cli.library import ray
    from mflamingo_cli.library.shards import identity

    earlier = parts.open(work.settings(found.info) | {"--verbose": work.request.keep_raw, "--hide-thinking": hide_thinking})
    names = {song: identity(song) for song in songs}
    tally = Tally(len(names))
    for name in names.values():
        if name in earlier:
            _count(tally, earlier[name])
    left = [song for song, name in names.items() if name not in earlier]
    if len(left) < len(names):
        voice.detail(f"{len(names) - len(left)} of {len(names)} are done")
    try:
        for record in ray.analyses(left, work, found):
            _count(tally, record)
            parts.add(replace(record, thinking=None) if hide_thinking else record)
            voice.working(f"{tally.ok + tally.failed}/{tally.total} songs, {tally.failed} failed")
            if record.error is not None:
                voice.idle()
                voice.error(record.error.message)
    except KeyboardInterrupt:
        voice.idle()
        voice.say(f"mflamingo: stopped, {tally.ok + tally.failed} done; run again to resume")
        raise
    finally:
        parts.flush()
    voice.detail(f"saved {parts.output}")
    return tally.exit_code


def _count(tally: Tally, record: Analysis) -> None:
    tally.add(record, MFlamingoError(record.error.message, code=record.error.code) if record.error else None)
