"""The styles of captions; what becomes of wrong claims.

Prompts marked "documented" are the ones the public checkpoints were trained and shown with.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

ClaimsMode = Literal["mark", "fix", "drop", "raw"]
CLAIMS_MODES: Final[tuple[ClaimsMode, ...]] = get_args(ClaimsMode)

CAPTION_STYLES: Final[dict[str, str]] = {
    "full": "Describe this track in full detail - tell me the genre, tempo, and key, "
    "then dive into the instruments, production style, and overall mood it creates.",  # documented
    "short": "Describe this track in one sentence.",
    "technical": "Write a rich caption that blends the technical details (genre, BPM, key, chords, mix) "
    "with how the song feels emotionally and dynamically as it unfolds.",  # documented
    "critic": "Break the track down like a critic - list its tempo, key, and chordal motion, "
    "then explain the textures, dynamics, and emotional impact of the performance.",  # documented
    "lyrics": "Generate a structured lyric sheet from the input music.",  # documented
}
