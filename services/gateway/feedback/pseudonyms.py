"""Users as keyed hashes: the same user can be told apart, and nobody can be found without the key."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

_KEY_BYTES = 32
_HASH_BYTES = 16


class Pseudonyms:
    """Turns user keys into hashes. Deleting the key file makes what is stored anonymous for good."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> Pseudonyms:
        """Reads the key of a file, or makes one (readable by its owner alone) where there is none.

        Raises:
            OSError: It cannot be read or made.
            ValueError: It is too short to be a key.
        """
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:  # noqa: PTH123
                sink.write(secrets.token_bytes(_KEY_BYTES))
                sink.flush()
                os.fsync(sink.fileno())
        except FileExistsError:
            pass
        key = path.read_bytes()
        if len(key) < _KEY_BYTES:
            raise ValueError(f"{path} has {len(key)} bytes, a key has {_KEY_BYTES} or more")
        return cls(key)

    def of(self, user_key: str) -> str:
        """Returns the hash of a user key: hex HMAC-SHA256 (RFC 2104), cut to 128 bits; empty for an empty key."""
        if not user_key:
            return ""
        return hmac.new(self._key, user_key.encode(), hashlib.sha256).digest()[:_HASH_BYTES].hex()
