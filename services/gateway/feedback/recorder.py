"""Writes feedback in a thread of its own: answers without anyone waiting, events durable before they are acked.

Answers go to disk together, within a quarter of a second: a commit for each would take more from the searches, with
which this thread shares the interpreter, than anything else in the gateway. What shoppers do is written at once, with
every answer before it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog

from services.gateway import metrics
from services.gateway.feedback.pseudonyms import Pseudonyms
from services.gateway.feedback.store import Event, FeedbackStore, Shown
from vitrine.errors import InvalidArgumentError, OverloadedError, UnavailableError, VitrineError
from vitrine.keys import check_id
from vitrine.search.observing import Answered
from vitrine.v1 import search_pb2

log = structlog.get_logger()

MAX_QUERY_ID_BYTES = 64
_BATCH = 512
_EXPIRE_SECONDS = 600.0
_RETRY_SECONDS = 0.5
_LINGER_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class _Waiting:
    item: Shown | Event
    answer: asyncio.Future[None] | None


class FeedbackRecorder:
    """At most `queue` items wait for the disk; create it inside the event loop.

    Items are written in their order, so that feedback finds the answer it belongs to.
    """

    def __init__(self, store: FeedbackStore, pseudonyms: Pseudonyms, queue: int) -> None:
        self._store = store
        self._pseudonyms = pseudonyms
        self._most = queue
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._hurried = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)
        self._thread.start()

    def shown(self, answered: Answered) -> None:
        """Takes an answer; one that finds the queue full is not kept, and counted."""
        shown = Shown(answered, self._pseudonyms.of(answered.user_key), _now_ms())
        if not self._put(_Waiting(shown, None)):
            metrics.FEEDBACK_DROPPED.labels("queue_full").inc()

    async def record(self, request: search_pb2.RecordFeedbackRequest) -> None:
        """Keeps what a shopper did; on disk when it returns.

        Raises:
            InvalidArgumentError: A field is missing or over its limit; names it.
            NotFoundError: The query is unknown, or has expired.
            OverloadedError: Too much waits for the disk.
            UnavailableError: The disk refuses, or the service stops.
        """
        event = _check(request)
        answer: asyncio.Future[None] = self._loop.create_future()
        if not self._put(_Waiting(event, answer)):
            metrics.FEEDBACK_DROPPED.labels("queue_full").inc()
            raise OverloadedError(f"feedback_queue: {self._most} records wait for the disk", retry_after=_RETRY_SECONDS)
        await answer
        metrics.FEEDBACK.labels(search_pb2.FeedbackAction.Name(request.action)).inc()

    async def pages(self, request: search_pb2.ExportFeedbackRequest) -> AsyncIterator[list[search_pb2.QueryRecord]]:
        """Yields what is kept, oldest first, in pages."""
        pages = self._store.pages(request.collection, request.since_ms)
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            yield page

    async def close(self) -> None:
        """Writes what waits, and closes the database."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)
        self._store.close()

    def _put(self, waiting: _Waiting) -> bool:
        with self._changed:
            if self._closed or len(self._waiting) >= self._most:
                return False
            self._waiting.append(waiting)
            count = len(self._waiting)
            if waiting.answer is not None or count >= min(_BATCH, self._most / 2):
                self._hurried = True
            if self._hurried or count == 1:
                self._changed.notify()
            return True

    def _run(self) -> None:
        expire_at = time.monotonic()
        while True:
            if time.monotonic() >= expire_at:
                expire_at = time.monotonic() + _EXPIRE_SECONDS
                self._expire()
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed, max(expire_at - time.monotonic(), 0.001))
                if self._waiting:
                    self._changed.wait_for(lambda: self._hurried or self._closed, _LINGER_SECONDS)
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                self._hurried = bool(self._waiting)
                if not batch and self._closed:
                    return
            if batch:
                self._write(batch)

    def _write(self, batch: list[_Waiting]) -> None:
        outcomes: list[VitrineError | None]
        try:
            outcomes = [*self._store.write([each.item for each in batch])]
        except Exception as error:  # whatever the disk says, the gateway goes on searching
            log.error("feedback not stored", records=len(batch), error=f"{type(error).__name__}: {error}")
            metrics.FEEDBACK_DROPPED.labels("disk").inc(len(batch))
            outcomes = [UnavailableError("feedback cannot be stored: the disk refuses")] * len(batch)
        answers = [(each.answer, outcome) for each, outcome in zip(batch, outcomes, strict=True) if each.answer]
        if answers:
            try:
                self._loop.call_soon_threadsafe(_settle, answers)
            except RuntimeError:  # the loop is closed, and everyone who waited is gone
                return

    def _expire(self) -> None:
        try:
            while expired := self._store.expire():
                metrics.FEEDBACK_EXPIRED.inc(expired)
            metrics.FEEDBACK_QUERIES.set(self._store.count())
        except Exception as error:  # tried again later; what has expired is not shown meanwhile
            log.error("feedback not expired", error=f"{type(error).__name__}: {error}")


def _check(request: search_pb2.RecordFeedbackRequest) -> Event:
    size = len(request.query_id.encode())
    if not 1 <= size <= MAX_QUERY_ID_BYTES:
        raise InvalidArgumentError(
            f"query_id has {size} bytes, must have 1 to {MAX_QUERY_ID_BYTES}: it is that of the answer",
            field="query_id",
        )
    check_id(request.product_id, "product_id")
    if request.action not in search_pb2.FeedbackAction.values() or not request.action:
        known = ", ".join(name for name, value in search_pb2.FeedbackAction.items() if value)
        raise InvalidArgumentError(f"action is {request.action}, must be one of {known}", field="action")
    return Event(request.query_id, request.product_id, request.action, _now_ms())


def _settle(answers: list[tuple[asyncio.Future[None], VitrineError | None]]) -> None:
    for answer, outcome in answers:
        if answer.done():
            continue
        if outcome is None:
            answer.set_result(None)
        else:
            answer.set_exception(outcome)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
