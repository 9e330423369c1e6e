"""Bounds how much is held at once, in items and in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple


class _Waiter(NamedTuple):
    items: int
    size: int
    admitted: asyncio.Future[None]


class Gate:
    """Lets work in while it fits and makes the rest wait in order of arrival.

    Work larger than the whole gate is let in when the gate is empty, so that nothing waits for ever.
    """

    def __init__(self, max_items: int, max_bytes: int, on_change: Callable[[int, int], None] | None = None) -> None:
        """`on_change` is told the items and bytes held after every change."""
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.items = 0
        self.bytes = 0
        self._waiters: deque[_Waiter] = deque()
        self._on_change = on_change or (lambda items, size: None)

    def try_enter(self, items: int, size: int) -> bool:
        """Lets work in if it fits now and nobody waits before it."""
        if self._waiters or not self._fits(items, size):
            return False
        self._change(items, size)
        return True

    async def enter(self, items: int, size: int) -> None:
        """Waits until the work fits."""
        if self.try_enter(items, size):
            return
        waiter = _Waiter(items, size, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.cancelled():
                self._admit()  # it may have held back others that fit
            else:
                self.leave(items, size)  # let in and cancelled in the same step
            raise

    def leave(self, items: int, size: int) -> None:
        """Gives back what `enter` or `try_enter` took."""
        self._change(-items, -size)
        self._admit()

    def _admit(self) -> None:
        self._waiters = deque(waiter for waiter in self._waiters if not waiter.admitted.cancelled())
        while self._waiters and self._fits(self._waiters[0].items, self._waiters[0].size):
            waiter = self._waiters.popleft()
            self._change(waiter.items, waiter.size)
            waiter.admitted.set_result(None)

    def _fits(self, items: int, size: int) -> bool:
        return self.items == 0 or (self.items + items <= self.max_items and self.bytes + size <= self.max_bytes)

    def _change(self, items: int, size: int) -> None:
        self.items += items
        self.bytes += size
        self._on_change(self.items, self.bytes)
