"""The recall canary: now and then a live search is answered exactly as well, and the two answers are compared.

What it sees stays in memory for that long and goes nowhere: only counts are kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

import structlog

from services.indexer import metrics
from services.indexer.blocks import Snapshot
from services.indexer.queries import Query
from services.indexer.search import search
from vitrine.v1 import indexer_pb2

_AT = 10
_BANDS = ((0.5, "50-100 %"), (0.2, "20-50 %"), (0.1, "10-20 %"), (0.05, "5-10 %"), (0.02, "2-5 %"), (0.01, "1-2 %"))
_RAREST = "0-1 %"
_UNFILTERED = "unfiltered"

log = structlog.get_logger()


class Canary:
    """Compares at most one search in `interval` seconds, in a thread of `threads`; 0: none."""

    def __init__(self, threads: Executor, interval: float, give_way: Callable[[], None] = lambda: None) -> None:
        """`give_way` is called every millisecond or two in that thread, and may take its time."""
        self._threads = threads
        self._interval = interval
        self._give_way = give_way
        self._not_before = 0.0
        self._running: asyncio.Task[None] | None = None

    def consider(
        self, snapshot: Snapshot, query: Query, answer: indexer_pb2.VectorQueryResult, *, metric: int, name: str
    ) -> None:
        """Takes an answer that was not exact, if one is due; `snapshot` is what was searched."""
        now = time.monotonic()
        busy = self._running is not None and not self._running.done()
        if not self._interval or busy or now < self._not_before or query.after is not None:
            return
        self._not_before = now + self._interval
        found = [(hit.key.product_id, hit.score) for hit in answer.hits[:_AT]]
        self._running = asyncio.create_task(self._compare(snapshot, query, found, metric, name))

    async def close(self) -> None:
        """Gives up what is under way."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _compare(
        self, snapshot: Snapshot, query: Query, found: Sequence[tuple[str, float]], metric: int, name: str
    ) -> None:
        work = partial(_compare, snapshot, query, found, metric, self._give_way)
        try:
            band, hits, wanted = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Exception as error:  # a defect here must not look like one of a search
            log.error("recall canary failed", collection=name, error=f"{type(error).__name__}: {error}")
            return
        metrics.CANARY_EXPECTED.labels(name, band).inc(wanted)
        metrics.CANARY_FOUND.labels(name, band).inc(hits)


def _compare(
    snapshot: Snapshot, query: Query, found: Sequence[tuple[str, float]], metric: int, give_way: Callable[[], None]
) -> tuple[str, int, int]:
    """Returns the band of selectivity, how many of the exact answer's products were found, and how many there are."""
    (exact,), _ = search(snapshot, [query], metric=metric, ef=1, exact=True, check=give_way)
    wanted = exact[:_AT]
    if not wanted:
        return _band(snapshot, query), 0, 0
    # Scores are reproducible, so a product that ties with the last one wanted is as right as that one.
    right = sum(score >= wanted[-1].score for _, score in found)
    return _band(snapshot, query), min(right, len(wanted)), len(wanted)


def _band(snapshot: Snapshot, query: Query) -> str:
    if query.condition is None:
        return _UNFILTERED
    points, _ = query.condition.count(snapshot)
    share = points / max(snapshot.points, 1)
    return next((name for least, name in _BANDS if share >= least), _RAREST)
