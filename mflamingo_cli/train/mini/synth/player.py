"""MIDI files through libfluidsynth into one mono stem per channel, in one pass. Times are samples."""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache
from typing import Any

import numpy as np

from mflamingo_cli.errors import ModelError

CHANNELS = 16
BLOCK = 4096
SETTINGS = {  # rooms and chorus belong to the mix; one output group for each channel
    "synth.reverb.active": 0, "synth.chorus.active": 0, "synth.audio-channels": CHANNELS, "synth.audio-groups": CHANNELS,
    "synth.dynamic-sample-loading": 1, "synth.threadsafe-api": 0, "synth.lock-memory": 0, "synth.polyphony": 256, "player.reset-synth": 1,
}  # fmt: skip


@cache
def library() -> Any:
    """The shared library of the Debian package `libfluidsynth3` (LGPL-2.1), with the signatures of what is used."""
    name = ctypes.util.find_library("fluidsynth")
    if name is None:
        raise ModelError("libfluidsynth is not installed; try `apt-get install libfluidsynth3`")
    lib, pointer, number = ctypes.CDLL(name), ctypes.c_void_p, ctypes.c_int
    buffers = ctypes.POINTER(ctypes.POINTER(ctypes.c_float))
    for function, result, arguments in (
        ("new_fluid_settings", pointer, []),
        ("fluid_settings_setint", number, [pointer, ctypes.c_char_p, number]),
        ("fluid_settings_setnum", number, [pointer, ctypes.c_char_p, ctypes.c_double]),
        ("fluid_settings_setstr", number, [pointer, ctypes.c_char_p, ctypes.c_char_p]),
        ("new_fluid_synth", pointer, [pointer]),
        ("fluid_synth_sfload", number, [pointer, ctypes.c_char_p, number]),
        ("new_fluid_player", pointer, [pointer]),
        ("fluid_player_add_mem", number, [pointer, ctypes.c_char_p, ctypes.c_size_t]),
        ("fluid_player_play", number, [pointer]),
        ("fluid_synth_process", number, [pointer, number, number, buffers, number, buffers]),
        *((f"delete_fluid_{what}", None, [pointer]) for what in ("player", "synth", "settings")),
        ("fluid_set_log_function", pointer, [number, pointer, pointer]),
    ):
        getattr(lib, function).restype, getattr(lib, function).argtypes = result, arguments
    for level in range(5):
        lib.fluid_set_log_function(level, None, None)  # it warns about every bank that lacks a drum kit
    return lib


def stems(midi: bytes, font: str, sample_rate: float, count: int) -> np.ndarray:
    """Play a MIDI file: -> (16, count) float32, one row per MIDI channel, both sides added. The same input gives the same samples."""
    lib = library()
    settings = lib.new_fluid_settings()
    for name, value in SETTINGS.items():
        lib.fluid_settings_setint(settings, name.encode(), value)
    lib.fluid_settings_setnum(settings, b"synth.sample-rate", sample_rate)
    lib.fluid_settings_setnum(settings, b"synth.gain", 0.5)
    lib.fluid_settings_setstr(settings, b"player.timing-source", b"sample")
    synth = lib.new_fluid_synth(settings)
    player = None
    try:
        if lib.fluid_synth_sfload(synth, font.encode(), 1) < 0:
            raise ModelError(f"{font}: not a soundfont that fluidsynth reads")
        player = lib.new_fluid_player(synth)
        lib.fluid_player_add_mem(player, midi, len(midi))
        lib.fluid_player_play(player)
        return _process(lib, synth, count)
    finally:
        if player is not None:
            lib.delete_fluid_player(player)
        lib.delete_fluid_synth(synth)
        lib.delete_fluid_settings(settings)


def _process(lib: Any, synth: Any, count: int) -> np.ndarray:
    """Run a synth whose player plays: left and right are added because they point to the same row."""
    block = np.zeros((CHANNELS, BLOCK), np.float32)
    result = np.zeros((CHANNELS, count), np.float32)
    rows = (ctypes.POINTER(ctypes.c_float) * (2 * CHANNELS))(
        *(block[i // 2].ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for i in range(2 * CHANNELS))
    )
    for at in range(0, count, BLOCK):
        block[:] = 0
        lib.fluid_synth_process(synth, BLOCK, 0, None, 2 * CHANNELS, rows)
        size = min(BLOCK, count - at)
        result[:, at : at + size] = block[:, :size]
    return result
