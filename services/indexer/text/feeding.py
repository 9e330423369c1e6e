"""The server's side of the process that feeds lexicons: asks text indexes what to do, starts it, notices its death."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

import structlog

from services.indexer import metrics
from services.indexer.companion import Companion, CompanionError
from services.indexer.text.index import TextIndex
from services.indexer.text.lexicon import LexiconReader
from services.indexer.text.process import TextAnswer, TextJob

_NICENESS = 5
_FIRST_RETRY_SECONDS = 0.5
_LAST_RETRY_SECONDS = 30.0
_SETTLE_STEP_SECONDS = 0.01
_CLOSE_SECONDS = 1.0

log = structlog.get_logger()


class FeedingError(Exception):
    """A job failed; it is tried again."""


class TextFeeder:
    """Does the jobs of all collections one after the other in one process, each a short one, taking turns."""

    def __init__(self, job_seconds: float) -> None:
        """A process that is at one job for longer than `job_seconds` hangs."""
        self._job_seconds = job_seconds
        self._indexes: deque[TextIndex] = deque()
        self._leftovers: list[TextJob] = []
        self._closing = False
        self._held: dict[TextIndex, tuple[int, float]] = {}  # attempts, and not before this time of the loop
        self._wake = asyncio.Event()
        self._feeder = Companion("services.indexer.text.process", "text process", _NICENESS)
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts feeding."""
        self._worker = asyncio.create_task(self._work())

    def add(self, index: TextIndex) -> None:
        """Feeds an index from now on."""
        self._indexes.append(index)
        self.wake()

    def rest(self, index: TextIndex) -> None:
        """Does no more jobs of an index until it is added again; one under way goes on, and may fail."""
        with suppress(ValueError):
            self._indexes.remove(index)
        self._held.pop(index, None)

    def remove(self, index: TextIndex) -> None:
        """Ends an index; a job under way goes on, for nothing."""
        self.rest(index)
        if (leftover := index.stop()) is not None:
            self._leftovers.append(leftover)
            self.wake()

    async def reach(self, index: TextIndex, generation: int) -> LexiconReader:
        """Returns an index's lexicon once it stands for `generation`.

        Raises:
            NotFoundError: The collection was dropped meanwhile.
        """
        while True:
            reached = asyncio.ensure_future(index.reach(generation))
            try:
                await asyncio.sleep(0)  # now it waits, and is heard
                self.wake()
                await reached
            finally:
                reached.cancel()
            if index.reader is not None:  # else found damaged this instant
                return index.reader

    def wake(self) -> None:
        """Says that there may be something to do."""
        self._wake.set()

    async def settle(self, seconds: float) -> None:
        """Waits until nothing is left to do, so that the next start finds it done; not longer than `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(index.due() is not None for index in self._indexes):
                    self.wake()
                    await asyncio.sleep(_SETTLE_STEP_SECONDS)

    async def stop(self) -> None:
        """Stops, once the files are closed; what is not done is done after the next start."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                while self._feeder.started and (self._leftovers or self._closing):
                    self.wake()
                    await asyncio.sleep(_SETTLE_STEP_SECONDS)
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self._feeder.end()

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            while self._leftovers:
                self._closing = True
                with suppress(FeedingError):  # a process that is gone has let go of everything
                    await self._ask(self._leftovers.pop())
                self._closing = False
            index, wait = self._next()
            if index is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                continue
            job = index.next_job()
            try:
                answer = await self._ask(job)
            except FeedingError as error:
                index.failed(job, damaged=False)
                self._hold(index, error)
            else:
                if answer.damaged:
                    log.error("text index damaged: made anew", collection=index.name, reason=answer.error)
                    index.failed(job, damaged=True)
                else:
                    self._held.pop(index, None)
                    index.done(job, answer)

    def _next(self) -> tuple[TextIndex | None, float | None]:
        """Returns the next index with something to do; or None, and the seconds until that may change."""
        now = asyncio.get_running_loop().time()
        soonest: float | None = None
        for index in self._indexes:
            due = index.due()
            if due is None:
                continue
            due = max(due, self._held.get(index, (0, 0.0))[1])
            if due <= now:
                # The next look starts behind this one, so that a busy collection does not starve the others.
                self._indexes.remove(index)
                self._indexes.append(index)
                return index, None
            soonest = due if soonest is None else min(soonest, due)
        return None, None if soonest is None else soonest - now

    def _hold(self, index: TextIndex, error: FeedingError) -> None:
        if index not in self._indexes:  # dropped meanwhile, and its files with it
            return
        attempts = self._held.get(index, (0, 0.0))[0] + 1
        delay = min(_FIRST_RETRY_SECONDS * 2 ** (attempts - 1), _LAST_RETRY_SECONDS)
        self._held[index] = (attempts, asyncio.get_running_loop().time() + delay)
        metrics.TEXT_FAILURES.inc()
        log.error(
            "text index falls behind until this succeeds",
            collection=index.name,
            attempt=attempts,
            retry_seconds=delay,
            error=str(error),
        )

    async def _ask(self, job: TextJob) -> TextAnswer:
        try:
            async with asyncio.timeout(self._job_seconds):
                await self._feeder.say(job)
                answer = await self._feeder.hear(TextAnswer)
        except CompanionError as error:
            raise FeedingError(str(error)) from None
        except TimeoutError:
            await self._feeder.end()
            raise FeedingError(
                f"the text process was not done within {self._job_seconds:g} s, and was killed"
            ) from None
        if answer.error is not None and not answer.damaged:
            raise FeedingError(answer.error)
        return answer
