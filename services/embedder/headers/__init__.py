"""What a file says about its picture, read by our own code before any decoder sees a byte of it."""

from __future__ import annotations

import re

from services.embedder.headers import jpeg, png, webp
from services.embedder.headers.info import ImageInfo
from services.embedder.limits import FIELD, ImageLimits
from vitrine.errors import InvalidArgumentError

__all__ = ["FORMATS", "ImageInfo", "inspect"]

_PARSERS = {
    "jpeg": (jpeg.MAGIC, jpeg.parse),
    "png": (png.MAGIC, png.parse),
    "webp": (webp.MAGIC, webp.parse),
}
FORMATS = tuple(_PARSERS)

# Only to say what was sent instead; none of these is decoded.
_OTHERS = (
    (re.compile(rb"GIF8[79]a"), "GIF"),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), "BMP"),
    (re.compile(rb"II\*\0|MM\0\*"), "TIFF"),
    (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb".{4}ftyp(?:he[ivm][cfsx]|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "MP4 video"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "JPEG XL"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"%PDF-"), "PDF"),
    (re.compile(rb"PK\x03\x04"), "ZIP archive"),
    (re.compile(rb"\x1f\x8b"), "gzip"),
    (re.compile(rb"\0\0\x01\0"), "ICO"),
    (re.compile(rb"8BPS"), "PSD"),
    (re.compile(rb"RIFF.{4}(?!WEBP)", re.DOTALL), "RIFF that is not WebP"),
    (re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:svg|\?xml)"), "SVG or XML"),
    (re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html)", re.IGNORECASE), "HTML"),
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def inspect(data: bytes, limits: ImageLimits) -> ImageInfo:
    """Reads a file's headers from its first byte to its end marker.

    Raises:
        TooLargeError: More bytes than the limit.
        InvalidArgumentError: Empty, of no allowed format, an unsupported variant, cut short, or over a limit on
            its dimensions (which are checked as soon as they are known).
    """
    limits.check_bytes(len(data))
    for magic, parse in _PARSERS.values():
        if magic.match(data):
            return parse(data, limits)
    raise InvalidArgumentError(
        f"{FIELD}: found {_describe(data)}, allowed formats are {', '.join(FORMATS)}", field=FIELD
    )


def _describe(data: bytes) -> str:
    head = data[:512]
    for magic, name in _OTHERS:
        if magic.match(head):
            return name
    return "binary data of an unknown format" if _CONTROL.search(head) else "text"
