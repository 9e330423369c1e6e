"""Bounds how much is held at once, in items and in bytes. One event loop only."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import NamedTuple

from services.runtime.fair_queue import FairQueue

# A named caller may hold up to this many times what is still free (see `Gate.try_enter`).
_SHARE_OF_FREE = 8


class _Waiter(NamedTuple):
    items: int
    size: int
    caller: str
    admitted: asyncio.Future[None]


class Gate:
    """Lets work in while it fits; makes the rest wait in order of arrival, callers taking turns.

    Work larger than the whole gate is let in when the gate is empty, so that nothing waits for ever.
    """

    def __init__(self, max_items: int, max_bytes: int | None = None) -> None:
        """`max_bytes` None: items only."""
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.items = 0
        self.bytes = 0
        self._held: Counter[str] = Counter()
        self._waiting: FairQueue[_Waiter] = FairQueue()

    def try_enter(self, items: int, size: int = 0, caller: str = "") -> bool:
        """Lets work in if it fits now, nobody waits before it, and its caller has not more than a fair share.

        A caller with a name may hold at most eight times what remains free: alone 8/9 of the gate, of two 8/17 each,
        and so on, so that there is room for one that comes new. One that holds nothing, and those without a name, are
        only held to what fits. Source: A. K. Choudhury and E. L. Hahne, "Dynamic queue length thresholds for
        shared-memory packet switches", IEEE/ACM Transactions on Networking 6 (1998).
        """
        if self._waiting or not self._fits(items, size) or not self._is_fair(items, caller):
            return False
        self._change(items, size, caller)
        return True

    async def enter(self, items: int, size: int = 0, caller: str = "") -> None:
        """Waits until the work fits."""
        if not self._waiting and self._fits(items, size):
            self._change(items, size, caller)
            return
        waiter = _Waiter(items, size, caller, asyncio.get_running_loop().create_future())
        self._waiting.push(waiter, caller)
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.cancelled():
                self._admit()  # it may have held back others that fit
            else:
                self.leave(items, size, caller)  # let in and cancelled in the same step
            raise

    def leave(self, items: int, size: int = 0, caller: str = "") -> None:
        """Gives back what `enter` or `try_enter` took."""
        self._change(-items, -size, caller)
        self._admit()

    def held_by(self, caller: str) -> int:
        """Returns the items that a caller holds."""
        return self._held.get(caller, 0)

    def _admit(self) -> None:
        while (waiter := self._waiting.first()) is not None:
            if not waiter.admitted.cancelled():
                if not self._fits(waiter.items, waiter.size):
                    return
                self._change(waiter.items, waiter.size, waiter.caller)
                waiter.admitted.set_result(None)
            self._waiting.pop()

    def _fits(self, items: int, size: int) -> bool:
        if self.items == 0:
            return True
        return self.items + items <= self.max_items and (self.max_bytes is None or self.bytes + size <= self.max_bytes)

    def _is_fair(self, items: int, caller: str) -> bool:
        held = self.held_by(caller)
        if not caller or not held:
            return True
        return held + items <= _SHARE_OF_FREE * (self.max_items - self.items - items)

    def _change(self, items: int, size: int, caller: str) -> None:
        self.items += items
        self.bytes += size
        self._held[caller] += items
        if not self._held[caller]:
            del self._held[caller]
