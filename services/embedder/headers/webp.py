"""WebP: RFC 9649, walked chunk by chunk to the end of its RIFF container."""

from __future__ import annotations

import re

from services.embedder.exif import orientation_of
from services.embedder.headers.info import MAX_SEGMENTS, ImageInfo
from services.embedder.limits import ImageLimits, damaged, unsupported

NAME = "webp"
MAGIC = re.compile(rb"RIFF.{4}WEBP", re.DOTALL)

_ANIMATION_FLAG = 0x02
_EXIF = b"Exif\0\0"


def parse(data: bytes, limits: ImageLimits) -> ImageInfo:
    """Reads dimensions, transparency, orientation and end of a WebP.

    Raises:
        InvalidArgumentError: Damaged, cut short, animated, or over a limit.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise damaged(NAME, f"cut short after {len(data)} bytes of {end}")
    canvas: tuple[int, int] | None = None
    picture: tuple[int, int] | None = None
    has_alpha = False
    orientation = 1
    position = 12
    for _ in range(MAX_SEGMENTS):
        if position >= end:
            break
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        content, position = position + 8, position + 8 + length + length % 2  # chunks are padded to even lengths
        if content + length > end:
            raise damaged(NAME, f"its {kind!r} chunk is cut short")
        head = data[content : content + min(length, 10)]
        match kind:
            case b"VP8X":
                canvas = _canvas(head, limits)
            case b"VP8 " if picture is None:
                picture = _lossy(head, limits)
            case b"VP8L" if picture is None:
                picture = _lossless(head, limits)
                has_alpha |= bool(head[4] & 0x10)
            case b"ALPH":
                has_alpha = True
            case b"EXIF":
                orientation = orientation_of(data[content : content + length].removeprefix(_EXIF))
            case b"ANIM" | b"ANMF":
                raise unsupported(NAME, "animated")
    else:
        raise damaged(NAME, f"more than {MAX_SEGMENTS} chunks")
    if picture is None:
        raise damaged(NAME, "it has no picture data")
    if canvas not in (None, picture):
        raise damaged(NAME, "its canvas and its picture differ in size")
    return ImageInfo(NAME, *picture, size=end, orientation=orientation, has_alpha=has_alpha)


def _canvas(head: bytes, limits: ImageLimits) -> tuple[int, int]:
    if len(head) < 10:
        raise damaged(NAME, "its VP8X chunk is cut short")
    if head[0] & _ANIMATION_FLAG:
        raise unsupported(NAME, "animated")
    width, height = 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    limits.check_dimensions(NAME, width, height)
    return width, height


def _lossy(head: bytes, limits: ImageLimits) -> tuple[int, int]:
    if len(head) < 10 or head[0] & 1 or head[3:6] != b"\x9d\x01\x2a":
        raise damaged(NAME, "its VP8 chunk does not begin with a key frame")
    width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    limits.check_dimensions(NAME, width, height)
    return width, height


def _lossless(head: bytes, limits: ImageLimits) -> tuple[int, int]:
    if len(head) < 5 or head[0] != 0x2F:
        raise damaged(NAME, "its VP8L chunk has no signature")
    bits = int.from_bytes(head[1:5], "little")
    width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    limits.check_dimensions(NAME, width, height)
    return width, height
