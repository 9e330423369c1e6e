"""Which of two writes to a key wins: the version rules of `indexer.proto`, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable


def upsert_wins(version: int, stored: int | None, tombstone: int | None) -> bool:
    """Tells whether an upsert takes effect.

    Args:
        version: That of the upsert.
        stored: Version of the point that is stored under the key; None: no point is.
        tombstone: Version of the newest delete of the image or its whole product; None: never deleted.
    """
    if tombstone is not None and version <= tombstone:
        return False
    return stored is None or version >= stored


def delete_wins(version: int, stored: int) -> bool:
    """Tells whether a delete removes a point stored with version `stored`."""
    return version >= stored


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class ArrivalClock:
    """Versions, in milliseconds, for writes that bring none.

    They never fall, and an upsert that arrives after a delete gets a higher one, also within a millisecond: otherwise
    the tombstone would swallow it.
    """

    def __init__(self, now: Callable[[], int] = _now_ms) -> None:
        self._now = now
        self._last = 0
        self._last_delete = 0

    def for_upsert(self) -> int:
        """Returns the version of an upsert arriving now."""
        self._last = max(self._now(), self._last, self._last_delete + 1)
        return self._last

    def for_delete(self) -> int:
        """Returns the version of a delete arriving now."""
        self._last = self._last_delete = max(self._now(), self._last)
        return self._last
