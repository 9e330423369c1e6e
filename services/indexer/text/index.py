"""The text index of one collection, as the server sees it: which products changed, and how far the lexicon is."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Collection as Names
from pathlib import Path
from typing import Literal

import structlog

from services.indexer import metrics
from services.indexer.text.lexicon import LexiconReader
from services.indexer.text.process import TextAnswer, TextJob
from vitrine.errors import NotFoundError

# Images of a product mostly come one after the other, and its document is written once for all of them. Somebody who
# searches does not wait for that.
_GATHER_SECONDS = 0.25
_PRODUCTS_OF_A_JOB = 1_000
# Past this many the names take more room than they are worth: everything is compared with the truth instead.
_MAX_CHANGED = 200_000

log = structlog.get_logger()


class TextIndex:
    """Follows a collection. Everything but `changed` belongs to the event loop."""

    def __init__(self, name: str, database: Path, generation: int) -> None:
        """`database`: the collection's, and the generation it was opened with; from then on `changed` is called."""
        self.name = name
        self.reader: LexiconReader | None = None
        self.reached = -1
        """The generation that the lexicon stands for."""
        self.stopped = False
        self._database = database
        self._folder = database.parent / "text"
        self._opened = generation
        self._phase: Literal["opening", "scanning", "following"] = "opening"
        self._fresh = False
        self._after = ""
        self._goal: int | None = None
        self._batch: list[str] = []
        self._batch_generation = generation
        self._due: float | None = 0.0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._lock = threading.Lock()
        # Shared with the writer thread.
        self._changed: dict[str, None] = {}
        self._generation = generation
        self._overflowed = False

    def changed(self, generation: int, products: Names[str]) -> None:
        """Says what a commit changed, before anybody can see it; any thread may call."""
        with self._lock:
            self._generation = generation
            if not self._overflowed:
                self._changed.update(dict.fromkeys(products))
            if len(self._changed) > _MAX_CHANGED:
                self._changed.clear()
                self._overflowed = True

    def published(self, now: float) -> bool:
        """Says that what has changed can be seen; returns whether that is news to whoever does the jobs."""
        metrics.TEXT_LAG.labels(self.name).set(self._generation - self.reached)
        if self._due is not None or self._generation == self.reached:
            return False
        self._due = now + _GATHER_SECONDS
        return True

    async def reach(self, generation: int) -> None:
        """Returns once the lexicon stands for `generation`; the caller wakes whoever does the jobs.

        Raises:
            NotFoundError: The collection was dropped meanwhile.
        """
        if self.stopped:
            raise self._gone()
        if self.reached >= generation:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (generation, reached)
        self._waiters.append(entry)
        try:
            await reached
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(entry)

    def rebuild(self, reader: LexiconReader) -> None:
        """Gives up a lexicon that a search found damaged, unless that has been done already."""
        if reader is self.reader:
            self._start_anew("damaged")

    def due(self) -> float | None:
        """Returns when there is something to do, in the loop's time; None: nothing."""
        return 0.0 if self._waiters and self._due is not None else self._due

    def next_job(self) -> TextJob:
        """Returns what to do now."""
        job = TextJob(kind="open", database=self._database, folder=self._folder, fresh=self._fresh)
        if self._phase == "opening":
            return job
        assert self.reader is not None
        job = job.model_copy(update={"fresh": False, "file": self.reader.path.name})
        if self._phase == "following" and not self._batch:
            with self._lock:
                if self._overflowed:
                    self._changed, self._overflowed = {}, False
                    self._start_scan("overflow")
                else:
                    self._batch, self._changed = list(self._changed), {}
                    self._batch_generation = self._generation
        if self._phase == "scanning":
            return job.model_copy(update={"kind": "scan", "after": self._after, "generation": self._goal})
        last = len(self._batch) <= _PRODUCTS_OF_A_JOB
        return job.model_copy(
            update={
                "kind": "update",
                "products": self._batch[:_PRODUCTS_OF_A_JOB],
                "generation": self._batch_generation if last else None,
            }
        )

    def done(self, job: TextJob, answer: TextAnswer) -> None:
        """Takes note of a job that succeeded."""
        if not self._current(job):
            return
        match job.kind:
            case "open":
                self._take_lexicon(answer)
            case "scan":
                self._after, self._goal = answer.after or "", answer.generation
                if answer.after is None:
                    self._phase = "following"
                    self._arrive(answer.generation)
            case "update":
                del self._batch[: len(job.products)]
                if job.generation is not None:
                    self._arrive(job.generation)
        metrics.TEXT_DOCUMENTS.labels(self.name).set(answer.documents)

    def failed(self, job: TextJob, *, damaged: bool) -> None:
        """Takes note of a job that failed; what is to be done comes again."""
        if damaged and self._current(job):
            self._start_anew("damaged")

    def stop(self) -> TextJob | None:
        """Ends it, with an error for those who wait; returns what remains to be done, None: nothing."""
        self.stopped = True
        self._due = None
        for _, reached in self._waiters:
            if not reached.done():
                reached.set_exception(self._gone())
        if self.reader is None:
            return None
        self.reader.close()
        return TextJob(kind="close", database=self._database, folder=self._folder, file=self.reader.path.name)

    def _current(self, job: TextJob) -> bool:
        """False for a job of a lexicon that has been given up meanwhile."""
        return not self.stopped and job.file == ("" if self.reader is None else self.reader.path.name)

    def _take_lexicon(self, answer: TextAnswer) -> None:
        self._drop_reader()
        self.reader = LexiconReader(self._folder / answer.file)
        fresh, self._fresh = self._fresh, False
        if answer.generation == self._opened and not fresh:
            self._phase = "following"
            self._arrive(answer.generation)
        else:
            self._start_scan("missing" if answer.generation < 0 else "behind", counted=not fresh)

    def _arrive(self, generation: int) -> None:
        self.reached = generation
        with self._lock:
            waiting = bool(self._changed) or self._overflowed
            # What changed before the scan began is in it already, and is only looked at once more.
            if not waiting and not self._batch:
                self.reached = max(generation, self._generation)
        self._due = asyncio.get_running_loop().time() + _GATHER_SECONDS if waiting or self._batch else None
        for wanted, reached in self._waiters:
            if wanted <= self.reached and not reached.done():
                reached.set_result(None)
        metrics.TEXT_LAG.labels(self.name).set(self._generation - self.reached)

    def _start_scan(self, reason: str, *, counted: bool = True) -> None:
        self._phase, self._after, self._goal = "scanning", "", None
        self._batch = []
        self._due = 0.0
        if counted:
            self._count(reason)

    def _start_anew(self, reason: str) -> None:
        self._drop_reader()
        self._phase, self._fresh, self.reached, self._due = "opening", True, -1, 0.0
        self._batch = []
        self._count(reason)

    def _count(self, reason: str) -> None:
        metrics.TEXT_REBUILDS.labels(reason).inc()
        if self._opened or reason != "missing":  # else it is a new collection
            log.info("text index is compared with the stored points", collection=self.name, reason=reason)

    def _drop_reader(self) -> None:
        if self.reader is not None:
            self.reader.close()
        self.reader = None

    def _gone(self) -> NotFoundError:
        return NotFoundError(f"collection {self.name!r} was dropped, or the shard is stopping")
