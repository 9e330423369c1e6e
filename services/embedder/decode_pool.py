"""Threads that decode; interactive pictures overtake bulk ones, and callers take turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from services.embedder.priority import Priority, TwoClassQueue

Result = TypeVar("Result")


class DecodePool(Generic[Result]):
    """A thread pool with two classes. What waits is bounded by whoever submits (`services.runtime.gate`)."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._queue: TwoClassQueue[tuple[Callable[[], Result], Future[Result]]] = TwoClassQueue()
        self._lock = threading.Lock()

    async def run(self, job: Callable[[], Result], priority: Priority, caller: str = "") -> Result:
        """Runs a job in a thread; one that is cancelled before its turn does not run."""
        future: Future[Result] = Future()
        with self._lock:
            self._queue.push(priority, (job, future), caller)
        self._threads.submit(self._run_first)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Ends the threads once what they run is done."""
        self._threads.shutdown(cancel_futures=True)

    def _run_first(self) -> None:
        """Runs the job whose turn it is, which need not be the one whose submission woke this thread."""
        with self._lock:
            entry = self._queue.pop()
        assert entry is not None, "one wake-up for each job"
        job, future = entry
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(job())
        except BaseException as error:  # it belongs to whoever waits for the job
            future.set_exception(error)
