"""When to try again, and for how long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from vitrine.errors import CancelledCallError, DeadlineError, OverloadedError, UnavailableError, VitrineError

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter; the default gives up after about 20 seconds."""

    attempts: int = 9
    """Tries in all."""
    first_seconds: float = 0.1
    longest_seconds: float = 5.0

    def delay(self, attempt: int, error: VitrineError) -> float | None:
        """Returns the seconds to wait after try number `attempt` (from 1) failed; None: do not try again.

        The server's own advice (`RetryInfo`) is the least that is waited.
        """
        if not may_retry(error) or attempt >= self.attempts:
            return None
        longest = min(self.first_seconds * 2.0 ** (attempt - 1), self.longest_seconds)
        # Jitter spreads the callers that one outage has brought into step.
        return max(error.retry_after or 0.0, longest * random.uniform(0.5, 1.0))


def may_retry(error: VitrineError) -> bool:
    """Tells whether the same call may succeed later; every call made here may be made twice."""
    return isinstance(error, UnavailableError | OverloadedError | CancelledCallError | DeadlineError)


async def retrying(
    call: Callable[[], Awaitable[Answer]],
    backoff: Backoff,
    waiting: Callable[[VitrineError, float], None] = lambda error, seconds: None,
) -> Answer:
    """Calls until it succeeds or trying again is no use; raises the last error.

    `waiting` hears of each error after which the call is made again in so many seconds.
    """
    attempt = 1
    while True:
        try:
            return await call()
        except VitrineError as error:
            delay = backoff.delay(attempt, error)
            if delay is None:
                raise
            waiting(error, delay)
        attempt += 1
        await asyncio.sleep(delay)
