"""One computation for all who ask for the same thing at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from services.embedder.priority import Priority
from vitrine.errors import DeadlineError

Value = TypeVar("Value")


class SingleFlight(Generic[Value]):
    """Lets the first caller for a key compute and the others wait for its answer.

    - The computation runs inside the first caller: its place in the queues stays accounted for, and nothing runs on
      behalf of nobody.
    - Where that caller is cancelled, or its deadline passes, one of those who wait computes in its place.
    - Any other error is the answer: everyone who waits gets it, and it is not kept for those who come later.
    - Interactive callers do not wait for a bulk computation; they start their own, and bulk callers join that.

    All on one event loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._flights: dict[tuple[bytes, Priority], asyncio.Future[Value]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(
        self,
        key: bytes,
        priority: Priority,
        compute: Callable[[], Awaitable[Value]],
        deadline: float | None = None,
    ) -> tuple[Value, bool]:
        """Returns the value, and whether it is another caller's work.

        `deadline`, in the clock's time, bounds the wait for another caller; `compute` looks after its own.

        Raises:
            DeadlineError: The deadline passed while another caller computed.
            Exception: Whatever `compute` raised, here or there.
        """
        while (flight := self._joinable(key, priority)) is not None:
            await self._wait(flight, deadline)
            if not flight.cancelled():
                return flight.result(), True
        return await self._lead(key, priority, compute), False

    def _joinable(self, key: bytes, priority: Priority) -> asyncio.Future[Value] | None:
        return self._flights.get((key, Priority.INTERACTIVE)) or self._flights.get((key, priority))

    async def _lead(self, key: bytes, priority: Priority, compute: Callable[[], Awaitable[Value]]) -> Value:
        flight: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        self._flights[key, priority] = flight
        try:
            value = await compute()
            flight.set_result(value)
            return value
        except DeadlineError:
            raise
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # seen, should nobody wait
            raise
        finally:
            del self._flights[key, priority]
            flight.cancel()  # of no effect on one that was answered
            del flight  # an error's traceback knows this frame: with the flight, and so itself, in it

    async def _wait(self, flight: asyncio.Future[Value], deadline: float | None) -> None:
        """Returns once a flight has ended; unlike awaiting it, a wait that is cancelled leaves it alone."""
        left = None if deadline is None else deadline - self._clock()
        if left is None or left > 0:
            await asyncio.wait((flight,), timeout=left)
        if not flight.done():
            raise DeadlineError("the deadline passed while the same image was computed for another request")
