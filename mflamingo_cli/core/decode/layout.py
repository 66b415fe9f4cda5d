"""Roles of channels in the order of each container, as loudness needs them: which is a surround, which the low-frequency effects.

Names are those of ffmpeg's layouts (SMPTE ST 2036-2): FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL …; a mono channel is FC.
"""

from __future__ import annotations

from collections.abc import Sequence

MASK_ORDER = "FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR"  # bits of WAVEFORMATEXTENSIBLE's dwChannelMask
SNDFILE_ORDER = "- FC FL FR FC FL FR FC BC BL BR LFE FLC FRC SL SR TC TFL TFR TFC TBL TBR TBC"  # sndfile.h, SF_CHANNEL_MAP_…
LAYOUTS = {  # libavutil/channel_layout.c: ffmpeg's names; its decoders put the channels into this order
    "mono": "FC",
    "stereo": "FL FR",
    "2.1": "FL FR LFE",
    "3.0": "FL FR FC",
    "3.0(back)": "FL FR BC",
    "4.0": "FL FR FC BC",
    "quad": "FL FR BL BR",
    "quad(side)": "FL FR SL SR",
    "3.1": "FL FR FC LFE",
    "5.0": "FL FR FC BL BR",
    "5.0(side)": "FL FR FC SL SR",
    "4.1": "FL FR FC LFE BC",
    "5.1": "FL FR FC LFE BL BR",
    "5.1(side)": "FL FR FC LFE SL SR",
    "6.0": "FL FR FC BC SL SR",
    "6.0(front)": "FL FR FLC FRC SL SR",
    "hexagonal": "FL FR FC BL BR BC",
    "6.1": "FL FR FC LFE BC SL SR",
    "6.1(back)": "FL FR FC LFE BL BR BC",
    "6.1(front)": "FL FR LFE FLC FRC SL SR",
    "7.0": "FL FR FC BL BR SL SR",
    "7.0(front)": "FL FR FC FLC FRC SL SR",
    "7.1": "FL FR FC LFE BL BR SL SR",
    "7.1(wide)": "FL FR FC LFE BL BR FLC FRC",
    "7.1(wide-side)": "FL FR FC LFE FLC FRC SL SR",
    "octagonal": "FL FR FC BL BR BC SL SR",
}
UNNAMED = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")  # by count, where a container names no roles: ffmpeg's choice
FLAC = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")  # RFC 9639, sec. 9.1.3
XIPH = (  # Vorbis I, 4.3.9; RFC 7845, 5.1.1.2
    *("FC", "FL FR", "FL FC FR", "FL FR BL BR", "FL FC FR BL BR"),
    *("FL FC FR BL BR LFE", "FL FC FR SL SR BC LFE", "FL FC FR SL SR BL BR LFE"),
)
APPLE_BITS, APPLE_NAMES = 1 << 16, 0  # CoreAudioTypes.h: the layout is the mask behind it, or is told channel by channel
APPLE = {  # kAudioChannelLayoutTag_… without the number of channels
    **{113: "FL FR FC", 114: "FC FL FR", 131: "FL FR BC", 133: "FL FR LFE"},
    **{108: "FL FR SL SR", 115: "FL FR FC BC", 116: "FC FL FR BC", 132: "FL FR SL SR", 134: "FL FR LFE BC", 136: "FL FR FC LFE"},
    **{109: "FL FR SL SR FC", 117: "FL FR FC SL SR", 118: "FL FR SL SR FC", 119: "FL FC FR SL SR", 120: "FC FL FR SL SR"},
    **{135: "FL FR LFE SL SR", 137: "FL FR FC LFE BC", 138: "FL FR SL SR LFE"},
    **{110: "FL FR SL SR FC BC", 121: "FL FR FC LFE SL SR", 122: "FL FR SL SR FC LFE", 123: "FL FC FR SL SR LFE"},
    **{124: "FC FL FR SL SR LFE", 139: "FL FR SL SR FC BC", 141: "FC FL FR SL SR BC"},
    **{125: "FL FR FC LFE SL SR BC", 140: "FL FR SL SR FC BL BR", 142: "FC FL FR SL SR BC LFE", 143: "FC FL FR SL SR BL BR"},
    **{148: "FL FR SL SR FC FLC FRC", 126: "FL FR FC LFE SL SR FLC FRC", 127: "FC FLC FRC FL FR SL SR LFE"},
    **{128: "FL FR FC LFE SL SR BL BR", 129: "FL FR SL SR FC LFE FLC FRC", 144: "FC FL FR SL SR BL BR BC"},
}
APPLE_LABELS = dict(enumerate(["FL", "FR", "FC", "LFE", "SL", "SR", "FLC", "FRC", "BC"], 1)) | {33: "BL", 34: "BR", 42: "FC"}
UNKNOWN = "-"  # a role that nobody named


def _padded(roles: Sequence[str], channels: int) -> tuple[str, ...]:
    """As many roles as channels, or none of them known: (channels,)."""
    return tuple(roles) if len(roles) == channels else (UNKNOWN,) * channels


def named(layout: str | None, channels: int) -> tuple[str, ...]:
    """Roles of a layout that ffmpeg names; of its choice by the count where it names none."""
    if layout is None or layout not in LAYOUTS:
        layout = UNNAMED[channels - 1] if channels <= len(UNNAMED) else ""
    return _padded(LAYOUTS.get(layout, "").split(), channels)


def by_mask(mask: int, channels: int) -> tuple[str, ...]:
    """Roles of a WAVEFORMATEXTENSIBLE mask."""
    return _padded([role for bit, role in enumerate(MASK_ORDER.split()) if mask >> bit & 1], channels)


def of_flac(channels: int, mask: int | None = None) -> tuple[str, ...]:
    """Roles in a FLAC file, which may carry a mask in a comment of its own."""
    if mask is not None and UNKNOWN not in (roles := by_mask(mask, channels)):
        return roles
    return named(FLAC[channels - 1] if channels <= len(FLAC) else None, channels)


def of_apple(tag: int, mask: int, labels: Sequence[int], channels: int) -> tuple[str, ...] | None:
    """Roles by Core Audio's layout in an AIFF or CAF file; None where it names none that we know."""
    if tag == APPLE_BITS:
        roles = by_mask(mask, channels)
    elif tag == APPLE_NAMES:
        roles = _padded([APPLE_LABELS.get(label, UNKNOWN) for label in labels], channels)
    else:
        roles = _padded(APPLE.get(tag >> 16, "").split(), channels)
    return None if UNKNOWN in roles else roles


def of_xiph(channels: int) -> tuple[str, ...]:
    """Roles in Vorbis and Opus."""
    return _padded(XIPH[channels - 1].split() if channels <= len(XIPH) else (), channels)


def of_sndfile(numbers: Sequence[int], channels: int) -> tuple[str, ...]:
    """Roles by libsndfile's numbers, where they name every channel."""
    names = SNDFILE_ORDER.split()
    known = [names[number] for number in numbers if 0 < number < len(names)]
    return tuple(known) if len(known) == channels else named(None, channels)
