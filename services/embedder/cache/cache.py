"""The cache as the rest of the embedder sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Self

from services.embedder import metrics
from services.embedder.cache.breaker import Breaker
from services.embedder.cache.codec import InvalidEntryError, encode, view
from services.embedder.cache.key import VectorKey
from services.embedder.cache.lru import ByteLru
from services.embedder.cache.redis_address import RedisAddress
from services.embedder.cache.redis_link import RedisLink
from services.embedder.cache.redis_store import RedisStore
from services.embedder.cache.single_flight import SingleFlight
from services.embedder.cache.vector import CachedVector
from services.embedder.priority import Priority
from services.embedder.settings import EmbedderSettings

Compute = Callable[[], Awaitable[CachedVector]]


class Source(StrEnum):
    """Where a vector came from."""

    MEMORY = "hit_memory"
    REDIS = "hit_redis"
    JOINED = "joined"
    """From a computation that another caller in this process had begun."""
    COMPUTED = "miss"


class VectorCache:
    """Vectors of images seen before, each computed once however many ask for it. For one event loop."""

    def __init__(
        self,
        memory: ByteLru | None,
        link: RedisLink | None = None,
        store: RedisStore | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._link = link
        self._store = store
        self._flights: SingleFlight[tuple[CachedVector, Source]] = SingleFlight(clock)

    @classmethod
    def from_settings(
        cls,
        settings: EmbedderSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Self:
        """Makes what the settings ask for; call `start` before it is used. Tests bring their own clock and sleep."""
        memory = link = store = None
        if settings.cache_memory_bytes:
            memory = ByteLru(settings.cache_memory_bytes, settings.cache_ttl_seconds, clock)
        if settings.cache_redis_url.get_secret_value():
            address = RedisAddress(settings.cache_redis_url)
            breaker = Breaker(clock=clock)
            link = RedisLink(address, settings.cache_redis_timeout_seconds, breaker=breaker, sleep=sleep)
            store = RedisStore(
                link, settings.cache_ttl_seconds, settings.cache_redis_lock_seconds, clock=clock, sleep=sleep
            )
        return cls(memory, link, store, clock=clock)

    @property
    def enabled(self) -> bool:
        """Whether there is anything but computing: where not, no key is needed."""
        return self._memory is not None or self._store is not None

    async def start(self) -> None:
        """Connects to Redis; one that cannot be reached is logged, and tried again in the background."""
        if self._link is not None:
            await self._link.start()

    async def close(self) -> None:
        """Ends the connection; entries that are not written yet are lost."""
        if self._link is not None:
            await self._link.close()

    async def get_or_compute(
        self, key: VectorKey, priority: Priority, compute: Compute, deadline: float | None = None
    ) -> tuple[CachedVector, Source]:
        """Returns an image's vector, computing it where it is not there and nobody is at it already.

        `compute` runs inside this call, if it runs: cancelling the call cancels it. See `SingleFlight` for what happens
        to others who wait. `deadline`, in the clock's time, bounds all waiting for others.

        Raises:
            DeadlineError: The deadline passed while another caller computed.
            Exception: Whatever `compute` raised, here or in the caller that computed; errors are not kept.
        """
        if not self.enabled:
            return await compute(), Source.COMPUTED
        if self._memory is not None and (value := self._memory.get(key.digest)) is not None:
            metrics.CACHE_LOOKUPS.labels(Source.MEMORY).inc()
            return view(value, key), Source.MEMORY

        async def lead() -> tuple[CachedVector, Source]:
            return await self._lead(key, priority, compute, deadline)

        (vector, source), joined = await self._flights.run(key.digest, priority, lead, deadline)
        if joined:
            source = Source.JOINED
            metrics.CACHE_LOOKUPS.labels(source).inc()
        return vector, source

    async def _lead(
        self, key: VectorKey, priority: Priority, compute: Compute, deadline: float | None
    ) -> tuple[CachedVector, Source]:
        if self._store is None:
            return await self._compute(key, compute)
        turn = await self._store.find_or_take_turn(key, priority, deadline)
        if turn.value is None:
            try:
                return await self._compute(key, compute)
            except BaseException:
                self._store.give_back(turn)
                raise
        metrics.CACHE_LOOKUPS.labels(Source.REDIS).inc()
        self._keep(key, turn.value)
        return view(turn.value, key), Source.REDIS

    async def _compute(self, key: VectorKey, compute: Compute) -> tuple[CachedVector, Source]:
        metrics.CACHE_LOOKUPS.labels(Source.COMPUTED).inc()
        vector = await compute()
        try:
            value = encode(vector, key)
        except InvalidEntryError as error:  # the model's affair; it is answered, and not kept
            metrics.CACHE_INVALID.labels("model", error.reason).inc()
            return vector, Source.COMPUTED
        self._keep(key, value)
        if self._store is not None:
            self._store.put(key, value)
        return view(value, key), Source.COMPUTED

    def _keep(self, key: VectorKey, value: bytes) -> None:
        if self._memory is not None:
            metrics.CACHE_EVICTIONS.inc(self._memory.put(key.digest, value))
            metrics.CACHE_ENTRIES.set(len(self._memory))
            metrics.CACHE_BYTES.set(self._memory.bytes)
