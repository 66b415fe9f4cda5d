"""Recognising a container by its first bytes."""

from __future__ import annotations

# offset, bytes there, ffmpeg's demuxer. Those that name other files (hls, concat, dash, image2, …) are left out on purpose.
CONTAINERS = [
    (4, b"ftyp", "mov"),  # m4a, mp4, 3gp
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),  # mkv, mka, webm
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),  # wma, wmv
    (8, b"AVI ", "avi"),
    (0, b"FLV\x01", "flv"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
    (0, b".RMF", "rm"),
    (0, b"\x06\x0e\x2b\x34", "mxf"),
    (0, b"wvpk", "wv"),
    (0, b"MAC ", "ape"),
    (0, b"TTA1", "tta"),
    (0, b"tBaK", "tak"),
    (0, b"MPCK", "mpc8"),
    (0, b"MP+", "mpc"),
    (0, b"nut/multimedia container\0", "nut"),
    (0, b"ajkg", "shn"),
    (0, b"ea3\3", "oma"),
    (0, b"EA3\1", "oma"),
    (0, b"TWIN97012000", "vqf"),
    (4, b"\xf8\x72\x6f\xba", "truehd"),
    (4, b"\xf8\x72\x6f\xbb", "mlp"),
    (8, b"XWMA", "xwma"),
    (8, b"QLCM", "qcp"),
    (0, b"DSD ", "dsf"),
    (0, b"FRM8", "iff"),  # DSDIFF
    (0, b"#!AMR", "amr"),
    (0, b"\x7f\xfe\x80\x01", "dts"),
    (0, b"Creative Voice File\x1a", "voc"),
    (0, b"2BIT", "avr"),
    (0, b"NIST_1A", "nistsphere"),
    (0, b" paf", "epaf"),
    (0, b"fap ", "epaf"),
    (0, b"PVF1\n", "pvf"),
    (0, b"\xf0\x7e\0\1", "sds"),
    *[(0, bytes((0x64, 0xA3, writer, 0)), "ircam") for writer in range(1, 5)],
    *[(0, bytes((0, writer, 0xA3, 0x64)), "ircam") for writer in range(1, 5)],
    (0, b".snd", "au"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"),
    (8, b"WAVE", "wav"),  # codings in known containers that libsndfile lacks
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (0, b"caff", "caf"),
    (8, b"8SVX", "iff"),
    (8, b"16SV", "iff"),
    (0, b"FORM", "aiff"),
]


def container(head: bytes) -> str | None:
    """Choose ffmpeg's demuxer by a file's first bytes (after any ID3 tag)."""
    for offset, magic, demuxer in CONTAINERS:
        if head.startswith(magic, offset):
            return demuxer
    if any({head[first + at : first + at + 1] for at in (0, step, 2 * step)} == {b"\x47"} for first, step in ((0, 188), (4, 192))):
        return "mpegts"  # of 192 bytes on Blu-ray discs, with a time in front
    if len(head) > 2 and head[0] == 0x56 and head[1] & 0xE0 == 0xE0:  # AudioSyncStream (ISO 14496-3, 1.7.2)
        length = 3 + ((head[1] & 0x1F) << 8 | head[2])
        behind = head[length : length + 2]
        return "loas" if behind[:1] == b"\x56" and behind[1:] >= b"\xe0" else None
    if head[:2] == b"\x0b\x77":
        return "eac3" if len(head) > 5 and head[5] >> 3 > 10 else "ac3"  # bsid (ETSI TS 102 366, E.2.1)
    if len(head) > 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # ADTS, layer 0 (ISO 14496-3, 1.A.3.2)
        length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        return "aac" if length > 7 and head[length : length + 2] in (head[:2], b"") else None
    return None
