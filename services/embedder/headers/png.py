"""PNG: W3C Portable Network Graphics, third edition, walked chunk by chunk to IEND."""

from __future__ import annotations

import re

from services.embedder.exif import orientation_of
from services.embedder.headers.info import MAX_SEGMENTS, ImageInfo
from services.embedder.limits import ImageLimits, damaged, unsupported

NAME = "png"
MAGIC = re.compile(rb"\x89PNG\r\n\x1a\n")

_GREY = 0
_DEPTHS = {_GREY: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_WITH_ALPHA = {4, 6}
_IHDR_END = 33


def parse(data: bytes, limits: ImageLimits) -> ImageInfo:
    """Reads dimensions, transparency, orientation and end of a PNG.

    Raises:
        InvalidArgumentError: Damaged, cut short, animated, or over a limit.
    """
    if len(data) < _IHDR_END or data[8:16] != b"\0\0\0\x0dIHDR":
        raise damaged(NAME, "no complete IHDR chunk at its start")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    limits.check_dimensions(NAME, width, height)
    depth, colour = data[24], data[25]
    if depth not in _DEPTHS.get(colour, ()):
        raise damaged(NAME, f"colour type {colour} with {depth} bits is not defined")

    transparency: bytes | None = None
    orientation = 1
    has_data = False
    position = _IHDR_END
    for _ in range(MAX_SEGMENTS):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        content, position = position + 8, position + 12 + length
        if position > len(data):
            raise damaged(NAME, f"cut short after {len(data)} bytes, no IEND chunk")
        match kind:
            case b"IEND":
                if not has_data:
                    raise damaged(NAME, "it ends before any picture data")
                return ImageInfo(
                    NAME,
                    width,
                    height,
                    size=position,
                    orientation=orientation,
                    has_alpha=colour in _WITH_ALPHA or transparency is not None,
                    transparent_grey=_transparent_grey(transparency, depth) if colour == _GREY else None,
                )
            case b"IDAT":
                has_data = True
            case b"tRNS":
                transparency = data[content : content + length]
            case b"eXIf":
                orientation = orientation_of(data[content : content + length])
            case b"acTL":
                raise unsupported(NAME, "animated")
    raise damaged(NAME, f"more than {MAX_SEGMENTS} chunks")


def _transparent_grey(transparency: bytes | None, depth: int) -> int | None:
    """Returns the transparent grey as the decoder scales it: 16 bits as they are, fewer stretched to 8."""
    if transparency is None or len(transparency) != 2:
        return None
    value = int.from_bytes(transparency, "big")
    return value if depth == 16 else value * 255 // (2**depth - 1)
