"""Fuzzers: inputs broken at random, given to the program as a user would; `python -m tests.fuzz KIND` runs one.

A kind is a module with three functions:

    make_seeds(folder)             write whole inputs, once: every entry of the folder is one that `run` accepts
    mutate(rng, seeds, folder)     write one broken input into an empty folder and return its path; all chance comes from `rng`
    run(path)                      do with it what a command does; what a user is told is raised as an MFlamingoError
"""

from __future__ import annotations

# Name -> module
KINDS: dict[str, str] = {
    "audio": "tests.fuzz.audio",
    "ctranslate2": "tests.fuzz.ctranslate2",
    "gguf": "tests.fuzz.gguf",
    "playlists": "tests.fuzz.playlists",
    "safetensors": "tests.fuzz.safetensors",
    "templates": "tests.fuzz.templates",
}
