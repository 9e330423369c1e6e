"""The result of reading a header, and the walk every format's parser is bounded by."""

from __future__ import annotations

from dataclasses import dataclass

# Real files have tens of segments; each costs a step of interpreted code, so a hostile file must not have millions.
MAX_SEGMENTS = 16_384


@dataclass(frozen=True)
class ImageInfo:
    """What the decoder needs to know beforehand."""

    format: str
    width: int
    """Stored pixels, before orientation."""
    height: int
    size: int
    """Bytes up to the end marker; what follows is not part of the picture."""
    orientation: int = 1
    """EXIF orientation, 1..8."""
    has_alpha: bool = False
    transparent_grey: int | None = None
    """The one grey value that is transparent (PNG tRNS), on the scale of the decoded depth."""
