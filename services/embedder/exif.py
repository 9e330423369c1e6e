"""The one thing Vitrine reads from EXIF: which way up the picture is (CIPA DC-008, tag 0x0112)."""

from __future__ import annotations

import struct
from typing import Any

from numpy.typing import NDArray

_ORIENTATION = 0x0112
_SHORT = 3
_ENTRY_BYTES = 12


def orientation_of(tiff: bytes) -> int:
    """Returns the orientation, 1..8, in a TIFF block; 1 where it is absent or the block is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    if directory + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(directory + 2, directory + 2 + count * _ENTRY_BYTES, _ENTRY_BYTES):
        if entry + _ENTRY_BYTES > len(tiff):
            return 1
        tag, kind, length, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == _ORIENTATION:
            return value if kind == _SHORT and length == 1 and 1 <= value <= 8 else 1
    return 1


def swaps_sides(orientation: int) -> bool:
    """Tells whether the upright picture is as wide as the stored one is high."""
    return orientation >= 5


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Returns a view of stored pixels [h, w] or [h, w, c] as they are meant to be seen."""
    if swaps_sides(orientation):
        pixels = pixels.swapaxes(0, 1)
    match orientation:
        case 2 | 6:
            return pixels[:, ::-1]
        case 3 | 7:
            return pixels[::-1, ::-1]
        case 4 | 8:
            return pixels[::-1]
        case _:
            return pixels
