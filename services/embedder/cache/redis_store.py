"""Entries in the shared Redis, and whose turn it is to compute one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.embedder import metrics
from services.embedder.cache.codec import InvalidEntryError, check, entry_bytes
from services.embedder.cache.key import VectorKey
from services.embedder.cache.redis_link import Command, RedisLink, Reply
from services.embedder.priority import Priority

_PREFIX = b"vitrine:vector:"
# An image takes some 10 ms: looked for often at first, then less.
_PAUSES = (0.004, 0.006, 0.01, 0.016, 0.025)


@dataclass(frozen=True)
class Turn:
    """An entry, or the turn to compute it."""

    value: bytes | None = None
    """The checked entry; None: compute it."""
    lock: bytes | None = None
    """The lock that this replica holds while it computes; None: it computes without."""
    expires: float = 0.0
    """When Redis drops the lock at the latest, in the clock's time."""


class RedisStore:
    """Reads and writes entries. Nothing here raises for what Redis does; what cannot be had is a miss.

    Who finds no entry takes a lock (SET NX PX) of its class and computes; others of that class wait for the entry, for
    the lock to be given back or to expire, but never longer than a lock lives. The lock only saves work: two who
    compute the same vector do no harm.
    """

    def __init__(
        self,
        link: RedisLink,
        ttl: float,
        lock_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._link = link
        self._ttl_ms = round(ttl * 1000)
        self._lock_seconds = lock_seconds
        self._clock = clock
        self._sleep = sleep

    async def find_or_take_turn(self, key: VectorKey, priority: Priority, deadline: float | None = None) -> Turn:
        """Returns the entry, waiting for it where another replica is computing it; without one, compute it now."""
        replies = await self._link.ask(_read(key))
        if replies is None:
            return Turn()
        if (value := _checked(replies[0], key, report=True)) is not None:
            return Turn(value)
        return await self._take_turn(key, priority, deadline)

    async def _take_turn(self, key: VectorKey, priority: Priority, deadline: float | None) -> Turn:
        name = _name(key) + b":" + priority.encode()
        take: Command = (b"SET", name, b"1", b"NX", b"PX", round(self._lock_seconds * 1000))
        began = self._clock()
        until = began + self._lock_seconds if deadline is None else min(began + self._lock_seconds, deadline)
        pauses = iter(_PAUSES)
        while True:
            asked = self._clock()
            replies = await self._link.ask(take, _read(key))
            if replies is None:
                return Turn()
            taken, found = replies
            if (value := _checked(found, key)) is not None:
                return Turn(value)
            if taken is not None:
                return Turn(lock=name, expires=asked + self._lock_seconds)
            if (left := until - self._clock()) <= 0:
                return Turn()
            await self._sleep(min(next(pauses, _PAUSES[-1]), left))

    def give_back(self, turn: Turn) -> None:
        """Lets another replica compute at once. After a `put` there is no need: the entry is found first."""
        if turn.lock is not None and self._clock() < turn.expires:  # later it may be another's
            self._link.tell((b"DEL", turn.lock))

    def put(self, key: VectorKey, value: bytes) -> None:
        """Writes an entry when there is time."""
        self._link.tell((b"SET", _name(key), value, b"PX", self._ttl_ms))


def _name(key: VectorKey) -> bytes:
    return _PREFIX + key.digest.hex().encode()


def _read(key: VectorKey) -> Command:
    """One byte more than an entry has is enough to see that a value is too long, whatever its length."""
    return (b"GETRANGE", _name(key), 0, entry_bytes(key))


def _checked(found: Reply, key: VectorKey, *, report: bool = False) -> bytes | None:
    if found == b"":  # how GETRANGE says that there is none
        return None
    try:
        return check(found, key)
    except InvalidEntryError as error:
        if report:
            metrics.CACHE_INVALID.labels("redis", error.reason).inc()
        return None
