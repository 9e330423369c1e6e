"""JPEG: ITU-T T.81 annex B, walked marker by marker to the end of the image."""

from __future__ import annotations

import re

from services.embedder.exif import orientation_of
from services.embedder.headers.info import MAX_SEGMENTS, ImageInfo
from services.embedder.limits import ImageLimits, damaged, unsupported

NAME = "jpeg"
MAGIC = re.compile(rb"\xff\xd8\xff")

# The next marker. 0xff00 is a stuffed byte and 0xffd0-0xffd7 are restarts, both inside coded data; a run of 0xff is
# fill. One 0xff, not a run, keeps the search linear on a file full of them.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
# A search holds the GIL: in steps it never holds up the event loop for more than about 2 ms.
_SEARCH_BYTES = 2**17
_SOI, _EOI, _SOS, _APP1, _TEM = 0xD8, 0xD9, 0xDA, 0xE1, 0x01
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SUPPORTED_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; Huffman coded
_EXIF = b"Exif\0\0"

# Each scan of a progressive file is a pass over all coefficients; encoders write about ten.
_MAX_SCANS = 64


def parse(data: bytes, limits: ImageLimits) -> ImageInfo:
    """Reads frame, orientation and end of a JPEG.

    Raises:
        InvalidArgumentError: Damaged, cut short, over a limit, or a coding process that is not supported.
    """
    frame: tuple[int, int] | None = None
    orientation: int | None = None
    scans = 0
    position = 2
    for _ in range(MAX_SEGMENTS):
        found = _next_marker(data, position)
        if found is None:
            raise damaged(NAME, f"cut short after {len(data)} bytes, no end marker")
        marker, position = found[1][0], found.end()
        if marker == _TEM:
            continue
        if marker == _SOI:
            raise damaged(NAME, "a second image begins inside the first")
        if marker == _EOI:
            if frame is None or scans == 0:
                raise damaged(NAME, "it ends before any picture data")
            return ImageInfo(NAME, *frame, size=position, orientation=orientation or 1)
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            raise damaged(NAME, f"segment {marker:#04x} at byte {position} is cut short")
        if marker in _FRAMES:
            if frame is not None:
                raise damaged(NAME, "it has more than one frame")
            frame = _frame(marker, data[position + 2 : position + length], limits)
        elif marker == _SOS:
            scans += 1
            if frame is None:
                raise damaged(NAME, "picture data before its frame header")
            if scans > _MAX_SCANS:
                raise unsupported(NAME, f"more than {_MAX_SCANS} scans in a")
        elif marker == _APP1 and orientation is None and data.startswith(_EXIF, position + 2):
            orientation = orientation_of(data[position + 2 + len(_EXIF) : position + length])
        position += length
    raise damaged(NAME, f"more than {MAX_SEGMENTS} segments")


def _next_marker(data: bytes, position: int) -> re.Match[bytes] | None:
    for start in range(position, len(data), _SEARCH_BYTES):
        if found := _MARKER.search(data, start, start + _SEARCH_BYTES + 1):
            return found
    return None


def _frame(marker: int, payload: bytes, limits: ImageLimits) -> tuple[int, int]:
    if marker not in _SUPPORTED_FRAMES:
        raise unsupported(NAME, f"coding process SOF{marker - 0xC0} of")
    if len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
        raise damaged(NAME, "its frame header has the wrong length")
    height, width = int.from_bytes(payload[1:3], "big"), int.from_bytes(payload[3:5], "big")
    limits.check_dimensions(NAME, width, height)
    if payload[0] != 8:
        raise unsupported(NAME, f"{payload[0]} bits a sample in")
    if payload[5] not in (1, 3, 4):
        raise unsupported(NAME, f"{payload[5]} components in")
    return width, height
