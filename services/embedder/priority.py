"""The two classes of work, and a queue in which one never waits behind the other."""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeVar

from services.runtime.fair_queue import FairQueue
from vitrine.v1 import embedder_pb2

Item = TypeVar("Item")


class Priority(StrEnum):
    """Which class an image waits in."""

    INTERACTIVE = "interactive"
    BULK = "bulk"

    @classmethod
    def from_proto(cls, value: int, default: Priority) -> Priority:
        """Returns the class a request asks for; the default for an unspecified or unknown one."""
        return _BY_NUMBER.get(value, default)


_BY_NUMBER: dict[int, Priority] = {
    embedder_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    embedder_pb2.PRIORITY_BULK: Priority.BULK,
}


class TwoClassQueue(Generic[Item]):
    """All interactive items before any bulk item; within a class callers take turns. Not thread-safe."""

    def __init__(self) -> None:
        self._queues: dict[Priority, FairQueue[Item]] = {priority: FairQueue() for priority in Priority}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def push(self, priority: Priority, item: Item, caller: str = "") -> None:
        """Adds an item at the end of its class and caller."""
        self._queues[priority].push(item, caller)

    def pop(self, priority: Priority | None = None) -> Item | None:
        """Takes the next item of a class, or of both where none is named; None: there is none."""
        for each in (priority,) if priority else Priority:
            if self._queues[each]:
                return self._queues[each].pop()
        return None
