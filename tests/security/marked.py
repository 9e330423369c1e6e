"""A query photo that would be recognised anywhere, and the ways in which its parts could be written down."""

import base64
import io

import numpy as np
from PIL import Image

WORDS = "Marked-Owner-7Q4Z1"
LATITUDE = (48, 51, 29.604)
_GPS, _EXIF = 0x8825, 0x8769


def photo(seed=0, side=1_200):
    """Noise, so that it is large and every window of its bytes is its own; with an owner and a place in its EXIF."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010E] = exif[0x013B] = f"{WORDS} description"
    exif[0x9C9B] = f"{WORDS} title".encode("utf-16le")
    exif.get_ifd(_EXIF)[0x9286] = b"ASCII\x00\x00\x00" + f"{WORDS} comment".encode()
    gps = exif.get_ifd(_GPS)
    gps[1], gps[2], gps[3], gps[4] = "N", LATITUDE, "E", (2, 17, 40.238)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def traces_of_text(text):
    """The ways in which words could be written."""
    raw = text.encode()
    return {raw, text.encode("utf-16le"), raw.hex().encode(), base64.b64encode(raw)[:-4], _escaped(raw)}


def traces_of_bytes(content, window=24):
    """The ways in which pieces of a photo could be written; one window from each part of it."""
    found = set()
    for start in np.linspace(0, len(content) - window, 24).astype(int):
        piece = content[start : start + window]
        found |= {piece, piece.hex().encode(), piece.hex().upper().encode(), _escaped(piece)}
        # Encoded from the photo's start, so that pieces fall on the boundaries that an encoder would use.
        aligned = start - start % 3
        found.add(base64.b64encode(content[aligned : aligned + window]))
    return found


def numbers_of_vector(values):
    """Its larger elements as they would be printed; one alone may be a coincidence."""
    return {repr(abs(float(value)))[:8].encode() for value in sorted(values, key=abs)[-8:]}


def _escaped(raw):
    return repr(raw)[2:-1].encode()
