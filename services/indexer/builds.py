"""The server's side of the builder process: asks collections what to build, starts the builder, notices its death."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from services.indexer import metrics
from services.indexer.builder import BuildAnswer, BuildJob
from services.indexer.companion import Companion, CompanionError
from services.indexer.courtesy import Courtesy

_NICENESS = 10
_FIRST_RETRY_SECONDS = 1.0
_LAST_RETRY_SECONDS = 60.0

log = structlog.get_logger()


class BuildError(Exception):
    """A build failed; what it was to replace stays in service, and it is tried again."""


@dataclass(frozen=True, slots=True)
class Build:
    """Some neighbouring units that are to become one segment."""

    kind: str
    """`seal` (blocks), `merge` or `purge` (one segment without its dead rows)."""
    units: tuple[str, ...]
    job: BuildJob
    install: Callable[[BuildAnswer, Callable[[], None]], Awaitable[None]]
    """Puts the finished segment in service, calling the second every millisecond or so; raises where it cannot."""
    discard: Callable[[], None]
    """Removes what a failed job may have left behind."""


class Source(Protocol):
    """A collection, as far as building goes."""

    name: str

    def next_build(self, held: frozenset[str]) -> Build | None:
        """Returns the most useful build that touches none of the units `held`; None where there is none."""


class BuildService:
    """Runs builds one after the other in one builder process, which it starts when there is something to build."""

    def __init__(self, courtesy: Courtesy) -> None:
        """`courtesy` stops the builder for searches."""
        self._courtesy = courtesy
        self._sources: list[Source] = []
        self._wake = asyncio.Event()
        self._held: dict[str, dict[str, float]] = {}  # by collection and unit: not before this time of the loop
        self._attempts: dict[tuple[str, str], int] = {}
        self._builder = Companion("services.indexer.builder", "builder process", _NICENESS)
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts building."""
        self._worker = asyncio.create_task(self._work())

    def add(self, source: Source) -> None:
        """Takes builds of a collection from now on; call it on the event loop."""
        self._sources.append(source)
        self.wake()

    def remove(self, source: Source) -> None:
        """Takes no more builds of a collection; one under way goes on, and is refused when it is done."""
        if source in self._sources:
            self._sources.remove(source)
        self._held.pop(source.name, None)

    def wake(self) -> None:
        """Says that there may be something to build; call it on the event loop."""
        self._wake.set()

    async def stop(self) -> None:
        """Stops the builder; unfinished builds start over after the next start of the server."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self._builder.end()

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            found = self._next()
            if found is None:
                await self._wake.wait()
                continue
            source, build = found
            try:
                await self._run(source, build)
            except Exception as error:  # whatever it was, the old units stay in service and others get their turn
                await asyncio.to_thread(build.discard)
                if source in self._sources:  # else dropped meanwhile, and its files with it
                    self._hold(source, build, error)
            finally:
                metrics.BUILDING_POINTS.set(0)
                metrics.BUILT_POINTS.set(0)

    def _next(self) -> tuple[Source, Build] | None:
        for source in self._sources:
            now = asyncio.get_running_loop().time()
            waiting = {name: until for name, until in self._held.get(source.name, {}).items() if until > now}
            self._held[source.name] = waiting
            if build := source.next_build(frozenset(waiting)):
                # The next look starts behind this one, so that a busy collection does not starve the others.
                self._sources.remove(source)
                self._sources.append(source)
                return source, build
        return None

    async def _run(self, source: Source, build: Build) -> None:
        metrics.BUILDING_POINTS.set(build.job.rows)
        answer = await self._ask(build.job)
        await build.install(answer, self._courtesy.considerate())
        for unit in build.units:
            self._attempts.pop((source.name, unit), None)
        metrics.BUILD_SECONDS.labels(build.kind).observe(answer.seconds)
        log.info(
            "segment built",
            collection=source.name,
            kind=build.kind,
            units=len(build.units),
            segment=build.job.target.name,
            rows=answer.entry.rows if answer.entry else 0,
            seconds=round(answer.seconds, 3),
        )

    def _hold(self, source: Source, build: Build, error: Exception) -> None:
        loop = asyncio.get_running_loop()
        attempt = 1 + max(self._attempts.get((source.name, unit), 0) for unit in build.units)
        delay = min(_FIRST_RETRY_SECONDS * 2 ** (attempt - 1), _LAST_RETRY_SECONDS)
        for unit in build.units:
            self._attempts[source.name, unit] = attempt
            self._held.setdefault(source.name, {})[unit] = loop.time() + delay
        loop.call_later(delay + 0.01, self.wake)
        metrics.BUILD_FAILURES.inc()
        log.error(
            "segment build failed; its points stay searchable as they are until it succeeds",
            collection=source.name,
            kind=build.kind,
            attempt=attempt,
            retry_seconds=delay,
            error=f"{type(error).__name__}: {error}",
        )

    async def _ask(self, job: BuildJob) -> BuildAnswer:
        try:
            await self._builder.say(job)
            answer = await self._builder.hear(BuildAnswer)  # now it has begun, and ends if this process does
            with self._courtesy.work(self._builder.pause, self._builder.resume):
                while answer.progress is not None:
                    metrics.BUILT_POINTS.set(answer.progress)
                    answer = await self._builder.hear(BuildAnswer)
        except CompanionError as error:
            raise BuildError(str(error)) from None
        if answer.error is not None:
            raise BuildError(answer.error)
        return answer
