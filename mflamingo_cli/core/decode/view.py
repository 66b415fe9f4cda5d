"""Some bytes of a file as if they were all of it: what libsndfile reads of a file that is more, or other, than its header says."""

from __future__ import annotations

import bisect
import os
from typing import IO

from mflamingo_cli.core.decode.base import Recording

STRETCH = 64  # more than the ratio of the highest bit rate of MPEG audio to the lowest, 320 to 8 kbit/s
END_BYTES = 128  # an ID3v1 tag is looked for at the claimed end


class View:
    """A part of an open file, for reading.

    An uncounted MPEG stream claims to be far longer than it is: libsndfile stops at the length it guesses from the first frame, which then
    lies behind the end.
    """

    def __init__(self, raw: IO[bytes], part: Recording) -> None:
        self._raw, self._patches, self._at = raw, sorted(part.patches), 0
        self._places = [place for place, _ in self._patches]
        self._ranges = part.ranges or ((0, os.fstat(raw.fileno()).st_size),)
        self._starts, size = [], 0
        for begin, end in self._ranges:
            self._starts.append(size)
            size += end - begin
        self.size = size
        self._claimed = size * STRETCH if part.uncounted else size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the part."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._claimed}[whence])
        return self._at

    def tell(self) -> int:
        """The place in the part."""
        return self._at

    def read(self, size: int) -> bytes:
        """Read some bytes, fewer only at the end; what the disk does not give ends it."""
        if self._at >= self.size:
            asked = max(0, min(size, self._claimed - self._at))
            data = bytes(asked) if self._at >= self._claimed - END_BYTES else b""
        else:
            data = self._patched(self._stored(size))
        self._at += len(data)
        return data

    def _stored(self, size: int) -> bytes:
        """What the file holds from here on."""
        found, at = [], self._at
        while size > 0 and at < self.size:
            index = bisect.bisect_right(self._starts, at) - 1
            begin, end = self._ranges[index]
            place = begin + at - self._starts[index]
            try:
                self._raw.seek(place)
                data = self._raw.read(min(size, end - place))
            except OSError:  # an exception would only be printed in libsndfile's callback
                data = b""
            if not data:
                break
            found.append(data)
            at, size = at + len(data), size - len(data)
        return b"".join(found)

    def _patched(self, data: bytes) -> bytes:
        """Put the patches over what was read from here."""
        first = max(0, bisect.bisect_right(self._places, self._at) - 1)
        for place, patch in self._patches[first : bisect.bisect_left(self._places, self._at + len(data))]:
            begin, end = max(place, self._at), min(place + len(patch), self._at + len(data))
            if begin < end:
                data = data[: begin - self._at] + patch[begin - place : end - place] + data[end - self._at :]
        return data
