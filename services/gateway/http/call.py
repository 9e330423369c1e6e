"""One HTTP request to the API, as its handler sees it: who asks, for how long, and whether anyone still waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request

from services.gateway.http.identity import Asker
from vitrine.errors import CancelledCallError, DeadlineError, InvalidArgumentError

TIMEOUT_HEADER = "x-timeout-ms"
MAX_TIMEOUT_MS = 3_600_000

Answer = TypeVar("Answer")
Question = TypeVar("Question")


class Call:
    """One request and its deadline."""

    def __init__(self, request: Request, asker: Asker, longest: float) -> None:
        """`longest`: seconds granted to a request that asks for no less.

        Raises:
            InvalidArgumentError: The header X-Timeout-Ms is no number of milliseconds.
        """
        self.request = request
        self.asker = asker
        self._began = time.perf_counter()
        self._seconds = longest
        if (given := request.headers.get(TIMEOUT_HEADER)) is not None:
            if not (given.isascii() and given.isdigit() and 1 <= int(given[:12]) <= MAX_TIMEOUT_MS):
                raise InvalidArgumentError(
                    f"{TIMEOUT_HEADER} is {given[:40]!r}, must be 1 to {MAX_TIMEOUT_MS}", field=TIMEOUT_HEADER
                )
            self._seconds = min(longest, int(given) / 1000)

    def begin(self, timeout_ms: int | None) -> None:
        """Starts the clock: the whole request is here. `timeout_ms` of its body shortens the deadline."""
        self._began = time.perf_counter()
        if timeout_ms is not None:
            self._seconds = min(self._seconds, timeout_ms / 1000)

    def time_left(self) -> float:
        """Returns the seconds until the deadline, a millisecond at least."""
        return max(self._began + self._seconds - time.perf_counter(), 0.001)

    async def ask(self, method: Callable[[Question, float], Awaitable[Answer]], question: Question) -> Answer:
        """Calls `method(question, seconds left)` where the asker may make that call; see `within_deadline`.

        Raises:
            PermissionDeniedError: It may not.
        """
        self.asker.permit(question)
        return await self.within_deadline(lambda left: method(question, left))

    async def within_deadline(self, work: Callable[[float], Awaitable[Answer]]) -> Answer:
        """Runs `work(seconds left)`, and cancels it when the deadline passes or the caller goes away.

        Raises:
            DeadlineError: It took too long.
            CancelledCallError: Nobody waits for it any more.
        """
        working = asyncio.ensure_future(work(self.time_left()))
        watching = asyncio.create_task(self._wait_for_disconnect())
        try:
            await asyncio.wait({working, watching}, timeout=self.time_left(), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            if watching.done():
                raise CancelledCallError("the caller went away")
            raise DeadlineError(f"not done within {self._seconds:g} s")
        finally:
            working.cancel()
            watching.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    async def _wait_for_disconnect(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
