"""When to try again what failed."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed while things go well. After a failure it is open, and says how long to leave the thing alone.

    The first failure after a good while may be retried at once: a restart, a dropped connection, one slow answer. Each
    further one doubles the wait, up to `longest` seconds, and a short recovery does not reset that, so that something
    that fails on and off costs ever less.
    """

    def __init__(self, first: float = 1.0, longest: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes the first wait and the longest, in seconds; `longest` closed is a good while."""
        self._first = first
        self._longest = longest
        self._clock = clock
        self._failures = 0
        self._closed_at: float | None = None

    @property
    def closed(self) -> bool:
        """Whether the thing is in use; not so before it first succeeded."""
        return self._closed_at is not None

    def succeeded(self) -> None:
        """Closes it."""
        if self._closed_at is None:
            self._closed_at = self._clock()

    def failed(self) -> float:
        """Opens it, and returns the seconds to wait before the next try."""
        if self._closed_at is not None and self._clock() - self._closed_at >= self._longest:
            self._failures = 0
        self._closed_at = None
        self._failures += 1
        if self._failures == 1:
            return 0.0
        doublings = min(self._failures - 2, 32)
        return float(min(self._first * 2**doublings, self._longest))
