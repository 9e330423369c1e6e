"""A queue in which callers take turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Round robin over callers, first in, first out for each: one with a thousand items delays the others by one.

    Source: J. Nagle, "On packet switches with infinite storage" (RFC 970, 1985), with items for packets. Not
    thread-safe.
    """

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Item]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, item: Item, caller: str = "") -> None:
        """Adds an item at the end of its caller's queue."""
        self._queues.setdefault(caller, deque()).append(item)
        self._length += 1

    def first(self) -> Item | None:
        """Returns what `pop` would take; None: there is none."""
        for queue in self._queues.values():
            return queue[0]
        return None

    def pop(self) -> Item | None:
        """Takes the first item of the caller whose turn it is; None: there is none."""
        if not self._queues:
            return None
        caller, queue = self._queues.popitem(last=False)
        item = queue.popleft()
        if queue:
            self._queues[caller] = queue
        self._length -= 1
        return item
