"""How an entry is written, in memory and in Redis alike.

Little-endian: magic, format version, dim, number of classes, CRC-32; then float32 embedding [dim], uint32 class indices
[classes], float32 probabilities [classes], float64 edges of the subject [4], all 0 where there is none. The checksum
covers the key too, so that a value found under another key, or a reply meant for another question, is not taken for
this one.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from services.embedder.cache.key import VectorKey
from services.embedder.cache.vector import CachedVector, TopClasses
from services.embedder.crop import Crop

_MAGIC = b"VEC"
_VERSION = 2
_HEADER = struct.Struct("<3sBII")
_CHECKSUM = struct.Struct("<I")
_SUBJECT = struct.Struct("<4d")
_NO_SUBJECT = (0.0, 0.0, 0.0, 0.0)
_START = _HEADER.size + _CHECKSUM.size
_NORM_TOLERANCE = 1e-3
_PROBABILITY_TOLERANCE = 1e-4


class InvalidEntryError(Exception):
    """Bytes, or a vector, that are not a good entry; `reason` is one of a few words, for metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def entry_bytes(key: VectorKey) -> int:
    """Returns the exact length of an entry under this key."""
    return _START + 4 * key.dim + 8 * key.classes + _SUBJECT.size


def encode(vector: CachedVector, key: VectorKey) -> bytes:
    """Writes an entry.

    Raises:
        InvalidEntryError: Its shape or classes are not what the key promises, it is not finite, its norm is not 1, or
            its subject lies outside the image.
    """
    top = vector.classes
    shapes = (vector.embedding.shape, *((top.indices.shape, top.probabilities.shape) if top else ()))
    if shapes != ((key.dim,), *(((key.classes,),) * 2 if key.labels else ())):
        raise InvalidEntryError("shape")
    _check(vector, key)
    body = np.asarray(vector.embedding, "<f4").tobytes()
    if top:
        body += np.asarray(top.indices, "<u4").tobytes() + np.asarray(top.probabilities, "<f4").tobytes()
    body += _SUBJECT.pack(*(vector.subject or _NO_SUBJECT))
    header = _HEADER.pack(_MAGIC, _VERSION, key.dim, key.classes)
    return header + _CHECKSUM.pack(_checksum(key, header, body)) + body


def check(raw: object, key: VectorKey) -> bytes:
    """Returns what may have come from anywhere, once it is known to be this key's entry.

    Raises:
        InvalidEntryError: It is not.
    """
    if not isinstance(raw, bytes) or len(raw) < _START:
        raise InvalidEntryError("length")
    magic, version, dim, classes = _HEADER.unpack_from(raw)
    if magic != _MAGIC:
        raise InvalidEntryError("format")
    if version != _VERSION:
        raise InvalidEntryError("version")
    if (dim, classes) != (key.dim, key.classes):
        raise InvalidEntryError("shape")
    if len(raw) != entry_bytes(key):
        raise InvalidEntryError("length")
    header, body = memoryview(raw)[: _HEADER.size], memoryview(raw)[_START:]
    if _CHECKSUM.unpack_from(raw, _HEADER.size)[0] != _checksum(key, header, body):
        raise InvalidEntryError("checksum")
    _check(view(raw, key), key)
    return raw


def view(raw: bytes, key: VectorKey) -> CachedVector:
    """Returns an entry that was checked; its arrays are read-only and share the bytes."""
    embedding: NDArray[np.float32] = np.frombuffer(raw, "<f4", key.dim, _START)
    edges = _SUBJECT.unpack_from(raw, len(raw) - _SUBJECT.size)
    subject = Crop(*edges) if any(edges) else None
    if not key.classes:
        return CachedVector(embedding, subject=subject)
    after = _START + 4 * key.dim
    return CachedVector(
        embedding,
        TopClasses(
            np.frombuffer(raw, "<u4", key.classes, after),
            np.frombuffer(raw, "<f4", key.classes, after + 4 * key.classes),
        ),
        subject,
    )


def _check(vector: CachedVector, key: VectorKey) -> None:
    norm = float(np.linalg.norm(vector.embedding.astype(np.float64)))
    if not np.isfinite(norm):
        raise InvalidEntryError("not_finite")
    if abs(norm - 1) > _NORM_TOLERANCE:
        raise InvalidEntryError("norm")
    if (top := vector.classes) is not None:
        total = float(top.probabilities.sum(dtype=np.float64))  # NaN where any of them is
        if top.indices.max() >= key.labels or top.probabilities.min() < 0 or not total <= 1 + _PROBABILITY_TOLERANCE:
            raise InvalidEntryError("classes")
    if (place := vector.subject) is not None:
        inside = 0 <= place.left < place.right <= 1 and 0 <= place.top < place.bottom <= 1  # false for any NaN
        if not inside:
            raise InvalidEntryError("subject")


def _checksum(key: VectorKey, header: bytes | memoryview, body: bytes | memoryview) -> int:
    return zlib.crc32(body, zlib.crc32(header, zlib.crc32(key.digest)))
