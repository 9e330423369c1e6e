"""Under which key an image's vector is found."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from services.embedder.crop import Crop
from vitrine.limits import MAX_TAGS

# Hashed into every key. Raise it when decoding, resizing, finding subjects or what an entry holds change, so that what
# came by another path is not found, and replicas of two versions do not overwrite each other's entries.
_GENERATION = b"vitrine vector 2\n"
_CROP = struct.Struct("<4d")


@dataclass(frozen=True, slots=True)
class VectorKey:
    """One image, crop and model."""

    digest: bytes
    """32 bytes."""
    dim: int
    """Elements of the embedding found there."""
    labels: int
    """Classes that the model tells apart; 0: it has no classifier."""

    @property
    def classes(self) -> int:
        """Top classes found there."""
        return min(self.labels, MAX_TAGS)


class VectorSpace:
    """Makes the keys for one model."""

    def __init__(self, fingerprint: str, dim: int, labels: int = 0) -> None:
        """Takes the model's fingerprint, the length of its vectors and how many classes it tells apart (0: none).

        Copies of a model in several precisions that are served under one fingerprint share their vectors.
        """
        self._prefix = hashlib.sha256(_GENERATION + fingerprint.encode())
        self._dim = dim
        self._labels = labels

    def key(self, content_hash: bytes, crop: Crop) -> VectorKey:
        """Returns the key of an image by its sha256 (32 bytes) and the part of it that is embedded."""
        digest = self._prefix.copy()
        digest.update(content_hash)
        digest.update(_CROP.pack(*(edge + 0.0 for edge in crop)))  # -0.0 + 0.0 is 0.0
        return VectorKey(digest.digest(), self._dim, self._labels)
