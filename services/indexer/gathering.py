"""Searches that wait at the same time are answered together: one turn of a thread, one walk, for several callers.

Handing a search to a thread and its answer back costs about as much as the search. What gathers while the threads
are busy shares that cost. Where the loop and the threads share a core or two, a turn also begins only when no more
come: who brings the next searches needs the core that the turn would take, and one a turn would stay the rule.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from services.indexer.answering import Part, answer_queries
from services.indexer.blocks import Snapshot
from services.indexer.queries import Query
from vitrine.errors import DeadlineError

# Queries that one thread answers together: enough to share the reading of the vectors, few enough for the scores of a
# whole block to stay in the processor's cache.
QUERIES_PER_TURN = 16
# A search comes in within a few rounds of the event loop: of the thread that waits for gRPC's events, and of the loop,
# by turns. Measured on one core with eight callers (docs/decisions/0021): 2 rounds found one, 4 two, and 8 all of them.
QUIET_ROUNDS = 8 if len(os.sched_getaffinity(0)) <= 2 else 0
# A round takes some microseconds, unless the loop has other work.
_QUIET_SECONDS = 0.0005


@dataclass(frozen=True, slots=True, eq=False)
class SearchJob:
    """Some queries of one request."""

    snapshot: Snapshot
    queries: Sequence[Query]
    """At most `QUERIES_PER_TURN`."""
    metric: int
    ef: int
    exact: bool
    with_attributes: bool
    deadline: float
    """`time.perf_counter()` after which nobody waits for the answer."""

    @property
    def sociable(self) -> bool:
        """Whether others may be answered with it: not where a query may take long, as with a filter."""
        return not self.exact and all(query.condition is None for query in self.queries)

    def fits(self, other: SearchJob) -> bool:
        """Whether the two can be answered together."""
        return (
            self.snapshot is other.snapshot
            and (self.metric, self.ef, self.with_attributes) == (other.metric, other.ef, other.with_attributes)
            and self.sociable
            and other.sociable
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    job: SearchJob
    answer: asyncio.Future[Part]
    arrived: float


class Gathering:
    """Answers search jobs in the threads of an executor; create it inside the event loop."""

    def __init__(self, threads: Executor, most: int, quiet_rounds: int = 0) -> None:
        """At most `most` threads search at the same time.

        A turn begins after so many rounds of the loop, or half a millisecond, in which no search came.
        """
        self._threads = threads
        self._most = most
        self._quiet_rounds = quiet_rounds
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._turns = 0
        """Turns that are running or wait for a thread."""
        self._starting = False

    async def answer(self, job: SearchJob) -> Part:
        """Answers the queries of a job.

        Raises:
            DeadlineError: The deadline passed.
        """
        waiting = _Waiting(job, self._loop.create_future(), time.perf_counter())
        with self._lock:
            self._waiting.append(waiting)
        if not self._starting:
            # Once the loop has gone round: what came in at the same time goes together.
            self._starting = True
            self._loop.call_soon(self._start)
        return await waiting.answer

    def _start(self, seen: int = 0, quiet: int = 0, since: float = 0.0) -> None:
        """Begins as many turns as there are threads and jobs, once no more of them come.

        The last of `seen` jobs came `quiet` rounds of the loop ago, at `since`.
        """
        waiting, now = len(self._waiting), time.perf_counter()
        seen, quiet, since = (waiting, 0, now) if waiting > seen else (seen, quiet + 1, since)
        more_may_come = quiet < self._quiet_rounds and now - since < _QUIET_SECONDS
        if more_may_come and waiting < QUERIES_PER_TURN and self._turns < self._most:
            os.sched_yield()  # to whoever brings them
            self._loop.call_soon(self._start, seen, quiet, since)
            return
        self._starting = False
        with self._lock:
            more = min(self._most - self._turns, len(self._waiting))
            self._turns += more
        for _ in range(more):
            self._threads.submit(self._turn)

    def _turn(self) -> None:
        """Answers what fits together; another turn follows where something is left, behind whatever else waits."""
        group = self._take()
        if group:
            outcomes = _answer(group)
            try:
                self._loop.call_soon_threadsafe(_settle, group, outcomes)
            except RuntimeError:  # the loop is closed, and everyone who waited is gone
                return
        with self._lock:
            again = bool(self._waiting)
            self._turns -= not again
        if again:
            try:
                self._threads.submit(self._turn)
            except RuntimeError:  # the service stops
                return

    def _take(self) -> list[_Waiting]:
        with self._lock:
            group: list[_Waiting] = []
            queries = 0
            # Threads that are free share what waits.
            most = min(QUERIES_PER_TURN, -(-sum(len(each.job.queries) for each in self._waiting) // self._most))
            while self._waiting:
                first = self._waiting[0]
                if not first.answer.cancelled():  # else its caller is gone
                    more = queries + len(first.job.queries)
                    if group and (more > most or not group[0].job.fits(first.job)):
                        break
                    group.append(first)
                    queries = more
                self._waiting.popleft()
            return group


def _answer(group: Sequence[_Waiting]) -> list[Part | Exception]:
    began = time.perf_counter()
    job = group[0].job
    late = DeadlineError("the deadline passed before the search began")
    on_time = [each for each in group if each.job.deadline > began]
    outcomes: dict[_Waiting, Part | Exception] = dict.fromkeys(group, late)
    if on_time:
        try:
            results, stages = answer_queries(
                job.snapshot,
                [query for each in on_time for query in each.job.queries],
                metric=job.metric,
                ef=job.ef,
                exact=job.exact,
                with_attributes=job.with_attributes,
                deadline=max(each.job.deadline for each in on_time),
            )
        except Exception as error:  # every caller hears of it; a defect is logged where calls are answered
            outcomes |= dict.fromkeys(on_time, error)
        else:
            start = 0
            for each in on_time:
                end = start + len(each.job.queries)
                outcomes[each] = Part(results[start:end], {"queue": began - each.arrived, **stages})
                start = end
    return [outcomes[each] for each in group]


def _settle(group: Sequence[_Waiting], outcomes: Sequence[Part | Exception]) -> None:
    for each, outcome in zip(group, outcomes, strict=True):
        if each.answer.done():
            continue
        if isinstance(outcome, Exception):
            each.answer.set_exception(outcome)
        else:
            each.answer.set_result(outcome)
