"""What is measured of one stretch of sound by itself, each property computed when it is first read and kept.

Silence ends a stretch, and so does the length from which a song is measured in parts. Times of `pulse` and `chords` count from its first
sample, all others from the start of the file.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np

from mflamingo_cli.measure.beats import Bars, BeatTrack
from mflamingo_cli.measure.chords import measure_chords
from mflamingo_cli.measure.dynamics import Texture, texture
from mflamingo_cli.measure.key import STILL, pitch_energy, stillness
from mflamingo_cli.measure.sections import Units, units
from mflamingo_cli.measure.spectra import RATE, beat_bands, constant_q, onset_strength, tuning_of
from mflamingo_cli.measure.tags import TagMean, mean_tags
from mflamingo_cli.measure.tempo import LEAD, SILENT, measure_tempo, network_gain
from mflamingo_cli.measure.vocals import Voicing, voicing
from mflamingo_cli.measure.voice import voice_evidence
from mflamingo_cli.schema import Segment

RETUNE = 0.04  # semitones off A = 440 Hz before the spectrum is taken again in tune
SHORTEST_S = 1.0  # seconds; shorter sounds have no harmony to measure
INDEPENDENT = ("chords", "pulse", "voices", "tags")  # stages that share nothing but `sounds`: chords take as long as the other three
LARGE = ("samples", "bands", "untuned_spectrogram", "spectrogram")  # not needed any more when the rest is computed


class SoundStretch:
    """Sound without a long silence, mono at 16 kHz (n,) float32, that begins `start_s` into its file."""

    def __init__(self, samples: np.ndarray, start_s: float) -> None:
        self.samples, self.start_s, self.duration_s = samples, start_s, len(samples) / RATE

    @cached_property
    def sounds(self) -> bool:
        """Whether there is anything to measure: a second or more, above -100 dBFS."""
        level = np.sqrt(np.mean(np.square(self.samples, dtype=np.float64))) if len(self.samples) else 0.0
        return len(self.samples) >= SHORTEST_S * RATE and float(level) >= SILENT

    @cached_property
    def untuned_spectrogram(self) -> np.ndarray:
        """Constant-Q magnitudes tuned to A = 440 Hz: (frames, 252)."""
        return constant_q(self.samples)

    @cached_property
    def is_harmonic(self) -> bool:
        """Whether harmony can move: something sounds, and it is no drone."""
        return self.sounds and stillness(self.untuned_spectrogram) <= STILL

    @cached_property
    def spectrogram(self) -> np.ndarray:
        """Constant-Q magnitudes in tune with the stretch: (frames, 252)."""
        tuning = tuning_of(self.untuned_spectrogram)
        return constant_q(self.samples, tuning) if abs(tuning) > RETUNE else self.untuned_spectrogram

    @cached_property
    def chords(self) -> tuple[Segment, ...]:
        """Chords from the first sample on; nothing where nothing is harmony."""
        return measure_chords(self.spectrogram, self.duration_s) if self.is_harmonic else ()

    @cached_property
    def pitches(self) -> np.ndarray:
        """How much each pitch class sounds in each second, not normalised: (seconds, 24); nothing where no chord does."""
        return pitch_energy(self.spectrogram) if self.chords else np.zeros((0, 24))

    @cached_property
    def bands(self) -> np.ndarray:
        """What the beat network reads, 50 frames a second, from LEAD frames in front of the first sample on: (frames, 272)."""
        return beat_bands(self.samples, network_gain(self.samples), LEAD)

    @cached_property
    def pulse(self) -> tuple[BeatTrack, Bars | None]:
        """The steady pulse and the likeliest bars by its own evidence."""
        return measure_tempo(self.samples, self.bands) if self.sounds else (BeatTrack(), None)

    @cached_property
    def texture(self) -> Texture:
        """How many onsets there are, and its mean spectrum."""
        gain = network_gain(self.samples) if self.sounds else 0.0
        if not gain:
            return Texture()
        bands = self.bands[LEAD:]
        return texture(bands, onset_strength(bands), gain, self.duration_s)

    @cached_property
    def units(self) -> Units | None:
        """Harmony and colour of its beats, of which sections are made; None where there is neither harmony nor a pulse."""
        formed = bool(self.chords) or (self.is_harmonic and self.pulse[0].bpm is not None)
        return units(self.spectrogram, self.start_s, self.duration_s, self.pulse[0].beats) if formed else None

    @cached_property
    def voices(self) -> Voicing:
        """Where somebody sings or speaks."""
        return voicing(voice_evidence(self.samples), self.start_s) if self.sounds else Voicing()

    @cached_property
    def tags(self) -> TagMean | None:
        """What musicnn says of its sound; None where there is none."""
        return mean_tags(self.samples, self.duration_s) if self.sounds else None

    def settle(self, stages: Collection[str]) -> None:
        """Compute these properties now and let go of the sound and of its spectra, of which a long song has too much."""
        for name in stages:
            getattr(self, name)
        for name in LARGE:
            self.__dict__.pop(name, None)
