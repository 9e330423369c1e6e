"""Smaller copies of product pictures: a few widths, made by Pillow in threads, kept while there is room."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import NamedTuple

from PIL import Image, ImageOps

WIDTHS = (96, 160, 320, 640, 1280)
_MAX_PIXELS = 50_000_000
_QUALITY = 82
_FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


class Picture(NamedTuple):
    """A file's content and what it is."""

    data: bytes
    media_type: str


class NoPictureError(Exception):
    """The file is not an image of an allowed format, or too large a one."""


def image_type(data: bytes) -> str | None:
    """Returns the media type of a file by its first bytes; None: it is no image of an allowed format."""
    if data.startswith(b"\xff\xd8\xff"):
        return _FORMATS["JPEG"]
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _FORMATS["PNG"]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _FORMATS["WEBP"]
    return None


def next_width(wanted: int) -> int:
    """Returns the width that is made for a wanted one: the next of a few, so that not every pixel is a new file."""
    return next((width for width in WIDTHS if width >= wanted), WIDTHS[-1])


def shrink(picture: Picture, width: int) -> Picture:
    """Returns an upright copy, `width` pixels across, without metadata, transparency on white.

    Returns the picture itself where it is not wider. Blocks; for threads.

    Raises:
        NoPictureError: It is damaged or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(picture.data), formats=tuple(_FORMATS)) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise NoPictureError(f"{image.width} x {image.height} pixels")
            image.draft("RGB", (width, width * 4))
            upright = ImageOps.exif_transpose(image)
            if upright.width <= width:
                return picture
            height = max(round(upright.height * width / upright.width), 1)
            smaller = _on_white(upright).resize((width, height), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            smaller.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise NoPictureError(str(error)) from None
    return Picture(buffer.getvalue(), _FORMATS["JPEG"])


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


class ThumbnailCache:
    """The copies used last, within a bound on their bytes. Safe to share between threads."""

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._max_bytes = max_bytes
        self._bytes = 0
        self._pictures: OrderedDict[str, Picture] = OrderedDict()

    def get(self, key: str) -> Picture | None:
        """Returns a copy that is kept, and keeps it longer."""
        with self._lock:
            if (picture := self._pictures.get(key)) is not None:
                self._pictures.move_to_end(key)
            return picture

    def put(self, key: str, picture: Picture) -> None:
        """Keeps a copy; those unused longest make room."""
        with self._lock:
            if key in self._pictures or len(picture.data) > self._max_bytes:
                return
            self._pictures[key] = picture
            self._bytes += len(picture.data)
            while self._bytes > self._max_bytes:
                _, oldest = self._pictures.popitem(last=False)
                self._bytes -= len(oldest.data)
