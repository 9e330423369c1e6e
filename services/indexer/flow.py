"""Bounded work in flight, for code on the event loop."""

from __future__ import annotations

import asyncio
from collections import deque


class Budget:
    """At most `limit` units in flight; those who want more wait their turn. One event loop only."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, units: int) -> None:
        """Waits for room for `units`; more than the limit waits until nothing else is in flight, then goes alone."""
        if not self._waiting and self._fits(units):
            self._used += units
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((units, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # granted and cancelled at once
                self.release(units)
            raise

    def release(self, units: int) -> None:
        """Gives back what `acquire` granted."""
        self._used -= units
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._used += wanted
                turn.set_result(None)

    def _fits(self, units: int) -> bool:
        return self._used == 0 or self._used + units <= self._limit
