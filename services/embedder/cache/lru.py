"""Entries in memory, bounded by the bytes they really take."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

# CPython, 64 bits, measured by a test: key, place in the ordered dictionary, tuple, expiry time, allocator's rounding.
OVERHEAD_BYTES = 420


class ByteLru:
    """Keeps the entries that were used last. Not thread-safe."""

    def __init__(self, max_bytes: int, ttl: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Keeps at most `max_bytes`, overhead included, and serves no entry longer than `ttl` seconds."""
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self.bytes = 0
        """What the entries take."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> bytes | None:
        """Returns an entry, which then is the last to go; None: not there, or too old."""
        found = self._entries.get(key)
        if found is None:
            return None
        value, expires = found
        if self._clock() >= expires:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: bytes, value: bytes) -> int:
        """Adds or replaces an entry, and returns how many live ones had to go for it; one too large is not kept."""
        if key in self._entries:
            self._remove(key)
        size = len(value) + OVERHEAD_BYTES
        if size > self._max_bytes:
            return 0
        now = self._clock()
        evicted = 0
        while self._entries:
            oldest, (_, expires) = next(iter(self._entries.items()))
            live = now < expires
            if live and self.bytes + size <= self._max_bytes:
                break
            self._remove(oldest)
            evicted += live
        self._entries[key] = (value, now + self._ttl)
        self.bytes += size
        return evicted

    def _remove(self, key: bytes) -> None:
        value, _ = self._entries.pop(key)
        self.bytes -= len(value) + OVERHEAD_BYTES
