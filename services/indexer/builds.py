"""The server's side of the builder process: queues full blocks, starts the builder, notices its death, tries again."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from services.indexer import metrics
from services.indexer.builder import BuildAnswer, BuildJob

_FIRST_RETRY_SECONDS = 1.0
_LAST_RETRY_SECONDS = 60.0
_LINE_BYTES = 2**20

log = structlog.get_logger()


class BuildError(Exception):
    """A build failed; its points stay searchable in their block, and it is tried again."""


@dataclass(slots=True)
class Build:
    """A block to become a segment."""

    collection: str
    wanted: Callable[[], bool]
    """False where the block is gone, or its collection."""
    prepare: Callable[[], BuildJob]
    """Describes the job, under names of its own."""
    install: Callable[[BuildJob, BuildAnswer], Awaitable[None]]
    """Puts the finished segment in service; raises where it cannot."""
    discard: Callable[[BuildJob], None]
    """Removes what a failed job may have left behind."""
    attempts: int = 0


class BuildService:
    """Runs builds one after the other in one builder process, which it starts when there is something to build."""

    def __init__(self) -> None:
        # Bounded by what it names: each entry is a full block that is in memory anyway.
        self._queue: asyncio.Queue[Build] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self._worker: asyncio.Task[None] | None = None
        self._retries: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Starts taking builds."""
        self._worker = asyncio.create_task(self._work())

    def enqueue(self, build: Build) -> None:
        """Adds a build; call it on the event loop."""
        self._queue.put_nowait(build)
        metrics.BUILDS_WAITING.set(self._queue.qsize())

    async def stop(self) -> None:
        """Stops the builder; unfinished builds start over after the next start of the server."""
        tasks = [task for task in (self._worker, *self._retries) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._end_process()

    async def _work(self) -> None:
        while True:
            build = await self._queue.get()
            metrics.BUILDS_WAITING.set(self._queue.qsize())
            if not build.wanted():
                continue
            job = build.prepare()
            try:
                answer = await self._ask(job)
                await build.install(job, answer)
                metrics.BUILD_SECONDS.observe(answer.seconds)
                log.info(
                    "segment built",
                    collection=build.collection,
                    segment=job.target.name,
                    rows=answer.entry.rows if answer.entry else 0,
                    seconds=round(answer.seconds, 3),
                )
            except Exception as error:  # whatever it was, the block stays searchable and the queue goes on
                await asyncio.to_thread(build.discard, job)
                if build.wanted():
                    self._retry(build, error)

    def _retry(self, build: Build, error: Exception) -> None:
        delay = min(_FIRST_RETRY_SECONDS * 2**build.attempts, _LAST_RETRY_SECONDS)
        build.attempts += 1
        metrics.BUILD_FAILURES.inc()
        log.error(
            "segment build failed; its points are searched exactly until it succeeds",
            collection=build.collection,
            attempt=build.attempts,
            retry_seconds=delay,
            error=f"{type(error).__name__}: {error}",
        )

        async def later() -> None:
            await asyncio.sleep(delay)
            self.enqueue(build)

        task = asyncio.create_task(later())
        self._retries.add(task)
        task.add_done_callback(self._retries.discard)

    async def _ask(self, job: BuildJob) -> BuildAnswer:
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(job.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except (OSError, asyncio.LimitOverrunError) as error:
            await self._end_process()
            raise BuildError(f"lost the builder process: {error}") from None
        if not line:
            status = await process.wait()
            self._process = None
            raise BuildError(f"the builder process {process.pid} ended with status {status}")
        try:
            answer = BuildAnswer.model_validate_json(line)
        except ValidationError as error:
            await self._end_process()
            raise BuildError(f"the builder process answered nonsense: {error}") from None
        if answer.error is not None:
            raise BuildError(answer.error)
        return answer

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            # A fresh interpreter: nothing of gRPC, of threads or of open databases is inherited.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.indexer.builder",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                limit=_LINE_BYTES,
                start_new_session=True,  # Ctrl-C is the server's to handle
            )
            log.info("builder started", pid=self._process.pid)
        return self._process

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()  # it holds nothing but a scratch folder
            await process.wait()
