"""How many calls may be made twice: a share of all calls, so that retries never multiply an outage."""

from __future__ import annotations


class RetryBudget:
    """A bucket of tokens: every call adds a part of one, every retry takes a whole one. It starts full."""

    __slots__ = ("_capacity", "_share", "tokens")

    def __init__(self, share: float, capacity: float) -> None:
        """`share`: retries per call; `capacity`: retries at once. 0 for both: none ever."""
        self._share = share
        self._capacity = capacity
        self.tokens = capacity

    def called(self) -> None:
        """Counts a first try."""
        self.tokens = min(self.tokens + self._share, self._capacity)

    def take(self) -> bool:
        """Tells whether one call may be made again, and if so takes its token."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
